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
    let disk = BlkFrontDevice(BlkFrontOptions(layout: layout))
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
    for (geometry, key) in [
      (BlockGeometry(sectorCount: 128), "sectors = 64 and would be served with 128"),
      (BlockGeometry(sectorCount: 64, isReadOnly: true), "info = 0 and would be served with 4"),
    ] {
      let bus = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(geometry: geometry) })
      #expect(pair.scheduler.run { bus.report.contains { $0.contains(key) } }, "\(bus.report)")
      #expect(try pair.frontendState == .connected && pair.backendState == .connected)
      #expect(pair.loopback.grantCounts.mappedPages == 0)
      pair.scheduler.remove(bus)
    }
    let bus = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    #expect(pair.scheduler.run { bus.isConnected })
  }

  /// What was offered counts, and not what a successor's options would offer: the guest goes on flushing.
  @Test func successorGoesByWhatWasAgreedOn() throws {
    let store = RecordingStore(sectorCount: 64)
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: store)
    try pair.connect()
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    let bus = try pair.addBackBus(
      BlkBackDriver(options: BlkBackOptions(offersFlush: false, maxIndirectSegmentCount: 0)) { _ in store })
    #expect(pair.scheduler.run { bus.isConnected })
    #expect(
      bus.negotiations[pair.device.backendPath]?.lines.filter { $0.feature == "feature-flush-cache" }.map(\.agreed)
        == ["on"])
    try disk.flush(tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded && store.record.last == "flush 0")
  }

  /// A store may have what it was given in a memory that ends with the process.
  @Test func writesAreOnTheMediumBeforeAnotherProcessGoesOn() throws {
    let store = RecordingStore(sectorCount: 64)
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: ReorderingStore(store))
    try pair.connect()
    try disk.write(sector: 8, pattern(512, seed: 1).span, tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded)
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    #expect(store.record == ["write 8", "flush 0"])
    #expect(pair.closed.list.map(\.flushRequests) == [0], "the guest has asked for none")
  }

  @Test func diskThatIsOnlyReadIsNotFlushed() throws {
    let store = RecordingStore(sectorCount: 64)
    let pair = try BlkPair(isReadOnly: true, frontend: BlkFrontDevice(), store: store)
    try pair.connect()
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    #expect(store.record == [])
  }

  /// A process that knows nothing of the lost writes would tell the guest that its next flush has succeeded.
  @Test func storeThatHasLostWritesCannotBeDetachedFrom() throws {
    let pair = try BlkPair(frontend: BlkFrontDevice(), store: UnflushableStore())
    try pair.connect()
    pair.scheduler.remove(pair.backBus)
    let failures = pair.backBus.detach()
    #expect("\(failures)".contains("the medium is gone: a flush at sector 0 failed"))
    #expect(pair.loopback.grantCounts.mappedPages == 0)
    let bus = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    #expect(pair.scheduler.run { bus.isConnected && pair.frontBus.isConnected })
  }

  @Test func queueThatTheGuestHasBrokenCannotBeDetachedFrom() throws {
    let front = RawBlkFrontend()
    let pair = try BlkPair(frontend: front, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    // The queue stops before its bus hears of it.
    pair.scheduler.remove(pair.backBus)
    front.scribble(1000, at: 0)
    for _ in 0..<20 { pair.scheduler.round() }
    guard case .protocolViolation = pair.backBus.detach()[pair.device.backendPath] else {
      Issue.record("detached from a broken ring")
      return
    }
    #expect(pair.loopback.grantCounts.mappedPages == 0)
    #expect(try pair.rig.directory(pair.device.backendPath).optionalString("resume-from") == nil)
  }

  /// Whatever the guest does to its ring while nobody serves.
  @Test(arguments: [33, 1000, UInt32.max, 1 << 31] as [UInt32])
  func ringThatTheGuestBreaksMeanwhileIsClosed(producer: UInt32) throws {
    let front = RawBlkFrontend()
    let pair = try BlkPair(frontend: front, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    front.scribble(producer, at: 0)
    let bus = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    #expect(try pair.scheduler.run { try pair.backendError?.contains("\(producer)") == true })
    #expect(!bus.isConnected && pair.loopback.grantCounts.mappedPages == 0)
  }

  /// And to its keys: nothing is held of it, and the device waits until they are right.
  @Test(arguments: [("event-channel", "999"), ("ring-ref", "77777"), ("protocol", "vax-abi")])
  func keysThatTheGuestBreaksMeanwhileHoldNothing(key: String, value: String) throws {
    let pair = try BlkPair(frontend: BlkFrontDevice(), store: MemoryStore(sectorCount: 64))
    try pair.connect()
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    let portCount = pair.loopback.openPortCount
    let frontend = pair.rig.directory(pair.device.frontendPath)
    let right = try frontend.string(key)
    try frontend.write([StoreEntry(key, value)])
    let bus = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    #expect(pair.scheduler.run { !bus.heldDevices.isEmpty })
    #expect(pair.loopback.grantCounts.mappedPages == 0 && pair.loopback.openPortCount == portCount)
    pair.scheduler.remove(bus)
    try frontend.write([StoreEntry(key, right)])
    let next = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    #expect(pair.scheduler.run { next.isConnected })
  }

  /// What is agreed on stands in our own directory; the guest's may say what it likes.
  @Test func wordInTheGuestsDirectoryIsNotRead() throws {
    let pair = try BlkPair(frontend: BlkFrontDevice(), store: MemoryStore(sectorCount: 64))
    try pair.connect()
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    try pair.rig.directory(pair.device.frontendPath).write([
      StoreEntry("resume-from", "99"), StoreEntry("sectors", 128),
    ])
    let bus = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    #expect(pair.scheduler.run { bus.isConnected })
  }

  @Test func wordOfAnotherProgramIsNotBelieved() throws {
    let pair = try BlkPair(frontend: BlkFrontDevice(), store: MemoryStore(sectorCount: 64))
    try pair.connect()
    pair.scheduler.remove(pair.backBus)
    #expect(pair.backBus.detach().isEmpty)
    try pair.rig.directory(pair.device.backendPath).write([StoreEntry("resume-from", "4294967296")])
    let bus = try pair.addBackBus(BlkBackDriver { _ in MemoryStore(sectorCount: 64) })
    #expect(pair.scheduler.run { bus.report.contains { $0.contains("by another program") } })
    #expect(try pair.backendState == .connected)
  }

  /// Nor does it give the flush's place, and memory, to others.
  @Test func flushThatHangsIsWaitedForBeforeTheDiskIsServedAgain() throws {
    let store = HoldingStore(MemoryStore(sectorCount: 64))
    let driver = BlkBackDriver { _ in store }
    let pair = try BlkPair(frontend: BlkFrontDevice(), backend: driver)
    try pair.connect()
    pair.scheduler.remove(pair.backBus)
    #expect("\(pair.backBus.detach())".contains("the store does not complete a flush"))
    #expect(store.heldCount == 1)
    let bus = try pair.addBackBus(driver)
    #expect(try pair.scheduler.run { try pair.backendError?.contains("not completed 1 requests") == true })
    store.letGo()
    #expect(pair.scheduler.run { bus.isConnected && pair.frontBus.isConnected })
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
    // It is asked for once more.
    #expect(pair.complete(disk)[1]?.result == .succeeded)
  }
}

/// Has lost what it was given.
private final class UnflushableStore: BlockStore {
  let geometry = BlockGeometry(sectorCount: 64)

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      if requests[index].kind == .flush {
        completions.fail(requests[index], because: "the medium is gone")
      } else {
        completions.complete(requests[index])
      }
    }
  }
}
