import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// Reads at once, and leaves everything else to another store.
private final class AnsweringReads: BlockStore {
  private let memory = MemoryStore(sectorCount: 64)
  private let store: HoldingStore

  init(_ store: HoldingStore) { self.store = store }

  var geometry: BlockGeometry { memory.geometry }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      let one = requests.extracting(index..<index + 1)
      if requests[index].kind == .read {
        memory.submit(one, to: &completions)
      } else {
        store.submit(one, to: &completions)
      }
    }
  }
}

/// B17: a backend that goes away and comes back through the state machine is a pause.
struct BlkFrontRequeueTests {
  private func disk(_ change: (inout BlkFrontOptions) -> Void = { _ in }) -> BlkFrontDevice {
    var options = BlkFrontOptions()
    change(&options)
    return BlkFrontDevice(options)
  }

  /// How requests ended: each tag's results, in the order in which they came.
  private final class Ends {
    var list: [UInt64: [BlkFrontCompletion.Result]] = [:]
    var bytes: [UInt64: [UInt8]] = [:]

    func take(_ completion: BlkFrontCompletion) {
      list[completion.tag, default: []].append(completion.result)
      bytes[completion.tag] = completion.copied()
    }
  }

  private func finish(_ pair: BlkPair, _ disk: BlkFrontDevice, _ ends: Ends) -> Bool {
    disk.push()
    return pair.scheduler.run {
      disk.poll { ends.take($0) }
      return disk.inFlightCount == 0
    }
  }

  /// Ends the backend's part, in one of the ways there are, and starts another's.
  private enum Way: CaseIterable { case killed, gone, leaving }

  private func replace(
    _ bus: Bus, _ process: LoopbackDomain, _ pair: BlkPair, _ way: Way, _ options: BlkBackOptions = BlkBackOptions(),
    store: any BlockStore
  ) throws -> (Bus, LoopbackDomain) {
    switch way {
    case .killed:
      process.kill()
      pair.scheduler.remove(bus)
    // As when its process ends without a word, but for its mappings.
    case .gone: pair.scheduler.remove(bus)
    case .leaving:
      bus.close()
      for _ in 0..<3 { pair.scheduler.round() }
      pair.scheduler.remove(bus)
    }
    let next = pair.rig.loopback.addProcess(in: pair.driverDomain.domain)
    let nextBus = try Bus(on: next, queueHost: pair.scheduler.host(of: next), log: .silent)
    try nextBus.register(BlkBackDriver(options: options) { _ in store })
    pair.scheduler.add(nextBus, of: next, name: "next backend's bus") { _ in nextBus.poll() }
    return (nextBus, next)
  }

  /// Whatever is acknowledged stays; every request completes once, with the right bytes.
  @Test(arguments: seeds(1...20, of: BlkFrontRequeueTests.self), [1, 3])
  func backendThatIsReplacedAgainAndAgainIsAPause(seed: Seed, queueCount: Int) throws {
    var random = SeededGenerator(seed)
    let disk = disk {
      $0.maxQueueCount = queueCount
      $0.poolPageCount = 110
    }
    // The medium outlives its servers; what they have not begun is lost with them.
    let memory = MemoryStore(sectorCount: 2048)
    let pair = try BlkPair(seed: seed, frontend: disk, store: ReorderingStore(memory))
    try pair.connect()
    var (bus, process) = (pair.backBus, pair.driverDomain)
    let ends = Ends()
    var tag: UInt64 = 0
    var model: [Int: [UInt8]] = [:]
    for _ in 0..<5 {
      var expected: [UInt64: [UInt8]] = [:]
      for area in (0..<8).shuffled(using: &random) {
        tag += 1
        let count = Int.random(in: 1...min(96, disk.maxByteCount / 512), using: &random) * 512
        let bytes = pattern(count, seed: Int(tag))
        if Bool.random(using: &random) {
          guard
            disk.takes({ (disk) throws(BlkFrontError) in
              try disk.write(sector: UInt64(area * 256), bytes.span, tag: tag)
            })
          else { continue }
          var whole = model[area] ?? [UInt8](repeating: 0, count: 49_152)
          whole.replaceSubrange(..<count, with: bytes)
          model[area] = whole
          expected[tag] = []
        } else {
          guard
            disk.takes({ (disk) throws(BlkFrontError) in
              try disk.read(sector: UInt64(area * 256), byteCount: count, tag: tag)
            })
          else { continue }
          expected[tag] = Array((model[area] ?? [UInt8](repeating: 0, count: 49_152))[..<count])
        }
      }
      disk.push()
      for _ in 0..<Int.random(in: 0..<6, using: &random) { pair.scheduler.round() }
      var options = BlkBackOptions()
      options.maxIndirectSegmentCount = [0, 16, 256].randomElement(using: &random)!
      (bus, process) = try replace(
        bus, process, pair, Way.allCases.randomElement(using: &random)!, options, store: ReorderingStore(memory))
      #expect(
        finish(pair, disk, ends), "\(disk.inFlightCount) requests never end: \(pair.frontBus.report + bus.report)")
      for (tag, bytes) in expected {
        try #require(ends.list[tag] == [.succeeded])
        try #require(ends.bytes[tag] == bytes)
      }
    }
    try pair.toolstack.unplug(pair.device)
    // A process that is only gone from here may still have mapped what it had.
    #expect(pair.scheduler.run { pair.loopback.grantCounts.sharedPages == 0 })
  }

  @Test(arguments: seeds(1...10, of: BlkFrontRequeueTests.self), [1, 2])
  func orderAndBarriersKeepTheirPlaceAndComeBeforeAnythingNew(seed: Seed, queueCount: Int) throws {
    let disk = disk { $0.maxQueueCount = queueCount }
    let store = HoldingStore(MemoryStore(sectorCount: 64))
    let pair = try BlkPair(seed: seed, frontend: disk, backend: BlkBackDriver { _ in AnsweringReads(store) })
    try pair.connect()
    // So that the numbers of requests are in another order than they.
    for tag in 100..<109 as Range<UInt64> { try disk.read(sector: 0, byteCount: 512, tag: tag) }
    #expect(pair.complete(disk).count == 9)
    for tag in 1...9 as ClosedRange<UInt64> {
      let bytes = pattern(512, seed: Int(tag))
      if tag % 3 == 0 {
        // Only when the other queue is idle can it be put at all.
        try disk.writeBarrier(sector: tag, bytes.span, tag: tag)
      } else {
        try disk.write(sector: tag, bytes.span, tag: tag)
      }
    }
    disk.push()
    for _ in 0..<6 { pair.scheduler.round() }
    let record = RecordingStore(sectorCount: 64)
    let (bus, _) = try replace(pair.backBus, pair.driverDomain, pair, .killed, store: record)
    #expect(pair.scheduler.run { bus.isConnected && disk.isConnected })
    try? disk.write(sector: 20, pattern(512, seed: 20).span, tag: 20)
    let ends = Ends()
    #expect(finish(pair, disk, ends))
    #expect(ends.list.filter { $0.key < 20 }.count == 9 && ends.list.values.allSatisfy { $0 == [.succeeded] })
    let lines = record.record
    #expect(lines.count { $0 != "write 20" } == 9)
    for barrier in [3, 6, 9] {
      let place = lines.firstIndex(of: "writeBarrier \(barrier)")!
      for sector in 1..<barrier { #expect(lines[..<place].contains { $0.hasSuffix(" \(sector)") }) }
      for sector in (barrier + 1)..<10 where barrier < 9 {
        #expect(lines[place...].contains { $0.hasSuffix(" \(sector)") })
      }
    }
    if let new = lines.firstIndex(of: "write 20") { #expect(new >= 9) }
  }

  @Test func requestThatTheNewBackendTakesOnlyInPartsIsSplitAndCompletesOnce() throws {
    let disk = disk { $0.maxIndirectSegmentCount = 64 }
    let pair = try BlkPair(frontend: disk, store: HoldingStore(MemoryStore(sectorCount: 4096)))
    try pair.connect()
    let written = pattern(64 * 4096, seed: 3)
    try disk.write(sector: 0, written.span, tag: 1)
    try disk.read(sector: 1024, byteCount: 40 * 4096, tag: 2)
    try disk.read(sector: 1024, byteCount: 4096, tag: 3)
    disk.push()
    for _ in 0..<6 { pair.scheduler.round() }
    let memory = MemoryStore(sectorCount: 4096)
    let record = RecordingStore(memory)
    _ = try replace(
      pair.backBus, pair.driverDomain, pair, .killed, BlkBackOptions(maxIndirectSegmentCount: 0), store: record)
    let ends = Ends()
    #expect(finish(pair, disk, ends))
    #expect(ends.list == [1: [.succeeded], 2: [.succeeded], 3: [.succeeded]])
    #expect(ends.bytes[2]?.count == 40 * 4096 && ends.bytes[3]?.count == 4096)
    #expect(
      record.record == (0..<6).map { "write \($0 * 88)" } + (0..<4).map { "read \(1024 + $0 * 88)" } + ["read 1024"])
    #expect(disk.maxByteCount == BlkFrontDevice.maxDirectByteCount)
    for part in 0..<4 {
      try disk.read(sector: UInt64(part * 8), byteCount: 4096, tag: UInt64(10 + part))
    }
    #expect(finish(pair, disk, ends))
    for part in 0..<4 { #expect(ends.bytes[UInt64(10 + part)] == Array(written[part * 4096..<(part + 1) * 4096])) }
  }

  /// What comes back is not the disk that went away, or serves less.
  @Test func whatTheNewDiskCannotDoFailsAndTheRestIsDone() throws {
    let geometry = BlockGeometry(sectorCount: 64, discard: DiscardLimits(granularity: 512, isSecure: true))
    let put = { (disk: BlkFrontDevice) in
      try disk.write(sector: 40, pattern(512, seed: 1).span, tag: 1)
      try disk.write(sector: 4, pattern(512, seed: 2).span, tag: 2)
      try disk.read(sector: 31, byteCount: 1024, tag: 3)
      try disk.discard(sector: 0, sectorCount: 8, tag: 4)
      try disk.discard(sector: 0, sectorCount: 8, isSecure: true, tag: 5)
      try disk.flush(tag: 6)
      try disk.writeBarrier(sector: 5, pattern(512, seed: 3).span, tag: 7)
      try disk.read(sector: 0, byteCount: 4096, tag: 8)
    }
    typealias Result = BlkFrontCompletion.Result
    let rows: [(BlockGeometry, [StoreEntry], [UInt64: Result])] = [
      (
        BlockGeometry(sectorCount: 32), [StoreEntry("feature-flush-cache", true), StoreEntry("feature-barrier", true)],
        [1: .failed, 3: .failed, 4: .notSupported, 5: .notSupported]
      ),
      (
        BlockGeometry(sectorCount: 64, isReadOnly: true, discard: DiscardLimits(granularity: 512)),
        [StoreEntry("feature-flush-cache", false), StoreEntry("feature-barrier", false)],
        [1: .failed, 2: .failed, 4: .failed, 5: .failed, 6: .notSupported, 7: .failed]
      ),
      (
        BlockGeometry(sectorCount: 64, discard: DiscardLimits(granularity: 512)),
        [StoreEntry("feature-flush-cache", false), StoreEntry("feature-barrier", false)],
        [5: .notSupported, 6: .notSupported, 7: .notSupported]
      ),
      (
        BlockGeometry(sectorCount: 64, sectorByteCount: 4096),
        [StoreEntry("feature-flush-cache", true), StoreEntry("feature-barrier", true)],
        [1: .failed, 2: .failed, 3: .failed, 4: .notSupported, 5: .notSupported, 7: .failed]
      ),
    ]
    for (next, keys, failures) in rows {
      let disk = disk()
      let pair = try BlkPair(
        frontend: disk, backend: BlkBackDriver { _ in HoldingStore(MemoryStore(geometry: geometry)) })
      try pair.connect()
      try put(disk)
      disk.push()
      for _ in 0..<6 { pair.scheduler.round() }
      pair.driverDomain.kill()
      pair.scheduler.remove(pair.backBus)
      let backend = ManyRingsBackend()
      (backend.geometry, backend.keys) = (next, [StoreEntry("feature-max-indirect-segments", 0)] + keys)
      let bus = try pair.addBackBus(backend)
      #expect(pair.scheduler.run { bus.isConnected && disk.isConnected })
      let ends = Ends()
      let done = try pair.scheduler.run {
        for request in try backend.requests()[0] {
          backend.answer(BlkIfResponse(id: request.id, operation: request.answeredOperation, status: 0))
        }
        disk.poll { ends.take($0) }
        return disk.inFlightCount == 0
      }
      #expect(done)
      for tag in 1...8 as ClosedRange<UInt64> {
        #expect(ends.list[tag] == [failures[tag] ?? .succeeded], "\(tag) of \(next)")
      }
    }
  }

  @Test func whatIsPutAgainGoesThroughASmallerPoolAndHoldsNewRequestsBack() throws {
    let disk = disk()
    let pair = try BlkPair(frontend: disk, store: HoldingStore(MemoryStore(sectorCount: 4096)))
    try pair.connect()
    for tag in 0..<32 as Range<UInt64> {
      try disk.write(sector: tag * 88, pattern(45056, seed: Int(tag)).span, tag: tag)
    }
    disk.push()
    for _ in 0..<4 { pair.scheduler.round() }
    pair.guest.sharedPageLimit = 20
    let store = HoldingStore(MemoryStore(sectorCount: 4096))
    let (bus, process) = try replace(pair.backBus, pair.driverDomain, pair, .killed, store: store)
    #expect(pair.scheduler.run { store.heldCount > 0 }, "\(bus.report)")
    // Even what needs no pages.
    #expect(throws: BlkFrontError.busy) { try disk.flush(tag: 99) }
    // And once more, in the middle of it.
    let memory = MemoryStore(sectorCount: 4096)
    _ = try replace(bus, process, pair, .killed, store: memory)
    let ends = Ends()
    #expect(finish(pair, disk, ends))
    #expect(ends.list.count == 32 && ends.list.values.allSatisfy { $0 == [.succeeded] })
    for tag in 0..<32 as Range<UInt64> {
      try disk.read(sector: tag * 88, byteCount: 45056, tag: 100 + tag)
      #expect(finish(pair, disk, ends))
      #expect(ends.bytes[100 + tag] == pattern(45056, seed: Int(tag)))
    }
  }

  /// A backend that broke the protocol is taken leave of, and what it had is put again when it offers anew.
  @Test func brokenRingIsAPauseToo() throws {
    let disk = disk()
    let backend = RawBlkBackend()
    let pair = try BlkPair(frontend: disk, backend: backend)
    try pair.connect()
    try disk.write(sector: 3, pattern(512, seed: 3).span, tag: 1)
    disk.push()
    _ = try backend.requests()
    backend.answer(BlkIfResponse(id: 9, operation: BlkIf.Operation.write, status: 0))
    #expect(
      try pair.scheduler.run {
        disk.poll { _ in Issue.record("nothing has completed") }
        return try !disk.isConnected && pair.frontendError != nil
      })
    let memory = MemoryStore(sectorCount: 64)
    _ = try replace(pair.backBus, pair.driverDomain, pair, .killed, store: memory)
    let ends = Ends()
    #expect(finish(pair, disk, ends))
    #expect(ends.list == [1: [.succeeded]])
    try disk.read(sector: 3, byteCount: 512, tag: 2)
    #expect(finish(pair, disk, ends))
    #expect(ends.bytes[2] == pattern(512, seed: 3))
  }

  @Test func whoDoesNotRequeueHearsOfEachRequestOnce() throws {
    let disk = disk { $0.requeuesRequests = false }
    let pair = try BlkPair(frontend: disk, store: HoldingStore(MemoryStore(sectorCount: 64)))
    try pair.connect()
    for tag in 1...3 as ClosedRange<UInt64> { try disk.read(sector: 0, byteCount: 512, tag: tag) }
    disk.push()
    for _ in 0..<4 { pair.scheduler.round() }
    _ = try replace(pair.backBus, pair.driverDomain, pair, .killed, store: MemoryStore(sectorCount: 64))
    let ends = Ends()
    #expect(finish(pair, disk, ends))
    #expect(ends.list == [1: [.disconnected], 2: [.disconnected], 3: [.disconnected]])
  }

  /// Another disk may be there under the same name: nothing of the one is written to the other.
  @Test func deviceThatIsMadeAnewGetsNothingOfTheOldOne() throws {
    let disk = disk()
    let pair = try BlkPair(frontend: disk, store: HoldingStore(MemoryStore(sectorCount: 64)))
    try pair.connect()
    try disk.write(sector: 0, pattern(512, seed: 1).span, tag: 1)
    disk.push()
    for _ in 0..<4 { pair.scheduler.round() }
    pair.scheduler.remove(pair.backBus)
    pair.driverDomain.kill()
    try pair.toolstack.remove(pair.device)
    _ = try pair.toolstack.addVbd(to: pair.guest.domain, servedBy: pair.driverDomain.domain, params: "another")
    let store = RecordingStore(sectorCount: 64)
    let bus = try pair.addBackBus(BlkBackDriver { _ in store })
    #expect(pair.scheduler.run { bus.isConnected && disk.isConnected })
    let ends = Ends()
    #expect(finish(pair, disk, ends))
    #expect(ends.list == [1: [.disconnected]] && store.record.isEmpty)
  }

  @Test func busThatTakesLeaveEndsWhatWaitsForABackend() throws {
    let disk = disk()
    let pair = try BlkPair(frontend: disk, store: HoldingStore(MemoryStore(sectorCount: 64)))
    try pair.connect()
    try disk.write(sector: 0, pattern(512, seed: 1).span, tag: 1)
    disk.push()
    for _ in 0..<4 { pair.scheduler.round() }
    pair.backBus.close()
    let ends = Ends()
    #expect(try pair.scheduler.run { try !disk.isConnected && pair.backendState == .closed })
    disk.poll { ends.take($0) }
    #expect(disk.inFlightCount == 1 && ends.list.isEmpty)
    pair.frontBus.close()
    _ = pair.scheduler.run(turns: 100) { false }
    disk.poll { ends.take($0) }
    #expect(ends.list == [1: [.disconnected]] && disk.inFlightCount == 0)
  }
}
