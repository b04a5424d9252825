import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// B7, B8: a frontend's rings of several pages, and several of them.
struct BlkFrontRingTests {
  private static let ringKeys = [
    "ring-ref", "event-channel", "ring-page-order", "num-ring-pages", "queue-", "multi-queue",
  ]

  /// The names of the keys that say where rings are.
  private func ringKeys(_ pair: BlkPair, _ directory: String = "") throws -> Set<String> {
    let names = try pair.rig.directory(pair.device.frontendPath + directory).children()
    return Set(names.filter { name in Self.ringKeys.contains { name.hasPrefix($0) } })
  }

  private func disk(
    queues: Int = 1, order: Int = 0, pool: Int = 352, _ layout: BlkProtocol = .native
  ) -> BlkFrontDevice {
    var options = BlkFrontOptions(layout: layout, poolPageCount: pool)
    (options.maxQueueCount, options.maxRingPageOrder) = (queues, order)
    return BlkFrontDevice(options)
  }

  private func line(_ disk: BlkFrontDevice, _ feature: String) -> [String]? {
    disk.negotiation.lines.first { $0.feature == feature }.map { [$0.frontend, $0.backend, $0.agreed, $0.reason] }
  }

  private func pair(_ disk: BlkFrontDevice, seed: Seed = 1, _ change: (inout BlkBackOptions) -> Void) throws -> BlkPair
  {
    var options = BlkBackOptions()
    change(&options)
    let store = MemoryStore(sectorCount: 4096)
    return try BlkPair(seed: seed, frontend: disk, backend: BlkBackDriver(options: options) { _ in store })
  }

  @Test(arguments: BlkProtocol.allCases, [0, 1, 2, 3, 4])
  func ringOfSeveralPagesHasAsManySlotsInFlight(layout: BlkProtocol, order: Int) throws {
    let disk = disk(order: order, pool: 600, layout)
    let pair = try pair(disk) { _ in }
    try pair.connect()
    let slotCount = 32 << order
    for tag in 0..<UInt64(slotCount) { try disk.write(sector: tag, pattern(512, seed: Int(tag)).span, tag: tag) }
    #expect(throws: BlkFrontError.busy) { try disk.read(sector: 0, byteCount: 512, tag: 9999) }
    #expect(pair.complete(disk).values.count { $0.result == .succeeded } == slotCount)
    for tag in 0..<UInt64(slotCount) { try disk.read(sector: tag, byteCount: 512, tag: tag) }
    for (tag, read) in pair.complete(disk) { #expect(read.bytes == pattern(512, seed: Int(tag))) }
    let references = order == 0 ? ["ring-ref"] : (0..<1 << order).map { "ring-ref\($0)" }
    let sizes = order == 0 ? [] : ["ring-page-order", "num-ring-pages"]
    #expect(try ringKeys(pair) == Set(references + sizes + ["event-channel"]))
    #expect(
      line(disk, "ring pages") == [
        "\(1 << order)", "16", "\(1 << order)", order == 4 ? "" : "the frontend asks for no more",
      ])
  }

  @Test func oldSpellingOfTheOfferIsUnderstood() throws {
    let disk = disk(order: 4)
    let backend = ManyRingsBackend()
    backend.offered = [StoreEntry("max-ring-pages", 7)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    #expect(line(disk, "ring pages") == ["16", "4", "4", "the backend offers no more"])
    #expect(try pair.rig.directory(pair.device.frontendPath).string("num-ring-pages") == "4")
  }

  @Test(arguments: [
    ("max-ring-page-order", "99", 16), ("max-ring-page-order", "1099511627776", 16),
    ("max-ring-pages", "0", 1), ("max-ring-pages", "18446744073709551615", 16),
    ("multi-queue-max-queues", "0", 1), ("multi-queue-max-queues", "18446744073709551615", 1),
  ])
  func offerOfMoreThanAnybodyUsesIsUsedAsFarAsWeDo(key: String, value: String, pageCount: Int) throws {
    let disk = disk(queues: 2, order: 4)
    let backend = ManyRingsBackend()
    backend.offered = [StoreEntry(key, value)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    #expect(line(disk, "ring pages")?[2] == "\(pageCount)")
    #expect(line(disk, "queues")?[2] == (value.count > 10 && key.hasPrefix("multi") ? "2" : "1"))
  }

  @Test(arguments: ["max-ring-page-order", "max-ring-pages", "multi-queue-max-queues"], ["-1", "", "two", "+1"])
  func offerThatIsNoNumberClosesTheDeviceAndSharesNothing(key: String, value: String) throws {
    let disk = disk(queues: 2, order: 4)
    let backend = ManyRingsBackend()
    backend.offered = [StoreEntry(key, value)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(try pair.scheduler.run { try pair.frontendError != nil })
    #expect(
      try pair.frontendError
        == "22 the key \(pair.device.backendPath)/\(key) holds \"\(value)\" where a number from 0 to 18446744073709551615 is expected"
    )
    #expect(!disk.isConnected && pair.loopback.grantCounts.sharedPages == 0)
  }

  @Test(arguments: seeds(1...10, of: BlkFrontRingTests.self), [2, 3, 4])
  func severalQueuesCarryARandomWorkload(seed: Seed, queueCount: Int) throws {
    let disk = disk(queues: queueCount, order: seed.modulo(2), pool: 40)
    let pair = try pair(disk, seed: seed) { $0.maxQueueCount = 4 }
    try pair.connect()
    #expect(pair.loopback.openPortCount == 2 * queueCount)
    var random = SeededGenerator(seed)
    var model: [UInt64: [UInt8]] = [:]
    var expected: [UInt64: [UInt8]] = [:]
    var tag: UInt64 = 0
    for _ in 0..<6 {
      for sector in (0..<64 as Range<UInt64>).shuffled(using: &random) {
        tag += 1
        let bytes = pattern(512, seed: Int(tag))
        if Bool.random(using: &random) {
          guard disk.takes({ (disk) throws(BlkFrontError) in try disk.write(sector: sector, bytes.span, tag: tag) })
          else { continue }
          model[sector] = bytes
        } else {
          guard
            disk.takes({ (disk) throws(BlkFrontError) in try disk.read(sector: sector, byteCount: 512, tag: tag) })
          else { continue }
          expected[tag] = model[sector] ?? [UInt8](repeating: 0, count: 512)
        }
        if Int.random(in: 0..<4, using: &random) == 0 { disk.push() }
      }
      for (tag, completed) in pair.complete(disk) {
        #expect(completed.result == .succeeded)
        if let bytes = expected.removeValue(forKey: tag) { #expect(completed.bytes == bytes) }
      }
    }
    #expect(expected.isEmpty)
    #expect(
      try ringKeys(pair)
        == Set(
          ["multi-queue-num-queues"] + (0..<queueCount).map { "queue-\($0)" }
            + (seed.modulo(2) == 1 ? ["ring-page-order", "num-ring-pages"] : [])))
    #expect(
      try ringKeys(pair, "/queue-1")
        == Set(["event-channel"] + (seed.modulo(2) == 1 ? ["ring-ref0", "ring-ref1"] : ["ring-ref"])))
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.holdsNothing })
  }

  @Test func requestsGoToEveryQueueAndNotMoreThanTheRingsHave() throws {
    let disk = disk(queues: 3, pool: 100)
    let backend = ManyRingsBackend()
    backend.offered = [StoreEntry("multi-queue-max-queues", 3)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    for batch in 0..<3 {
      for number in 0..<4 { try disk.read(sector: 0, byteCount: 512, tag: UInt64(batch * 10 + number)) }
      disk.push()
      #expect(try backend.requests().map(\.count) == (0..<3).map { $0 == batch ? 4 : 0 }, "a batch goes to one queue")
    }
    for number in 12..<96 as Range<UInt64> { try disk.read(sector: 0, byteCount: 512, tag: number + 100) }
    #expect(throws: BlkFrontError.busy) { try disk.read(sector: 0, byteCount: 512, tag: 1) }
    disk.push()
    #expect(try backend.requests().map(\.count) == [28, 28, 28])
  }

  /// On several queues nothing but the frontend keeps a barrier's place.
  @Test func barrierWaitsForTheOtherQueuesAndTheyForIt() throws {
    let disk = disk(queues: 2)
    let backend = ManyRingsBackend()
    backend.offered = [StoreEntry("multi-queue-max-queues", 2)]
    backend.keys = [StoreEntry("feature-barrier", true)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    let sector = pattern(512, seed: 1)
    try disk.write(sector: 0, sector.span, tag: 1)
    disk.push()
    try disk.write(sector: 1, sector.span, tag: 2)
    disk.push()
    #expect(throws: BlkFrontError.busy) { try disk.writeBarrier(sector: 2, sector.span, tag: 3) }
    let first = try backend.requests()
    #expect(first.map(\.count) == [1, 1])
    backend.answer(queue: 0, BlkIfResponse(id: first[0][0].id, operation: BlkIf.Operation.write, status: 0))
    disk.poll { #expect($0.tag == 1) }
    try disk.writeBarrier(sector: 2, sector.span, tag: 3)
    for tag in 4..<8 as Range<UInt64> {
      try disk.write(sector: tag, sector.span, tag: tag)
      disk.push()
    }
    #expect(try backend.requests().map { $0.map(\.sectorNumber) } == [[], [2, 4, 5, 6, 7]])
  }

  /// Linux's backends take what an earlier life has left.
  @Test func keysOfAnEarlierLifeAreGone() throws {
    let disk = disk(queues: 1, order: 1)
    let pair = try pair(disk) { _ in }
    let own = pair.rig.directory(pair.device.frontendPath)
    try own.write([
      StoreEntry("ring-ref", 7), StoreEntry("ring-ref7", 7), StoreEntry("multi-queue-num-queues", 2),
      StoreEntry("queue-0/ring-ref", 7), StoreEntry("queue-1/event-channel", 7), StoreEntry("num-ring-pages", 8),
    ])
    try pair.connect()
    #expect(try ringKeys(pair) == ["ring-ref0", "ring-ref1", "event-channel", "ring-page-order", "num-ring-pages"])
    #expect(pair.backNegotiation.lines.first { $0.feature == "queues" }?.agreed == "1")
  }

  @Test(arguments: [(3 * 353, 3, 1, 352), (3 * 353 - 1, 2, 1, 352), (400, 1, 1, 352), (352, 1, 1, 176), (12, 1, 1, 11)])
  func whereThePagesDoNotSufficeThereAreFewerQueuesAndThenASmallerPool(
    limit: Int, queueCount: Int, ringPageCount: Int, poolPageCount: Int
  ) throws {
    let disk = disk(queues: 3)
    let pair = try pair(disk) { _ in }
    pair.guest.sharedPageLimit = limit
    try pair.connect()
    let isShort = queueCount < 3
    #expect(line(disk, "queues")?[..<3] == ["3", "4", "\(queueCount)"])
    #expect(disk.negotiation.lines.first { $0.feature == "queues" }?.reason.contains("gntalloc") == isShort)
    #expect(line(disk, "pool pages")?[2] == "\(poolPageCount)")
    #expect(line(disk, "pool pages")?[3].contains("gntalloc") == (poolPageCount < 352))
    #expect(pair.loopback.grantCounts.sharedPages == queueCount * (ringPageCount + poolPageCount))
    try disk.write(sector: 0, pattern(45056, seed: 1).span, tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded)
  }

  @Test func ringIsHalvedTogetherWithItsPool() throws {
    let disk = disk(order: 4, pool: 5632)
    let pair = try pair(disk) { _ in }
    pair.guest.sharedPageLimit = 1500
    try pair.connect()
    #expect(line(disk, "ring pages") == ["16", "16", "4", "\(GrantError.gntallocLimit(pageCount: 5632))"])
    #expect(line(disk, "pool pages") == ["5632", "any", "1408", "\(GrantError.gntallocLimit(pageCount: 5632))"])
    try disk.flush(tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded)
  }

  // MARK: What a backend can do to several rings

  @Test(arguments: [0, 5, 31, 32, UInt64.max] as [UInt64])
  func responseOnAnotherQueueClosesTheDevice(id: UInt64) throws {
    let disk = disk(queues: 2)
    let backend = ManyRingsBackend()
    backend.offered = [StoreEntry("multi-queue-max-queues", 2)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    // Number 0 of the first queue, and 0 and 1 of the other.
    try disk.read(sector: 0, byteCount: 512, tag: 1)
    disk.push()
    for tag in 2...3 as ClosedRange<UInt64> { try disk.read(sector: 0, byteCount: 512, tag: tag) }
    disk.push()
    #expect(try backend.requests().map { $0.map(\.id) } == [[0], [0, 1]])
    // What the other queue has in flight this one has not.
    let wrong = id == 0 ? 1 : id
    backend.answer(queue: 0, BlkIfResponse(id: wrong, operation: BlkIf.Operation.read, status: 0))
    disk.poll { _ in Issue.record("nothing has completed") }
    #expect(!disk.isConnected)
    #expect(try pair.scheduler.run { try pair.frontendError != nil })
    #expect(try pair.frontendError == "22 the backend answered request \(wrong), which is not in flight")
  }

  @Test func brokenRingOfOneQueueEndsTheConnectionOfAll() throws {
    let disk = disk(queues: 2)
    let backend = ManyRingsBackend()
    backend.offered = [StoreEntry("multi-queue-max-queues", 2)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    for tag in 1...2 as ClosedRange<UInt64> {
      try disk.read(sector: 0, byteCount: 512, tag: tag)
      disk.push()
    }
    backend.scribbleProducer(queue: 1, 77)
    disk.poll { _ in }
    #expect(!disk.isConnected && disk.inFlightCount == 2)
  }
}

extension BlkFrontDevice {
  /// False when there is no room.
  func takes(_ put: (BlkFrontDevice) throws(BlkFrontError) -> Void) -> Bool {
    do throws(BlkFrontError) { try put(self) } catch {
      if error != .busy { Issue.record("\(error)") }
      return false
    }
    return true
  }
}
