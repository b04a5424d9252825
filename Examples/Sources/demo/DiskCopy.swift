import BlkBack
import BlkFront
import Crypto
import Foundation
import Logging
import XenLoopback

/// Copies one disk to another through two pairs of block drivers.
struct DiskCopy {
  let source: String
  let copy: String

  /// What the guest has seen so far, and what is still to be done.
  private struct Progress {
    var nextRead = 0
    var nextWrite = 0
    var written = 0
    var hash = SHA256()
    /// Chunks that came before their turn.
    var early: [Int: [UInt8]] = [:]
    /// Chunks that came in turn, until the second disk takes them.
    var ready: [[UInt8]] = []
  }

  func run() throws -> String {
    let loopback = Loopback()
    let domainZero = loopback.addDomain()
    let driverDomain = loopback.addDomain()
    let guest = loopback.addDomain()
    let sourceStore = try store(source, isReadOnly: true)
    try makeCopy(byteCount: sourceStore.geometry.sectorCount * 512)
    let stores = [source: sourceStore, copy: try store(copy, isReadOnly: false)]
    let driverDomainRun = DriverDomain(driverDomain) { (device) throws(DeviceError) in
      guard let store = stores[try device.own.string("params")] else { throw .resource("no such image") }
      return store
    }
    let toolstack = try Toolstack(on: domainZero)
    let bus = try Bus(on: guest, log: .quiet)
    let from = BlkFrontDevice()
    let to = BlkFrontDevice()
    var devices: [Toolstack.Device] = []
    for (number, disk, path) in [(51712, from, source), (51728, to, copy)] {
      let device = try toolstack.addVbd(
        number, to: guest.domain, servedBy: driverDomain.domain, params: path, isReadOnly: path == source)
      devices.append(device)
      try bus.register(disk, at: device.frontendPath)
    }
    guard bus.run(seconds: 10, until: { from.isConnected && to.isConnected }), let geometry = from.geometry else {
      throw DemoError("the disks do not connect:\n" + bus.report.joined(separator: "\n"))
    }
    let start = Date()
    let seen = try copyAll(from, to, bus, byteCount: Int(geometry.sectorCount) * 512)
    let seconds = Date().timeIntervalSince(start)
    let ring = (from.statistics, to.statistics)
    let negotiation = from.negotiation
    for device in devices { try toolstack.unplug(device) }
    guard bus.run(seconds: 10, until: { devices.allSatisfy { (try? toolstack.isClosed($0)) == true } }) else {
      throw DemoError("the disks do not close:\n" + bus.report.joined(separator: "\n"))
    }
    for device in devices { try toolstack.remove(device) }
    let backends = driverDomainRun.stop()
    return try summary(seen, seconds, negotiation, Int(geometry.sectorCount) * 512, ring, backends)
  }

  private func store(_ path: String, isReadOnly: Bool) throws -> FileStore {
    do { return try FileStore(path: .init(path), isReadOnly: isReadOnly) } catch { throw DemoError("\(error)") }
  }

  private func makeCopy(byteCount: UInt64) throws {
    guard FileManager.default.createFile(atPath: copy, contents: nil), let file = FileHandle(forWritingAtPath: copy)
    else {
      throw DemoError("the copy \(copy) cannot be written")
    }
    try file.truncate(atOffset: byteCount)
    try file.close()
  }

  /// Reads chunks of the largest size that one request can carry, as many at once as the ring takes.
  private func copyAll(_ from: BlkFrontDevice, _ to: BlkFrontDevice, _ bus: Bus, byteCount: Int) throws -> SHA256.Digest
  {
    var progress = Progress()
    var meter = Meter("copied", total: byteCount)
    let chunk = BlkFrontDevice.maxByteCount
    let chunkCount = (byteCount + chunk - 1) / chunk
    var failure: String?
    while progress.written < chunkCount, failure == nil {
      // Not further ahead than memory should hold.
      while progress.nextRead < min(chunkCount, progress.written + 256) {
        let offset = progress.nextRead * chunk
        do throws(BlkFrontError) {
          try from.read(
            sector: UInt64(offset / 512), byteCount: min(chunk, byteCount - offset), tag: UInt64(progress.nextRead))
        } catch {
          guard error == .busy else { throw error }
          break
        }
        progress.nextRead += 1
      }
      while let bytes = progress.ready.first {
        do throws(BlkFrontError) {
          try to.write(sector: UInt64(progress.nextWrite * chunk / 512), bytes.span, tag: UInt64(progress.nextWrite))
        } catch {
          guard error == .busy else { throw error }
          break
        }
        progress.ready.removeFirst()
        progress.nextWrite += 1
      }
      from.push()
      to.push()
      let done =
        from.poll { completion in
          if completion.result != .succeeded { failure = "reading chunk \(completion.tag): \(completion.result)" }
          progress.early[Int(completion.tag)] = completion.bytes.copied()
          while let bytes = progress.early.removeValue(forKey: progress.nextWrite + progress.ready.count) {
            progress.hash.update(data: bytes)
            progress.ready.append(bytes)
          }
        }
        + to.poll { completion in
          if completion.result != .succeeded { failure = "writing chunk \(completion.tag): \(completion.result)" }
          progress.written += 1
        }
      meter.show(min(progress.written * chunk, byteCount))
      if done == 0 { sleep(bus, [from, to]) }
    }
    if failure == nil { try flush(to, bus) }
    if let failure { throw DemoError(failure) }
    meter.end()
    return progress.hash.finalize()
  }

  private func flush(_ disk: BlkFrontDevice, _ bus: Bus) throws {
    try disk.flush(tag: 0)
    disk.push()
    var result: BlkFrontCompletion.Result?
    while result == nil { if disk.poll({ result = $0.result }) == 0 { sleep(bus, [disk]) } }
    guard result == .succeeded else { throw DemoError("the copy cannot be flushed") }
  }

  /// Until a backend answers, or something changes in the store.
  private func sleep(_ bus: Bus, _ disks: [BlkFrontDevice]) {
    var waits = (bus.descriptors + disks.compactMap(\.descriptor)).map {
      pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
    }
    _ = Wakeup.wait(for: &waits, timeout: 1000)
    bus.poll()
  }

  private func summary(
    _ seen: SHA256.Digest, _ seconds: Double, _ negotiation: Negotiation, _ byteCount: Int,
    _ ring: (RingStatistics?, RingStatistics?), _ backends: [BlkBackStatistics]
  ) throws -> String {
    let hashes = [try hash(source), seen.hex, try hash(copy)]
    guard Set(hashes).count == 1 else {
      throw DemoError(
        "the three differ:\n  source \(hashes[0])\n  guest  \(hashes[1])\n  copy   \(hashes[2])")
    }
    let requests = backends.map { $0.readRequests + $0.writeRequests + $0.flushRequests }.reduce(0, +)
    let sent = [ring.0, ring.1].compactMap { $0?.notificationsSent }.reduce(0, +)
    let suppressed = [ring.0, ring.1].compactMap { $0?.notificationsSuppressed }.reduce(0, +)
    let backSent = backends.map(\.ring.notificationsSent).reduce(0, +)
    let backSuppressed = backends.map(\.ring.notificationsSuppressed).reduce(0, +)
    return """
      SHA-256 of the source            \(hashes[0])
      SHA-256 of what the guest saw    \(hashes[1])
      SHA-256 of the copy              \(hashes[2])
      They agree.

      What the two ends of each disk agreed on:
      \(negotiation)

      bytes                            \(byteCount)
      requests                         \(requests)
      MB/s                             \(String(format: "%.0f", Double(byteCount) / seconds / 1e6))
      notifications by the frontends   \(sent) sent, \(suppressed) suppressed
      notifications by the backends    \(backSent) sent, \(backSuppressed) suppressed
      """
  }

  private func hash(_ path: String) throws -> String {
    guard let file = FileHandle(forReadingAtPath: path) else { throw DemoError("\(path) cannot be read") }
    var hash = SHA256()
    while let bytes = try file.read(upToCount: 1 << 20), !bytes.isEmpty { hash.update(data: bytes) }
    return hash.finalize().hex
  }
}

extension SHA256.Digest {
  var hex: String { map { String(format: "%02x", $0) }.joined() }
}

extension Logger {
  /// Errors only: the demo says itself what happens.
  static var quiet: Logger {
    var logger = Logger(label: "demo")
    logger.logLevel = .error
    return logger
  }
}
