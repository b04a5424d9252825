import BlkBack
import Synchronization
import TestSupport
import Testing
import XenLoopback

/// B6, and S9 and S10 with it: the frontend's pages that stay mapped.
struct BlkBackPersistentTests {
  private func pair(
    _ frontend: RawBlkFrontend, limit: Int = 1056, store: any BlockStore = ModelDisk(sectorCount: 1024)
  ) throws -> BlkPair {
    var options = BlkBackOptions()
    options.persistentPageCount = limit
    let pair = try BlkPair(options: options, frontend: frontend) { _ in store }
    try pair.connect()
    return pair
  }

  /// Reads one sector into each of the pages, one after the other.
  private func use(_ pages: [Int], _ frontend: RawBlkFrontend, _ pair: BlkPair) throws {
    for page in pages {
      frontend.put(frontend.direct(BlkIf.Operation.read, [(page, 0, 0)], id: UInt64(page)))
      #expect(try pair.statuses(frontend, 1) == [UInt64(page): BlkIf.Status.okay])
    }
  }

  /// Beside the ring's.
  private func mappedCount(_ pair: BlkPair) -> Int { pair.loopback.grantCounts.mappedPages - 1 }
  private func mapTotal(_ pair: BlkPair) -> Int { pair.loopback.grantCounts.mapTotal - 1 }

  @Test func pageIsMappedOnceAndNeverCopied() throws {
    let frontend = RawBlkFrontend(isPersistent: true)
    let pair = try pair(frontend)
    for _ in 0..<5 { try use(Array(0..<16), frontend, pair) }
    #expect(mappedCount(pair) == 16 && mapTotal(pair) == 16)
    #expect(pair.loopback.grantCounts.copyTotal == 0)
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.holdsNothing })
  }

  @Test(arguments: [true, false], [true, false])
  func bothEndsHaveToWantIt(frontends: Bool, backends: Bool) throws {
    let frontend = RawBlkFrontend(isPersistent: frontends)
    let pair = try BlkPair(
      options: BlkBackOptions(offersPersistentGrants: backends), frontend: frontend
    ) { _ in ModelDisk(sectorCount: 64) }
    try pair.connect()
    try use([3], frontend, pair)
    #expect(mappedCount(pair) == (frontends && backends ? 1 : 0))
    #expect(
      pair.backNegotiation.lines.first { $0.feature == "feature-persistent" }?.agreed
        == (frontends && backends ? "on" : "off"))
  }

  @Test func limitIsKeptAndWhatWasLongestUnusedGoesFirst() throws {
    let frontend = RawBlkFrontend(isPersistent: true)
    let pair = try pair(frontend, limit: 8)
    try use(Array(0..<8), frontend, pair)
    #expect(mappedCount(pair) == 8)
    try use([0], frontend, pair)
    try use([8], frontend, pair)
    #expect(mappedCount(pair) == 8 && mapTotal(pair) == 9)
    // Number one went; number zero had been used since.
    try use([0, 2, 3, 4, 5, 6, 7, 8], frontend, pair)
    #expect(mapTotal(pair) == 9)
    try use([1], frontend, pair)
    #expect(mappedCount(pair) == 8 && mapTotal(pair) == 10)
  }

  @Test(arguments: seeds(1...30, of: BlkBackPersistentTests.self))
  func limitIsKeptUnderAnyLoad(seed: Seed) throws {
    let limit = [1, 3, 8, 20, 40][seed.modulo(5)]
    let laneCount = 24
    let frontend = RawBlkFrontend(
      ringPageOrder: 1, isPersistent: true, dataPageCount: laneCount * RawWorkload.pagesPerLane)
    let disk = ModelDisk(sectorCount: UInt64(laneCount * RawWorkload.sectorsPerLane))
    var options = BlkBackOptions()
    (options.persistentPageCount, options.bufferPageCount) = (limit, 256 + seed.modulo(3) * 20)
    let store: any BlockStore = seed.modulo(2) == 0 ? disk : ReorderingStore(disk)
    let pair = try BlkPair(seed: seed, options: options, frontend: frontend) { _ in store }
    try pair.connect()
    let work = RawWorkload(frontend, laneCount: laneCount, seed: seed)
    var most = 0
    for _ in 0..<60 {
      work.put(work.random(0...12))
      for _ in 0..<work.random(0...3) { pair.scheduler.round() }
      try work.takeAnswers()
      // Two pages of the ring.
      let mapped = pair.loopback.grantCounts.mappedPages - 2
      try #require(mapped <= limit)
      most = max(most, mapped)
    }
    // Each payload has two pages.
    #expect(limit == 1 || most > 0)
    let isDone = try pair.scheduler.run {
      try work.takeAnswers()
      return work.outstandingCount == 0
    }
    #expect(isDone && work.agrees(with: disk))
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.holdsNothing })
  }

  /// What a request in flight uses stays, whoever else wants room: an unmapped page would fault under the store.
  @Test func pagesOfARequestInFlightAreNotUnmapped() throws {
    let frontend = RawBlkFrontend(isPersistent: true)
    let store = HoldingStore(ModelDisk(sectorCount: 1024))
    let pair = try pair(frontend, limit: 4, store: store)
    frontend.put(frontend.direct(BlkIf.Operation.read, [(0, 0, 7), (1, 0, 7), (2, 0, 7)], id: 1))
    frontend.push()
    #expect(pair.scheduler.run { store.heldCount == 1 })
    frontend.put(frontend.direct(BlkIf.Operation.read, [(3, 0, 7), (4, 0, 7)], id: 2))
    // Part of it is what the first one uses.
    frontend.put(frontend.direct(BlkIf.Operation.read, [(2, 0, 7), (5, 0, 7)], id: 3))
    frontend.push()
    #expect(pair.scheduler.run { store.heldCount == 3 })
    #expect(mappedCount(pair) == 4, "one page of the third found room, and the second is copied")
    store.letGo()
    #expect(try pair.statuses(frontend, 3) == [1: 0, 2: 0, 3: 0])
  }

  @Test func requestLargerThanTheLimitIsCopied() throws {
    let frontend = RawBlkFrontend(isPersistent: true)
    let disk = ModelDisk(sectorCount: 1024)
    let pair = try pair(frontend, limit: 3, store: disk)
    try use([12, 13], frontend, pair)
    for page in 0..<11 {
      frontend.bytes(page: page, sector: 0, count: 4096).copy(from: pattern(4096, seed: page + 1).span)
    }
    frontend.put(
      frontend.direct(BlkIf.Operation.write, sector: 8, (0..<11).map { (page: $0, first: 0, last: 7) }))
    #expect(try pair.statuses(frontend, 1) == [1: 0])
    #expect(disk.bytes(sector: 8, sectorCount: 88) == (0..<11).flatMap { pattern(4096, seed: $0 + 1) })
    #expect(pair.loopback.grantCounts.copyTotal == 11 && mappedCount(pair) <= 3)
  }

  /// Which changes between the two: as a page, it is mapped once.
  @Test func samePageTwiceInOneRequestIsOnePage() throws {
    let frontend = RawBlkFrontend(isPersistent: true)
    let disk = ModelDisk(sectorCount: 1024)
    let pair = try pair(frontend, store: disk)
    let written = pattern(4096, seed: 5)
    frontend.bytes(page: 4, sector: 0, count: 4096).copy(from: written.span)
    frontend.put(frontend.direct(BlkIf.Operation.write, sector: 0, [(4, 4, 7), (4, 0, 3), (4, 0, 7)]))
    #expect(try pair.statuses(frontend, 1) == [1: 0])
    #expect(mappedCount(pair) == 1)
    #expect(disk.bytes(sector: 0, sectorCount: 16) == Array(written[2048...] + written[..<2048] + written))
  }

  /// Note 8 of the header: the frontend lets all of them be mapped for writing. One that does not fails its own request, and
  /// is not mapped for reading.
  @Test(arguments: [BlkIf.Operation.read, BlkIf.Operation.write])
  func pageThatMayOnlyBeReadFailsItsRequestAlone(operation: UInt8) throws {
    let frontend = RawBlkFrontend(isPersistent: true, readOnlyPageCount: 1)
    let pair = try pair(frontend)
    for _ in 0..<3 {
      var bad = frontend.direct(operation, [(1, 0, 7), (2, 0, 7), (3, 0, 7)], id: 2)
      bad.segments[1].gref = frontend.readOnlyReferences[0].rawValue
      frontend.put(frontend.direct(operation, [(4, 0, 7)], id: 1))
      frontend.put(bad)
      frontend.put(frontend.direct(operation, [(5, 0, 7)], id: 3))
      #expect(try pair.statuses(frontend, 3) == [1: 0, 2: BlkIf.Status.error, 3: 0])
    }
    #expect(mappedCount(pair) == 2, "nothing of the request that failed stays mapped")
  }

  /// S9: a batch that is mapped fails whole, and so is one request's and no more.
  @Test(arguments: [0, 5, 10])
  func oneReferenceThatWasNotGrantedFailsItsRequestAlone(index: Int) throws {
    let frontend = RawBlkFrontend(isPersistent: true)
    let store = RecordingStore(sectorCount: 1024)
    let pair = try pair(frontend, store: store)
    var bad = frontend.direct(BlkIf.Operation.write, (0..<11).map { (page: $0, first: 0, last: 7) }, id: 2)
    bad.segments[index].gref = 4_000_000
    frontend.put(frontend.direct(BlkIf.Operation.write, [(12, 0, 7)], id: 1))
    frontend.put(bad)
    frontend.put(frontend.direct(BlkIf.Operation.write, sector: 8, [(13, 0, 7)], id: 3))
    #expect(try pair.statuses(frontend, 3) == [1: 0, 2: BlkIf.Status.error, 3: 0])
    #expect(store.record == ["write 0", "write 8"])
    #expect(mappedCount(pair) == 2)
    // It was not held against the pages that it was put with.
    try use(Array(0..<11), frontend, pair)
    #expect(mappedCount(pair) == 13)
  }

  /// Some at the beginning, each of which is one request's; or any of them.
  @Test(arguments: seeds(1...10, of: BlkBackPersistentTests.self), [true, false])
  func mapsThatFailNowAndThenFailRequestsAndNothingElse(seed: Seed, atTheBeginning: Bool) throws {
    let frontend = RawBlkFrontend(isPersistent: true)
    let pair = try BlkPair(seed: seed, options: BlkBackOptions(), frontend: frontend) { _ in
      ModelDisk(sectorCount: 1024)
    }
    try pair.connect()
    let faultCount = 1 + seed.modulo(4)
    pair.loopback.grantFaults.failedMap = atTheBeginning ? .next(faultCount) : .oneIn(3)
    var failureCount = 0
    for id in 0..<UInt64(60) {
      frontend.put(frontend.direct(BlkIf.Operation.read, [(Int(id) % 16, 0, 7), (Int(id * 7) % 16, 0, 7)], id: id))
      let status = try #require(try pair.statuses(frontend, 1)[id])
      if status != BlkIf.Status.okay { failureCount += 1 }
    }
    #expect(atTheBeginning ? failureCount == faultCount : failureCount < 30, "\(failureCount) failed")
    pair.loopback.grantFaults.failedMap = .never
    try use(Array(0..<16), frontend, pair)
    #expect(mappedCount(pair) == 16)
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.holdsNothing })
  }

  /// Whatever the platform's own trouble is (no mapping left, a limit of the kernel's), the guest's request is good.
  @Test func pagesThatThePlatformCannotMapAreCopied() throws {
    let rig = try Rig()
    let platform = MapLimitedPlatform(rig.driverDomain, limit: 5)
    let frontend = RawBlkFrontend(isPersistent: true)
    let host = OneQueue()
    let front = try Bus(on: rig.guest, log: .silent)
    let bus = try Bus(on: platform, queueHost: host, log: .silent)
    let device = try rig.toolstack.addVbd(to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: "test")
    let disk = ModelDisk(sectorCount: 1024)
    try bus.register(BlkBackDriver { _ in disk })
    try front.register(frontend, at: device.frontendPath)
    try #require(
      front.run(seconds: 300) {
        bus.poll()
        return frontend.isConnected
      })
    for id in 0..<UInt64(12) {
      frontend.put(frontend.direct(BlkIf.Operation.read, sector: id, [(Int(id), 0, 0)], id: id))
    }
    frontend.push()
    host.poll(at: Uptime(nanoseconds: 0))
    #expect(try frontend.responses().map(\.status) == Array(repeating: 0, count: 12))
    #expect(rig.loopback.grantCounts.mappedPages == 5 && rig.loopback.grantCounts.copyTotal == 8)
    bus.close()
    front.run(seconds: 300) { bus.poll() == .idle && bus.isEmpty }
  }

  @Test func pagesThatNobodyUsesForAMinuteAreUnmapped() throws {
    let disk = try HandPolledDisk(RawBlkFrontend(isPersistent: true), BlkBackOptions()) { _ in
      ModelDisk(sectorCount: 1024)
    }
    let second: UInt64 = 1_000_000_000
    for page in 0..<4 { try disk.read([page], at: second) }
    try disk.read([0], at: 50 * second)
    #expect(disk.mappedCount == 4)
    guard case .idleUntil(let instant) = disk.poll(at: 50 * second) else {
      Issue.record("it has something to look after")
      return
    }
    #expect(instant.nanoseconds <= 61 * second)
    for now in stride(from: 51, to: 61, by: 1) { disk.poll(at: UInt64(now) * second) }
    #expect(disk.mappedCount == 4)
    for now in stride(from: 61, to: 92, by: 1) { disk.poll(at: UInt64(now) * second) }
    #expect(disk.mappedCount == 1, "number zero was used later")
    for now in stride(from: 92, to: 130, by: 1) { disk.poll(at: UInt64(now) * second) }
    #expect(disk.mappedCount == 0)
    #expect(disk.poll(at: 200 * second) == .idle, "there is nothing left to look after")
    try disk.read([0], at: 201 * second)
    #expect(disk.mappedCount == 1)
  }

  /// However long ago it began.
  @Test func pagesOfARequestInFlightStayHoweverLongItTakes() throws {
    let store = HoldingStore(ModelDisk(sectorCount: 1024))
    let disk = try HandPolledDisk(RawBlkFrontend(isPersistent: true), BlkBackOptions()) { _ in store }
    let second: UInt64 = 1_000_000_000
    disk.frontend.put(disk.frontend.direct(BlkIf.Operation.read, [(0, 0, 7)], id: 1))
    disk.frontend.push()
    for now in 1..<200 { disk.poll(at: UInt64(now) * second) }
    #expect(store.heldCount == 1 && disk.mappedCount == 1)
    store.letGo()
    disk.poll(at: 200 * second)
    #expect(try disk.frontend.responses().map(\.status) == [0])
  }
}

/// A platform that maps so many pages and no more, for reasons of its own.
private final class MapLimitedPlatform: Platform, GrantTable {
  private let platform: any Platform
  private let left: Mutex<Int>

  init(_ platform: any Platform, limit: Int) {
    self.platform = platform
    left = Mutex(limit)
  }

  var domain: DomainID { platform.domain }
  var grants: any GrantTable { self }
  func openEventChannels() throws(EventChannelError) -> any EventChannels { try platform.openEventChannels() }
  func openXenstore() throws(XenstoreError) -> any Xenstore { try platform.openXenstore() }

  func share(pageCount: Int, with domain: DomainID, writable: Bool) throws(GrantError) -> GrantedPages {
    try platform.grants.share(pageCount: pageCount, with: domain, writable: writable)
  }

  func map(_ references: [GrantReference], of domain: DomainID, writable: Bool) throws(GrantError) -> SharedRegion {
    let isLeft = left.withLock { left in
      guard left >= references.count else { return false }
      left -= references.count
      return true
    }
    guard isLeft else { throw .system(call: "map", reason: "no more") }
    return try platform.grants.map(references, of: domain, writable: writable)
  }

  func copy(_ copies: inout MutableSpan<GrantCopy>) { platform.grants.copy(&copies) }
}
