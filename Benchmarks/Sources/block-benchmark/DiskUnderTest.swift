import BlkFront
import BlockStores
import Glibc
import Logging
import Measuring
import SystemPackage
import XenLoopback

/// A disk with both its ends connected, and as many requests in flight as asked for.
final class DiskUnderTest {
  private let loopback = Loopback()
  private let backend: BusThread
  private let bus: Bus
  private let disk: BlkFrontDevice
  private let blockByteCount: Int
  private let depth: Int
  private let blockCount: UInt64

  private let sleep: AdaptiveSleep

  init(
    image: FilePath, isDirect: Bool, isInMemory: Bool, blockByteCount: Int, depth: Int, queueCount: Int,
    sleep: AdaptiveSleep
  ) throws {
    self.sleep = sleep
    let log = Logger(label: "benchmark") { _ in SwiftLogNoOpLogHandler() }
    let driverDomain = loopback.addDomain()
    let guest = loopback.addDomain()
    (self.blockByteCount, self.depth) = (blockByteCount, depth)
    var options = BlkFrontOptions()
    let pageCount = blockByteCount / xenPageSize
    options.maxQueueCount = queueCount
    options.maxIndirectSegmentCount = max(pageCount, 32)
    // A page has 32 slots.
    options.maxRingPageOrder = (0...4).first { 32 << $0 >= (depth + queueCount - 1) / queueCount } ?? 4
    options.poolPageCount = min(depth * (pageCount + 2) + 64, 65535)
    guest.sharedPageLimit = 1 << 20
    let device = try Toolstack(on: driverDomain).addVbd(
      to: guest.domain, servedBy: driverDomain.domain, params: image.string)
    let host = ThreadPerQueue(sleep: sleep)
    backend = try BusThread(on: driverDomain, queueHost: host, log: log) { (bus) throws(XenstoreError) in
      var options = BlkBackOptions()
      options.maxQueueCount = queueCount
      options.persistentPageCount = 65536
      options.bufferPageCount = 4096
      let driver = BlkBackDriver(options: options) { (_) throws(DeviceError) in
        do throws(FileStoreError) {
          let file = try FileStore(path: image, options: FileStoreOptions(direct: isDirect ? .on : .off))
          return isInMemory ? MemoryStore(sectorCount: file.geometry.sectorCount) : file
        } catch { throw .resource("\(error)") }
      }
      try bus.register(driver)
      return nil
    }
    bus = try Bus(on: guest, log: log)
    disk = BlkFrontDevice(options)
    try bus.register(disk, at: device.frontendPath)
    let (bus, disk) = (bus, disk)
    guard bus.run(seconds: 10, until: { disk.isConnected }), let geometry = disk.geometry else {
      throw BenchmarkError("the disk does not connect: \(bus.report.joined(separator: "; "))")
    }
    blockCount = geometry.sectorCount / UInt64(blockByteCount / BlkIf.sectorByteCount)
    guard blockCount > 0 else { throw BenchmarkError("the image is smaller than one request") }
  }

  /// What a run came to.
  struct Figures: CustomStringConvertible {
    var requests = 0
    var bytes = 0
    var seconds = 0.0
    var processorSeconds = 0.0
    /// Of this process's resident memory.
    var grownKibibytes = 0
    /// Of each request, from its call to its completion; at depth 1 alone.
    var latencies: [UInt32] = []

    var description: String {
      let rate = Int((Double(requests) / seconds).rounded())
      let mebibytes = Int((Double(bytes) / seconds / 1_048_576).rounded())
      let load = (processorSeconds / seconds * 100).rounded() / 100
      return "\(rate) \(mebibytes) \(load) \(grownKibibytes)"
    }

    /// Half of the requests, 99 of a hundred and 999 of a thousand were served in so many microseconds; then the microseconds of
    /// processor time for each.
    var latency: String {
      let sorted = latencies.sorted()
      let quantiles = [0.5, 0.99, 0.999].map { part in
        sorted.isEmpty ? "-" : (Double(sorted[min(Int(Double(sorted.count) * part), sorted.count - 1)]) / 1000).fixed(1)
      }
      return (quantiles + [(processorSeconds / Double(requests) * 1e6).fixed(2)]).joined(separator: " ")
    }
  }

  /// - Parameter copies: out of the shared pages, or into them, once more.
  func measure(_ workload: Workload, copies: Bool, seconds: Double, requests: Int) throws -> Figures {
    var figures = Figures()
    let buffer = [UInt8](repeating: 0xA5, count: blockByteCount)
    var destination = [UInt8](repeating: 0, count: blockByteCount)
    let sectorsEach = UInt64(blockByteCount / BlkIf.sectorByteCount)
    var random: UInt64 = 0x9E37_79B9_7F4A_7C15
    var next: UInt64 = 0
    var inFlight = 0
    var sleep = self.sleep
    var failed = 0
    // A beginning that is not counted: pages are touched and mapped, files opened. Where requests are counted it has a
    // twentieth of them, however little time the process is given.
    let start = Uptime.now.nanoseconds
    let begin = start + 300_000_000
    let end = begin + UInt64(seconds * 1e9)
    var begun: (nanoseconds: UInt64, processor: Double, resident: Int)?
    var now = start
    // For the request under way, when there is one.
    var waited: UInt32 = 0
    if depth == 1 { figures.latencies.reserveCapacity(1 << 22) }
    while now < end, begun == nil || figures.requests < requests {
      let called = now
      while inFlight < depth {
        if workload.isRandom {
          random ^= random << 13
          random ^= random >> 7
          random ^= random << 17
          next = random % blockCount
        } else {
          next = next + 1 < blockCount ? next + 1 : 0
        }
        let sector = next * sectorsEach
        switch (workload.writes, copies) {
        case (false, _): try disk.read(sector: sector, byteCount: blockByteCount, tag: 0)
        case (true, true): try disk.write(sector: sector, buffer.span, tag: 0)
        // What the pages hold is as good as anything.
        case (true, false): try disk.write(sector: sector, byteCount: blockByteCount, tag: 0) { _ in }
        }
        inFlight += 1
        // The backend begins with the first ones while we put the others.
        if inFlight % 8 == 0 { disk.push() }
      }
      disk.push()
      let completed = disk.poll(looks: sleep.looks) { completion in
        if completion.result != .succeeded { failed += 1 }
        if copies, !workload.writes {
          var span = destination.mutableSpan
          completion.copy(to: &span)
        }
      }
      inFlight -= completed
      now = Uptime.now.nanoseconds
      if begun == nil, now >= begin, requests == .max || figures.requests >= requests / 20 {
        begun = (now, ProcessUse.processorSeconds, ProcessUse.residentKibibytes)
        figures.requests = 0
        figures.latencies = []
      }
      if depth == 1 { waited &+= UInt32(truncatingIfNeeded: now &- called) }
      if depth == 1, completed == 1 {
        figures.latencies.append(waited)
        waited = 0
      }
      figures.requests += completed
      if completed == 0, let descriptor = disk.descriptor {
        var waits = [pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)]
        _ = sleep.wait(for: &waits, timeout: 1000) { disk.hasWork }
      }
      guard failed == 0 else { throw BenchmarkError("\(failed) requests failed") }
    }
    guard let begun else { throw BenchmarkError("nothing was measured") }
    figures.bytes = figures.requests * blockByteCount
    figures.seconds = Double(now - begun.nanoseconds) / 1e9
    figures.processorSeconds = ProcessUse.processorSeconds - begun.processor
    figures.grownKibibytes = ProcessUse.residentKibibytes - begun.resident
    while inFlight > 0 {
      inFlight -= disk.poll { _ in }
      if inFlight > 0, let descriptor = disk.descriptor { Wakeup.wait(for: descriptor, timeout: 1000) }
    }
    return figures
  }

  func close() {
    bus.close()
    let bus = bus
    _ = bus.run(seconds: 5) { bus.isEmpty }
    backend.end(within: 5)
    backend.join()
  }
}

struct BenchmarkError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
