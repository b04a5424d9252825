import BlkBack
import BlkFront
import TestSupport
import Testing

/// A disk that another process has left connected, and whose live ring the next one cannot map.
struct BlkHeldDiskTests {
  /// The frontend notices nothing, and what it asks for meanwhile is answered when the ring can be mapped.
  @Test func diskWhoseRingCannotBeMappedIsHeldUntilSomebodyCalls() throws {
    let memory = MemoryStore(sectorCount: 64)
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: memory)
    try pair.connect()
    let portCount = pair.loopback.openPortCount
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    try disk.write(sector: 8, pattern(512, seed: 1).span, tag: 1)
    disk.push()
    pair.loopback.grantFaults.failedMap = .next(2)
    let bus = try pair.addBackBus(BlkBackDriver { _ in memory })
    #expect(pair.scheduler.run { !bus.givenUpDevices.isEmpty })
    #expect("\(bus.report)".contains("waits for a start of its backend with what it was connected with"))
    // A call that comes too early changes nothing.
    bus.callForAttention()
    for _ in 0..<50 { pair.scheduler.round() }
    #expect(bus.givenUpDevices.count == 1 && pair.frontBus.isConnected && disk.inFlightCount == 1)
    #expect(pair.loopback.grantCounts.mappedPages == 0 && pair.loopback.openPortCount == portCount - 1)
    bus.callForAttention()
    #expect(pair.scheduler.run { bus.isConnected && bus.heldDevices.isEmpty })
    #expect(pair.complete(disk)[1]?.result == .succeeded)
    try disk.read(sector: 8, byteCount: 512, tag: 2)
    #expect(pair.complete(disk)[2]?.bytes == pattern(512, seed: 1))
    #expect(try pair.backendError == nil)
  }

  /// The toolstack can withdraw it as it can any other.
  @Test func heldDiskCanBeUnplugged() throws {
    let pair = try BlkPair(frontend: BlkFrontDevice(), store: MemoryStore(sectorCount: 64))
    try pair.connect()
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    pair.loopback.grantFaults.failedMap = .oneIn(1)
    let bus = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    #expect(pair.scheduler.run { !bus.givenUpDevices.isEmpty })
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { bus.isEmpty && pair.holdsNothing })
  }
}
