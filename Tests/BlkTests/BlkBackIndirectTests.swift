import BlkBack
import TestSupport
import Testing
import XenLoopback

/// B5, and B11 and B12 for indirect requests: what a frontend describes in pages of its own.
struct BlkBackIndirectTests {
  private static let limit = 4096

  /// Eight pages for descriptors, 512 for payload.
  private func pair(
    _ frontend: RawBlkFrontend, isReadOnly: Bool = false, limit: Int = BlkBackIndirectTests.limit,
    store: any BlockStore = ModelDisk(sectorCount: 8192), _ options: BlkBackOptions = BlkBackOptions()
  ) throws -> BlkPair {
    var options = options
    options.maxIndirectSegmentCount = limit
    let pair = try BlkPair(isReadOnly: isReadOnly, options: options, frontend: frontend) { _ in store }
    pair.guest.sharedPageLimit = 4096
    try pair.connect()
    return pair
  }

  /// One sector each, in an order of their own.
  private func segments(_ count: Int) -> [RawSegment] {
    (0..<count).map { number in
      let sector = UInt8((number + number / 512) % 8)
      return (page: 8 + number % 512, first: sector, last: sector)
    }
  }

  @Test(arguments: [1, 11, 12, 256, 257, 511, 512, 513, 4095, 4096], [false, true])
  func everyCountOfSegmentsArrivesWhole(count: Int, isPersistent: Bool) throws {
    let frontend = RawBlkFrontend(isPersistent: isPersistent, dataPageCount: 520)
    let disk = ModelDisk(sectorCount: 8192)
    let pair = try pair(frontend, store: disk)
    let segments = segments(count)
    let written = pattern(count * 512, seed: count)
    for (index, segment) in segments.enumerated() {
      frontend.bytes(page: segment.page, sector: Int(segment.first), count: 512).copy(
        from: written.span.extracting(index * 512..<index * 512 + 512))
    }
    frontend.put(frontend.indirect(BlkIf.Operation.write, sector: 100, segments, in: 0, id: 7))
    let answer = try pair.answers(frontend, 1)[7]
    #expect(answer?.status == BlkIf.Status.okay && answer?.operation == BlkIf.Operation.write)
    try #require(disk.bytes(sector: 100, sectorCount: count) == written)
    for segment in segments { frontend.bytes(page: segment.page, sector: Int(segment.first), count: 512).zero() }
    frontend.put(frontend.indirect(BlkIf.Operation.read, sector: 100, segments, in: 0, id: 8))
    #expect(try pair.statuses(frontend, 1) == [8: BlkIf.Status.okay])
    let read = segments.flatMap { frontend.bytes(page: $0.page, sector: Int($0.first), count: 512).copied() }
    #expect(read == written)
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.holdsNothing })
    let counts = try #require(pair.closed.list.first)
    #expect(counts.sectorsWritten == UInt64(count) && counts.sectorsRead == UInt64(count))
  }

  /// Puts `bad` between two good ones, and expects only it to fail.
  private func expectFault(
    _ pair: BlkPair, _ frontend: RawBlkFrontend, _ bad: BlkIfRequest, status: Int16 = BlkIf.Status.error,
    operation: UInt8 = BlkIf.Operation.read, _ location: SourceLocation = #_sourceLocation
  ) throws {
    // Their descriptors lie in another page than the bad one's.
    frontend.put(frontend.indirect(BlkIf.Operation.read, segments(3), in: 6, id: 10))
    frontend.put(bad)
    frontend.put(frontend.indirect(BlkIf.Operation.read, segments(3), in: 7, id: 11))
    let answers = try pair.answers(frontend, 3)
    #expect(answers[10]?.status == 0 && answers[11]?.status == 0, sourceLocation: location)
    #expect(answers[bad.id]?.status == status, sourceLocation: location)
    #expect(answers[bad.id]?.operation == operation, sourceLocation: location)
    #expect(pair.backBus.isConnected, sourceLocation: location)
  }

  /// With as many segments as it says, and with more than were offered.
  @Test(arguments: [(0, 32), (33, 32), (65535, 32), (4097, 4096), (65535, 4096)] as [(UInt16, Int)])
  func countOfSegmentsThatWasNotOfferedFails(count: UInt16, limit: Int) throws {
    let frontend = RawBlkFrontend(dataPageCount: 520)
    let pair = try pair(frontend, limit: limit)
    var slot = frontend.indirect(BlkIf.Operation.read, segments(3), in: 0).indirect
    slot.segmentCount = count
    try expectFault(pair, frontend, BlkIfRequest(slot))
  }

  @Test func indirectRequestsThatWereNotOfferedAreNotSupported() throws {
    let frontend = RawBlkFrontend(dataPageCount: 24)
    let pair = try pair(frontend, limit: 0)
    #expect(
      try pair.rig.directory(pair.device.backendPath).optionalString("feature-max-indirect-segments") == nil)
    frontend.put(frontend.indirect(BlkIf.Operation.read, segments(3), in: 0))
    #expect(try pair.statuses(frontend, 1) == [1: BlkIf.Status.notSupported])
  }

  /// Of those only reads and writes may be described in pages.
  @Test(
    arguments: [
      BlkIf.Operation.writeBarrier, BlkIf.Operation.flushDiskCache, 4, BlkIf.Operation.discard,
      BlkIf.Operation.indirect, 7, 255,
    ] as [UInt8])
  func otherOperationsWithinAreNotSupported(operation: UInt8) throws {
    let frontend = RawBlkFrontend(dataPageCount: 520)
    let pair = try pair(frontend)
    try expectFault(
      pair, frontend, frontend.indirect(operation, segments(12), in: 0), status: BlkIf.Status.notSupported,
      operation: operation)
  }

  @Test(arguments: [BlkIf.Operation.read, BlkIf.Operation.write], [false, true])
  func descriptorPageThatWasNotGrantedFailsItsRequest(operation: UInt8, isPersistent: Bool) throws {
    let frontend = RawBlkFrontend(isPersistent: isPersistent, dataPageCount: 520)
    let pair = try pair(frontend)
    for page in 0..<2 {
      var slot = frontend.indirect(operation, segments(513), in: 0).indirect
      slot.references[page] = 4_000_000
      try expectFault(pair, frontend, BlkIfRequest(slot), operation: operation)
    }
  }

  /// Copied from where pages are copied. Where they stay mapped, the header wants all of them writable (note 8).
  @Test(arguments: [false, true])
  func descriptorPageThatMayOnlyBeReadIsReadWherePagesAreCopied(isPersistent: Bool) throws {
    let frontend = RawBlkFrontend(isPersistent: isPersistent, dataPageCount: 520, readOnlyPageCount: 1)
    let pair = try pair(frontend)
    var slot = frontend.indirect(BlkIf.Operation.read, segments(3), in: 0).indirect
    slot.references[0] = frontend.readOnlyReferences[0].rawValue
    // It is zeroed: segments of grant reference 0, which is nobody's.
    slot.segmentCount = 1
    try expectFault(pair, frontend, BlkIfRequest(slot))
  }

  @Test(arguments: [(0, 8), (8, 8), (3, 2), (255, 255), (0, 255)] as [(UInt8, UInt8)], [0, 299, 599])
  func oneSegmentOutsideItsPageFailsTheRequest(sectors: (UInt8, UInt8), index: Int) throws {
    let frontend = RawBlkFrontend(dataPageCount: 520)
    let store = RecordingStore(sectorCount: 8192)
    let pair = try pair(frontend, store: store)
    let bad = frontend.indirect(BlkIf.Operation.write, segments(600), in: 0)
    frontend.describe((page: 9, first: sectors.0, last: sectors.1), at: index, in: 0)
    try expectFault(pair, frontend, bad, operation: BlkIf.Operation.write)
    #expect(store.record.allSatisfy { $0.hasPrefix("read") })
  }

  @Test(arguments: [BlkIf.Operation.read, BlkIf.Operation.write], [false, true])
  func oneSegmentThatWasNotGrantedFailsTheRequest(operation: UInt8, isPersistent: Bool) throws {
    let frontend = RawBlkFrontend(isPersistent: isPersistent, dataPageCount: 520)
    let store = RecordingStore(sectorCount: 8192)
    let pair = try pair(frontend, store: store)
    for index in [0, 150, 299] {
      let bad = frontend.indirect(operation, segments(300), in: 0)
      frontend.describe(
        BlkIfSegment(gref: GrantReference(rawValue: 4_000_000), firstSector: 0, lastSector: 7), at: index, in: 0)
      try expectFault(pair, frontend, bad, operation: operation)
    }
    #expect(!store.record.contains { $0.hasPrefix("write") })
  }

  @Test(arguments: [8192 - 299, 8192, UInt64.max, UInt64.max - 299, 1 << 63, 36_028_797_018_963_968] as [UInt64])
  func sectorsOutsideTheDiskFail(sector: UInt64) throws {
    let frontend = RawBlkFrontend(dataPageCount: 520)
    let pair = try pair(frontend)
    for operation in [BlkIf.Operation.read, BlkIf.Operation.write] {
      try expectFault(
        pair, frontend, frontend.indirect(operation, sector: sector, segments(300), in: 0), operation: operation)
    }
    frontend.put(frontend.indirect(BlkIf.Operation.read, sector: 8192 - 300, segments(300), in: 0))
    #expect(try pair.statuses(frontend, 1) == [1: BlkIf.Status.okay])
  }

  @Test func readOnlyDiskIsRead() throws {
    let frontend = RawBlkFrontend(dataPageCount: 520)
    let pair = try pair(frontend, isReadOnly: true)
    try expectFault(
      pair, frontend, frontend.indirect(BlkIf.Operation.write, segments(20), in: 0),
      operation: BlkIf.Operation.write)
  }

  /// The descriptors are read once, before any of them is judged: what the frontend makes of them afterwards is nothing to
  /// its request.
  @Test(arguments: [false, true])
  func descriptorsThatAreRewrittenLaterChangeNothing(isPersistent: Bool) throws {
    let frontend = RawBlkFrontend(isPersistent: isPersistent, dataPageCount: 520)
    let disk = ModelDisk(sectorCount: 8192)
    let store = HoldingStore(disk)
    let pair = try pair(frontend, store: store)
    let written = pattern(20 * 512, seed: 3)
    let segments = segments(20)
    for (index, segment) in segments.enumerated() {
      frontend.bytes(page: segment.page, sector: Int(segment.first), count: 512).copy(
        from: written.span.extracting(index * 512..<index * 512 + 512))
    }
    frontend.put(frontend.indirect(BlkIf.Operation.write, sector: 8, segments, in: 0, id: 1))
    frontend.put(
      frontend.indirect(
        BlkIf.Operation.read, sector: 4000, segments.map { ($0.page + 100, $0.first, $0.last) }, in: 1, id: 2))
    frontend.push()
    #expect(pair.scheduler.run { store.heldCount == 2 })
    for index in 0..<20 {
      for page in 0..<2 {
        frontend.describe(
          BlkIfSegment(gref: GrantReference(rawValue: 4_000_000), firstSector: 200, lastSector: 3), at: index, in: page)
      }
    }
    store.letGo()
    #expect(try pair.statuses(frontend, 2) == [1: 0, 2: 0])
    #expect(disk.bytes(sector: 8, sectorCount: 20) == written)
  }

  /// Descriptors are lent buffers, too. However few there are, and however many requests wait for them, all are answered, and
  /// at once where the store does all at once.
  @Test(arguments: [1, 12, 13, 40], [false, true])
  func fewBuffersServeManyRequests(bufferPageCount: Int, isLate: Bool) throws {
    let frontend = RawBlkFrontend(ringPageOrder: 2, dataPageCount: 128)
    var options = BlkBackOptions()
    options.bufferPageCount = bufferPageCount
    let memory = ModelDisk(sectorCount: 8192)
    let pair = try pair(frontend, limit: 12, store: isLate ? ReorderingStore(memory) : memory, options)
    let before = pair.scheduler.now.nanoseconds
    for id in 0..<UInt64(128) {
      let segments: [RawSegment] = (0..<12).map { (page: 100 + $0, first: 0, last: 0) }
      frontend.put(frontend.indirect(BlkIf.Operation.read, sector: id * 12, segments, in: Int(id) % 100, id: id))
    }
    #expect(try pair.statuses(frontend, 128).values.filter { $0 == 0 }.count == 128)
    #expect(pair.scheduler.now.nanoseconds - before < 500_000_000, "nothing waits for a timer")
  }

  /// Its segments do not pass while others before it wait for buffers: it alone fails, and leaves nothing behind.
  @Test(arguments: [false, true], 0..<4)
  func requestThatFailsBehindOthersThatWaitForBuffersIsAnsweredOnce(isLate: Bool, badPlace: Int) throws {
    let frontend = RawBlkFrontend(ringPageOrder: 2, dataPageCount: 128)
    var options = BlkBackOptions()
    options.bufferPageCount = 12
    let memory = ModelDisk(sectorCount: 8192)
    let pair = try pair(frontend, limit: 12, store: isLate ? ReorderingStore(memory) : memory, options)
    for round in 0..<20 {
      var expected: [UInt64: Int16] = [:]
      for place in 0..<4 {
        let id = UInt64(round * 4 + place)
        let isBad = place == badPlace
        let segments: [RawSegment] = (0..<12).map {
          (page: 100 + $0, first: isBad && $0 == 11 ? 8 : 0, last: isBad && $0 == 11 ? 8 : 0)
        }
        frontend.put(frontend.indirect(BlkIf.Operation.read, sector: UInt64(place * 12), segments, in: place, id: id))
        expected[id] = isBad ? -1 : 0
      }
      #expect(try pair.statuses(frontend, 4) == expected)
    }
  }
}
