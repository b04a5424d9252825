import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// B17: a disk whose backend leaves it connected, and the process that goes on with its ring.
struct BlkDetachTests {
  /// Requests are in flight, some in the store and some not even taken; each is completed once, with the right bytes.
  @Test(arguments: seeds(1...60, of: BlkDetachTests.self), BlkProtocol.allCases)
  func guestNoticesNothingButAPause(seed: Seed, layout: BlkProtocol) throws {
    let memory = MemoryStore(sectorCount: 512)
    let disk = BlkFrontDevice(protocol: layout)
    let pair = try BlkPair(seed: seed, frontend: disk, store: ReorderingStore(memory))
    try pair.connect()
    var random = SeededGenerator(seed)
    var bus = pair.backBus
    var results: [UInt64: Int] = [:]
    for round in 0..<3 {
      for slot in 0..<16 {
        let written = pattern(2048, seed: round * 100 + slot)
        if slot == 9 {
          try disk.writeBarrier(sector: UInt64(slot * 32), written.span, tag: UInt64(round * 100 + slot))
        } else {
          try disk.write(sector: UInt64(slot * 32), written.span, tag: UInt64(round * 100 + slot))
        }
      }
      disk.push()
      for _ in 0..<Int.random(in: 0..<6, using: &random) { pair.scheduler.round() }
      pair.scheduler.remove(bus)
      #expect(bus.detach().isEmpty)
      // What the guest asks for meanwhile waits in the ring.
      try disk.flush(tag: UInt64(round * 100 + 50))
      disk.push()
      bus = try pair.addBackBus(BlkBackDriver { _ in ReorderingStore(memory) })
      let answered = pair.scheduler.run {
        disk.poll { completion in
          #expect(completion.result == .succeeded)
          results[completion.tag, default: 0] += 1
        }
        return disk.inFlightCount == 0 && bus.isConnected
      }
      #expect(answered, "\(bus.report)")
      #expect(pair.frontBus.isConnected)
    }
    #expect(results.count == 3 * 17 && results.values.allSatisfy { $0 == 1 })
    for slot in 0..<16 {
      try disk.read(sector: UInt64(slot * 32), byteCount: 2048, tag: 1000)
      #expect(pair.complete(disk)[1000]?.bytes == pattern(2048, seed: 200 + slot))
    }
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { bus.isEmpty && pair.holdsNothing })
  }

  @Test func nothingIsHeldWhileNobodyServes() throws {
    let pair = try BlkPair(frontend: BlkFrontDevice(), store: MemoryStore(sectorCount: 64))
    try pair.connect()
    let mapped = pair.loopback.grantCounts.mappedPages
    #expect(mapped == 1)
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    #expect(pair.loopback.grantCounts.mappedPages == 0)
    // The guest's own port.
    #expect(pair.loopback.openPortCount == 1)
    #expect(pair.closed.list.count == 1)
  }

  @Test func diskThatHasChangedMeanwhileIsNotServed() throws {
    let pair = try BlkPair(frontend: BlkFrontDevice(), store: MemoryStore(sectorCount: 64))
    try pair.connect()
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    for (driver, key) in [
      (BlkBackDriver { _ in MemoryStore(sectorCount: 128) }, "sectors = 64 and would be served with 128"),
      (BlkBackDriver(offersFlush: false) { _ in MemoryStore(sectorCount: 64) }, "feature-flush-cache = 1"),
    ] {
      let bus = try pair.addBackBus(driver)
      #expect(pair.scheduler.run { bus.report.contains { $0.contains(key) } }, "\(bus.report)")
      #expect(try pair.frontendState == .connected && pair.backendState == .connected)
      #expect(pair.loopback.grantCounts.mappedPages == 0)
      pair.scheduler.remove(bus)
    }
    let bus = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    #expect(pair.scheduler.run { bus.isConnected })
  }

  @Test func wordOfAnotherProgramIsNotBelieved() throws {
    let pair = try BlkPair(frontend: BlkFrontDevice(), store: MemoryStore(sectorCount: 64))
    try pair.connect()
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    try pair.rig.directory(pair.device.backendPath).write([StoreEntry("detached", "4294967296")])
    let bus = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    #expect(pair.scheduler.run { bus.report.contains { $0.contains("by another program") } })
    #expect(try pair.backendState == .connected)
  }

  /// Then the guest's requests have no answer, and another process must not pretend that they have.
  @Test func storeThatHangsCannotBeDetachedFrom() throws {
    let store = HoldingStore(MemoryStore(sectorCount: 64))
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: store)
    try pair.connect()
    try disk.read(sector: 0, byteCount: 512, tag: 1)
    disk.push()
    #expect(pair.scheduler.run { store.heldCount == 1 })
    pair.scheduler.remove(pair.backBus)
    let failures = pair.backBus.detach()
    #expect(failures.keys.first == pair.device.backendPath && failures.count == 1)
    #expect("\(failures)".contains("the store does not complete what it was given"))
    let bus = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    #expect(pair.scheduler.run { bus.isConnected && pair.frontBus.isConnected })
    var results: [BlkFrontCompletion.Result] = []
    disk.poll { results.append($0.result) }
    #expect(results == [.disconnected])
  }
}
