import BlkBack
import TestSupport
import Testing
import XenLoopback

/// B7 and B8: rings of several pages, and several of them.
struct BlkBackRingsTests {
  private func pair(
    _ frontend: RawBlkFrontend, store: any BlockStore = MemoryStore(sectorCount: 1024), maxRingPageOrder: Int = 4,
    maxQueueCount: Int = 64
  ) throws -> BlkPair {
    var options = BlkBackOptions()
    (options.maxRingPageOrder, options.maxQueueCount) = (maxRingPageOrder, maxQueueCount)
    let pair = try BlkPair(options: options, frontend: frontend) { _ in store }
    pair.guest.sharedPageLimit = 4096
    return pair
  }

  /// Runs until the backend has closed the device, and gives its message.
  private func refusal(_ pair: BlkPair) throws -> String {
    let isRefused = try pair.scheduler.run { try pair.backendError != nil }
    try #require(isRefused, "the backend did not object: \(pair.backBus.report)")
    #expect(try pair.scheduler.run { try pair.backendState == .closed }, "\(pair.backBus.report)")
    #expect(pair.loopback.grantCounts.mappedPages == 0)
    return try #require(try pair.backendError)
  }

  /// All slots are used, and used again, also across the pages' borders.
  @Test(arguments: [nil, 0, 1, 2, 3, 4] as [Int?], BlkProtocol.allCases)
  func everySlotOfARingIsUsed(order: Int?, layout: BlkProtocol) throws {
    let frontend = RawBlkFrontend(layout: layout, ringPageOrder: order)
    let store = HoldingStore(MemoryStore(sectorCount: 1024))
    let pair = try pair(frontend, store: store)
    try pair.connect()
    let count = frontend.rings[0].entryCount
    // The narrow slot's 108 bytes give no power of two more.
    #expect(count == 32 << (order ?? 0))
    #expect(pair.loopback.grantCounts.mappedPages == 1 << (order ?? 0))
    for id in 0..<UInt64(count) {
      frontend.put(frontend.direct(BlkIf.Operation.read, sector: id, [(0, 0, 0)], id: id))
    }
    frontend.push()
    #expect(pair.scheduler.run { store.heldCount == count })
    store.letGo()
    #expect(try pair.statuses(frontend, count).values.allSatisfy { $0 == 0 })
    for round in 0..<UInt64(3) {
      for id in 0..<UInt64(count - 1) {
        frontend.put(
          frontend.direct(BlkIf.Operation.read, sector: id, [(Int(id % 16), 0, 0)], id: round << 32 | id))
      }
      #expect(try pair.statuses(frontend, count - 1).values.allSatisfy { $0 == 0 })
    }
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.holdsNothing })
  }

  @Test(arguments: [1, 2, 4, 8, 16])
  func countOfPagesIsUnderstoodUnderItsOldName(count: Int) throws {
    let order = count.trailingZeroBitCount
    let frontend = RawBlkFrontend(ringPageOrder: order)
    frontend.withheldKeys = ["ring-page-order"]
    frontend.keys = [StoreEntry("num-ring-pages", count)]
    let pair = try pair(frontend)
    try pair.connect()
    #expect(pair.loopback.grantCounts.mappedPages == count)
    frontend.put(frontend.direct(BlkIf.Operation.read, [(0, 0, 0)]))
    #expect(try pair.statuses(frontend, 1) == [1: 0])
  }

  /// A ring of one page may be named in either way.
  @Test func oneRingPageMayHaveANumber() throws {
    let frontend = RawBlkFrontend(ringPageOrder: 0)
    let pair = try pair(frontend)
    frontend.renamesRingReference = true
    try pair.connect()
    frontend.put(frontend.direct(BlkIf.Operation.read, [(0, 0, 0)]))
    #expect(try pair.statuses(frontend, 1) == [1: 0])
  }

  @Test(arguments: ["5", "-1", "x", "", "4294967296", "99999999999999999999"])
  func orderThatWasNotOfferedIsRefused(order: String) throws {
    let frontend = RawBlkFrontend(ringPageOrder: 1)
    frontend.keys = [StoreEntry("ring-page-order", order)]
    let message = try refusal(try pair(frontend))
    #expect(message.contains("the key /local/domain/1/device/vbd/51712/ring-page-order holds \"\(order)\""))
  }

  @Test func orderWithinTheHeaderAndBeyondTheOfferIsRefused() throws {
    let message = try refusal(try pair(RawBlkFrontend(ringPageOrder: 3), maxRingPageOrder: 2))
    #expect(message.contains("ring-page-order holds \"3\" where a number from 0 to 2 is expected"))
  }

  @Test(arguments: ["0", "3", "32", "-2", "x"])
  func countOfPagesThatWasNotOfferedIsRefused(count: String) throws {
    let frontend = RawBlkFrontend(ringPageOrder: 1)
    frontend.withheldKeys = ["ring-page-order"]
    frontend.keys = [StoreEntry("num-ring-pages", count)]
    let message = try refusal(try pair(frontend))
    #expect(message.contains("/51712/num-ring-pages holds \"\(count)\""))
  }

  @Test(arguments: ["ring-ref0", "ring-ref1", "ring-ref3"])
  func missingReferenceOfAPageIsRefused(key: String) throws {
    let frontend = RawBlkFrontend(ringPageOrder: 2)
    frontend.withheldKeys = [key]
    #expect(try refusal(try pair(frontend)) == "22 the key /local/domain/1/device/vbd/51712/\(key) is missing")
  }

  @Test func onePageThatWasNotGrantedIsRefused() throws {
    let frontend = RawBlkFrontend(ringPageOrder: 2)
    frontend.keys = [StoreEntry("ring-ref2", 4_000_000)]
    #expect(try refusal(try pair(frontend)).contains("cannot map grant reference 4000000 of domain 1"))
  }

  // MARK: Queues

  @Test(arguments: [1, 2, 3, 16, 64])
  func everyQueueServesTheDisk(count: Int) throws {
    let frontend = RawBlkFrontend(ringPageOrder: 1, queueCount: count, dataPageCount: 64)
    let disk = ModelDisk(sectorCount: 1024)
    let pair = try pair(frontend, store: disk)
    try pair.connect()
    #expect(pair.loopback.grantCounts.mappedPages == 2 * count)
    for queue in 0..<count {
      frontend.bytes(page: queue, sector: 0, count: 4096).copy(from: pattern(4096, seed: queue + 1).span)
      frontend.put(
        frontend.direct(BlkIf.Operation.write, sector: UInt64(queue) * 8, [(queue, 0, 7)], id: UInt64(queue)),
        queue: queue)
    }
    #expect(try pair.statuses(frontend, count).values.allSatisfy { $0 == 0 })
    for queue in 0..<count {
      #expect(disk.bytes(sector: UInt64(queue) * 8, sectorCount: 8) == pattern(4096, seed: queue + 1))
    }
    #expect(pair.backNegotiation.lines.first { $0.feature == "queues" }?.agreed == "\(count)")
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.holdsNothing })
    #expect(pair.closed.list.map(\.writeRequests) == [UInt64(count)], "one disk's, whatever its queues")
  }

  @Test(arguments: ["0", "65", "-1", "x", "", "4294967297"])
  func countOfQueuesThatWasNotOfferedIsRefused(count: String) throws {
    let frontend = RawBlkFrontend(queueCount: 2)
    frontend.keys = [StoreEntry("multi-queue-num-queues", count)]
    #expect(try refusal(try pair(frontend)).contains("/51712/multi-queue-num-queues holds \"\(count)\""))
  }

  @Test(arguments: ["queue-0/ring-ref", "queue-1/event-channel", "queue-2/ring-ref"])
  func missingKeyOfAQueueIsRefusedAndNothingStaysMapped(key: String) throws {
    let frontend = RawBlkFrontend(queueCount: 3)
    frontend.withheldKeys = [key]
    let pair = try pair(frontend)
    #expect(try refusal(pair) == "22 the key /local/domain/1/device/vbd/51712/\(key) is missing")
  }

  @Test func lastQueueThatCannotBeMappedTakesTheOthersAlong() throws {
    let frontend = RawBlkFrontend(queueCount: 3)
    frontend.keys = [StoreEntry("queue-2/event-channel", 4_000_000)]
    #expect(try refusal(try pair(frontend)).contains("cannot bind to event channel port 4000000"))
  }

  /// Whichever it is.
  @Test(arguments: [0, 1, 2])
  func oneBrokenRingClosesTheDeviceWithAllItsQueues(queue: Int) throws {
    let frontend = RawBlkFrontend(queueCount: 3, isPersistent: true)
    let pair = try pair(frontend)
    try pair.connect()
    for number in 0..<3 {
      frontend.put(frontend.direct(BlkIf.Operation.read, [(number, 0, 7)], id: UInt64(number)), queue: number)
    }
    #expect(try pair.statuses(frontend, 3).values.allSatisfy { $0 == 0 })
    #expect(pair.loopback.grantCounts.mappedPages == 6)
    frontend.scribble(1000, at: 0, queue: queue)
    #expect(try refusal(pair).contains("the front end moved its request producer to 1000"))
    #expect(pair.scheduler.run { pair.holdsNothing })
  }

  /// A round of all of them costs each no more than its budget: a full ring keeps no other from its turn.
  @Test func budgetIsUsedUpAndGivenAgain() throws {
    let frontend = RawBlkFrontend(ringPageOrder: 4)
    let pair = try pair(frontend)
    try pair.connect()
    // The scheduler's budget is four.
    for id in 0..<UInt64(512) { frontend.put(frontend.direct(BlkIf.Operation.read, [(0, 0, 0)], id: id)) }
    frontend.push()
    pair.scheduler.round()
    pair.scheduler.round()
    #expect(try frontend.responses().count == 8)
    #expect(try pair.statuses(frontend, 504).values.allSatisfy { $0 == 0 })
  }

  /// Events come late, twice, merged, and when nobody has raised one.
  @Test(arguments: seeds(1...20, of: BlkBackRingsTests.self))
  func eventsMayMergeAndComeForNothing(seed: Seed) throws {
    let frontend = RawBlkFrontend(ringPageOrder: 1, queueCount: 3, isPersistent: true, dataPageCount: 72)
    let disk = ModelDisk(sectorCount: 24 * 16)
    let pair = try BlkPair(seed: seed, options: BlkBackOptions(), frontend: frontend) { _ in disk }
    try pair.connect()
    pair.loopback.eventFaults.delayed = .oneIn(3)
    pair.loopback.eventFaults.duplicated = .oneIn(4)
    pair.loopback.eventFaults.spurious = .oneIn(2)
    let work = RawWorkload(frontend, laneCount: 24, seed: seed)
    for _ in 0..<60 {
      work.put(work.random(0...12))
      for _ in 0..<work.random(0...3) { pair.scheduler.round() }
      try work.takeAnswers()
    }
    let isDone = try pair.scheduler.run {
      try work.takeAnswers()
      return work.outstandingCount == 0
    }
    #expect(isDone && work.agrees(with: disk))
  }
}
