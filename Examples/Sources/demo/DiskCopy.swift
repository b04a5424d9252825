import BlkBack
import BlkFront
import BlockStores
import Crypto
import ExampleSupport
import Foundation
import XenLoopback

/// Copies one disk to another through two pairs of block drivers.
struct DiskCopy {
  private let source: String
  private let copy: String
  private let byteCount: Int
  private let stores: [String: FileStore]
  private let backends = Told<BlkBackStatistics>()

  /// What the guest says of a copy that is done.
  struct Copied {
    let seen: SHA256.Digest
    let seconds: Double
    let negotiation: Negotiation
    let rings: [RingStatistics]
  }

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

  /// Opens the image, and makes the copy in its size.
  init(source: String, copy: String) throws {
    (self.source, self.copy) = (source, copy)
    let image = try Self.store(source, isReadOnly: true)
    guard !Self.isSameFile(source, copy) else {
      throw ExampleError("the copy would write over the image itself: \(copy)")
    }
    byteCount = Int(image.geometry.sectorCount) * 512
    try Self.make(copy, byteCount: byteCount)
    stores = [source: image, copy: try Self.store(copy, isReadOnly: false)]
  }

  /// What the driver domain serves.
  func register(on bus: Bus) throws(XenstoreError) {
    let (stores, backends) = (stores, backends)
    try bus.register(
      BlkBackDriver(whenClosed: { backends.tell($1) }) { (device) throws(DeviceError) in
        guard let store = stores[try device.own.string("params")] else { throw .resource("no such image") }
        return store
      })
  }

  /// Copies, and leaves the two disks connected.
  func run(on guest: Guest) throws -> Copied {
    let (from, to) = (BlkFrontDevice(), BlkFrontDevice())
    try guest.add(from, number: 51712, params: source, isReadOnly: true)
    try guest.add(to, number: 51728, params: copy, isReadOnly: false)
    try guest.connect { from.isConnected && to.isConnected }
    let start = Date()
    let seen = try copyAll(from, to, guest, byteCount: byteCount)
    return Copied(
      seen: seen, seconds: Date().timeIntervalSince(start), negotiation: from.negotiation,
      rings: [from, to].compactMap(\.statistics))
  }

  private static func store(_ path: String, isReadOnly: Bool) throws -> FileStore {
    do { return try FileStore(path: .init(path), isReadOnly: isReadOnly) } catch { throw ExampleError("\(error)") }
  }

  /// Also by another name, or through a link.
  private static func isSameFile(_ one: String, _ other: String) -> Bool {
    let identities = [one, other].map { path -> [Int]? in
      guard
        let attributes = try? FileManager.default.attributesOfItem(
          atPath: URL(filePath: path).resolvingSymlinksInPath().path)
      else { return nil }
      return [attributes[.systemNumber], attributes[.systemFileNumber]].compactMap { ($0 as? NSNumber)?.intValue }
    }
    return identities[0] != nil && identities[0] == identities[1]
  }

  private static func make(_ copy: String, byteCount: Int) throws {
    guard FileManager.default.createFile(atPath: copy, contents: nil), let file = FileHandle(forWritingAtPath: copy)
    else {
      throw ExampleError("the copy \(copy) cannot be written")
    }
    try file.truncate(atOffset: UInt64(byteCount))
    try file.close()
  }

  /// Reads chunks of the largest size that one request can carry, as many at once as the ring takes.
  private func copyAll(_ from: BlkFrontDevice, _ to: BlkFrontDevice, _ guest: Guest, byteCount: Int) throws
    -> SHA256.Digest
  {
    var progress = Progress()
    var meter = Meter("copied", total: byteCount)
    let chunk = min(from.maxByteCount, to.maxByteCount)
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
          progress.early[Int(completion.tag)] = completion.copied()
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
      if done == 0 { guest.sleep(from.descriptor, to.descriptor) }
    }
    if failure == nil { try flush(to, guest) }
    if let failure { throw ExampleError(failure) }
    meter.end()
    return progress.hash.finalize()
  }

  private func flush(_ disk: BlkFrontDevice, _ guest: Guest) throws {
    try disk.flush(tag: 0)
    disk.push()
    var result: BlkFrontCompletion.Result?
    while result == nil { if disk.poll({ result = $0.result }) == 0 { guest.sleep(disk.descriptor) } }
    guard result == .succeeded else { throw ExampleError("the copy cannot be flushed") }
  }

  /// When the backends are closed, so that they have told what they counted.
  func summary(_ copied: Copied) throws -> String {
    let hashes = [try hash(source), copied.seen.hex, try hash(copy)]
    let backends = backends.all
    guard Set(hashes).count == 1 else {
      throw ExampleError(
        "the three differ:\n  source \(hashes[0])\n  guest  \(hashes[1])\n  copy   \(hashes[2])")
    }
    let requests = backends.map { $0.readRequests + $0.writeRequests + $0.flushRequests }.reduce(0, +)
    let front = copied.rings.reduce(into: RingStatistics()) { $0 += $1 }
    let back = backends.map(\.ring).reduce(into: RingStatistics()) { $0 += $1 }
    return """
      SHA-256 of the source            \(hashes[0])
      SHA-256 of what the guest saw    \(hashes[1])
      SHA-256 of the copy              \(hashes[2])
      They agree.

      What the two ends of each disk agreed on:
      \(copied.negotiation)

      bytes                            \(byteCount)
      requests                         \(requests)
      MB/s                             \(String(format: "%.0f", Double(byteCount) / copied.seconds / 1e6))
      notifications by the frontends   \(front.notificationsSent) sent, \(front.notificationsSuppressed) suppressed
      notifications by the backends    \(back.notificationsSent) sent, \(back.notificationsSuppressed) suppressed
      """
  }

  private func hash(_ path: String) throws -> String {
    guard let file = FileHandle(forReadingAtPath: path) else { throw ExampleError("\(path) cannot be read") }
    var hash = SHA256()
    while let bytes = try file.read(upToCount: 1 << 20), !bytes.isEmpty { hash.update(data: bytes) }
    return hash.finalize().hex
  }
}

extension SHA256.Digest {
  var hex: String { map { String(format: "%02x", $0) }.joined() }
}
