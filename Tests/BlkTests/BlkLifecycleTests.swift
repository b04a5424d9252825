import BlkBack
import BlkFront
import Testing
import XenLoopback

/// The way in and out of Connected, with the disk's pages and ports counted.
struct BlkLifecycleTests {
  @Test(arguments: 1...50)
  func unpluggedDiskLeavesNothingBehind(seed: UInt64) throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(seed: seed, frontend: disk, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    #expect(pair.loopback.grantCounts.sharedPages == 353 && pair.loopback.grantCounts.mappedPages == 1)
    try disk.read(sector: 0, byteCount: 512, tag: 1)
    disk.push()
    try pair.toolstack.unplug(pair.device)
    #expect(try pair.scheduler.run { try pair.toolstack.isClosed(pair.device) && pair.backBus.isEmpty })
    var results: [BlkFrontCompletion.Result] = []
    disk.poll { results.append($0.result) }
    #expect(results.count == 1, "seed \(seed): a request in flight ends, one way or the other")
    // The frontend gives its pages back once it has seen that.
    #expect(pair.scheduler.run { pair.loopback.openPortCount == 0 }, "seed \(seed)")
    let counts = pair.loopback.grantCounts
    #expect(counts.sharedPages == 0 && counts.mappedPages == 0 && counts.quarantinedPages == 0, "seed \(seed)")
    try pair.toolstack.remove(pair.device)
    _ = pair.scheduler.run(turns: 50) { false }
    #expect(pair.frontBus.report.isEmpty)
  }

  /// As Linux's backend does, which opens its device only when the rings are there.
  @Test func featuresOfferedWithConnectedAreUsed() throws {
    let disk = BlkFrontDevice()
    let backend = RawBlkBackend()
    backend.keys = [StoreEntry("feature-flush-cache", true), StoreEntry("feature-barrier", true)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    try pair.connect()
    #expect(disk.negotiation.lines.filter { $0.agreed == "on" }.map(\.feature) == backend.keys.map(\.key))
    try disk.flush(tag: 1)
    try disk.writeBarrier(sector: 0, pattern(512, seed: 1).span, tag: 2)
    disk.push()
    #expect(try backend.requests().map(\.operation) == [BlkIf.Operation.flushDiskCache, BlkIf.Operation.writeBarrier])
  }

  @Test(arguments: 1...50)
  func restartedBackendIsFollowed(seed: UInt64) throws {
    let disk = BlkFrontDevice()
    let store = MemoryStore(sectorCount: 64)
    let pair = try BlkPair(seed: seed, frontend: disk, store: store)
    try pair.connect()
    try disk.write(sector: 3, pattern(512, seed: 3).span, tag: 1)
    _ = pair.complete(disk)
    pair.scheduler.remove(pair.backBus)
    // Another process takes over: it finds Connected in the keys and must not believe it.
    let bus = try Bus(on: pair.driverDomain, queueHost: pair.scheduler, log: .silent)
    try bus.register(BlkBackDriver { _ in store })
    pair.scheduler.add(bus, name: "second backend's bus") { _ in bus.poll() }
    #expect(pair.scheduler.run { bus.isConnected && pair.frontBus.isConnected }, "seed \(seed): \(bus.report)")
    try disk.read(sector: 3, byteCount: 512, tag: 2)
    #expect(pair.complete(disk)[2]?.bytes == pattern(512, seed: 3), "seed \(seed)")
  }

  @Test func backendOnAThreadServesARealFile() throws {
    let image = try TemporaryFile(byteCount: 1 << 20)
    let loopback = Loopback()
    let domainZero = loopback.addDomain()
    let guest = loopback.addDomain()
    let backBus = try Bus(on: domainZero)
    let frontBus = try Bus(on: guest)
    let disk = BlkFrontDevice()
    let device = try Toolstack(on: domainZero).addVbd(
      to: guest.domain, servedBy: domainZero.domain, params: image.path.string)
    try backBus.register(BlkBackDriver { (device) throws(DeviceError) in try FileStore(for: device) })
    try frontBus.register(disk)
    let both = { (condition: () -> Bool) in
      frontBus.run(seconds: 10) {
        backBus.poll()
        return condition()
      }
    }
    #expect(both { disk.isConnected && backBus.isConnected })
    // The queue's own thread answers now; this one only waits.
    var results: [UInt64: [UInt8]] = [:]
    let written = pattern(BlkFrontDevice.maxByteCount, seed: 9)
    for tag in 0..<UInt64(23) { try disk.write(sector: tag * 88, written.span, tag: tag) }
    try disk.flush(tag: 100)
    disk.push()
    while disk.inFlightCount > 0 {
      if let descriptor = disk.descriptor { Wakeup.wait(for: descriptor, timeout: 1000) }
      disk.poll { #expect($0.result == .succeeded) }
    }
    for tag in 0..<UInt64(23) { try disk.read(sector: tag * 88, byteCount: written.count, tag: tag) }
    disk.push()
    while disk.inFlightCount > 0 {
      if let descriptor = disk.descriptor { Wakeup.wait(for: descriptor, timeout: 1000) }
      disk.poll { results[$0.tag] = $0.bytes.copied() }
    }
    #expect(results.count == 23 && results.values.allSatisfy { $0 == written })
    try Toolstack(on: domainZero).unplug(device)
    #expect(both { backBus.isEmpty })
    #expect(try image.bytes(0..<written.count) == written)
  }
}
