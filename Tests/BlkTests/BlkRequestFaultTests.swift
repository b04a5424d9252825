import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// B2, B11 and B12 against a frontend that puts what it likes: a request's fault is that request's alone.
struct BlkRequestFaultTests {
  private let frontend = RawBlkFrontend()

  private func pair(isReadOnly: Bool = false, _ store: any BlockStore = MemoryStore(sectorCount: 64)) throws -> BlkPair
  {
    let pair = try BlkPair(isReadOnly: isReadOnly, frontend: frontend, store: store)
    try pair.connect()
    return pair
  }

  private func request(
    _ operation: UInt8, sector: UInt64 = 0, _ segments: [(page: Int, first: UInt8, last: UInt8)], id: UInt64 = 1
  ) -> BlkIfRequest {
    var request = BlkIfRequest(
      operation: operation, segmentCount: UInt8(segments.count), id: id, sectorNumber: sector)
    for (index, segment) in segments.enumerated() {
      request.segments[index] = BlkIfSegment(
        gref: frontend.references[segment.page], firstSector: segment.first, lastSector: segment.last)
    }
    return request
  }

  /// Puts `bad` between two good requests and expects only it to fail.
  private func expectFault(_ pair: BlkPair, status: Int16 = BlkIf.Status.error, _ bad: BlkIfRequest) throws {
    frontend.put(request(BlkIf.Operation.read, [(0, 0, 7)], id: 10))
    frontend.put(bad)
    frontend.put(request(BlkIf.Operation.read, [(1, 0, 7)], id: 11))
    #expect(try pair.statuses(frontend, 3) == [10: 0, bad.id: status, 11: 0])
  }

  @Test func segmentsSelectSectorsOfTheirPages() throws {
    let store = MemoryStore(sectorCount: 64)
    let pair = try pair(store)
    let sectors = (1...4).map { pattern(512, seed: $0) }
    for (bytes, (page, sector)) in zip(sectors, [(1, 3), (0, 0), (2, 7)]) {
      frontend.bytes(page: page, sector: sector, count: 512).copy(from: bytes.span)
    }
    frontend.put(request(BlkIf.Operation.write, sector: 9, [(1, 3, 3), (0, 0, 0), (2, 7, 7)]))
    #expect(try pair.statuses(frontend, 1) == [1: 0])
    frontend.put(request(BlkIf.Operation.read, sector: 9, [(5, 2, 4)], id: 2))
    #expect(try pair.statuses(frontend, 1) == [2: 0])
    #expect(frontend.bytes(page: 5, sector: 2, count: 3 * 512).copied() == sectors[0] + sectors[1] + sectors[2])
  }

  @Test(arguments: [4, 7, 255] as [UInt8])
  func unknownOperationIsNotSupported(operation: UInt8) throws {
    try expectFault(try pair(), status: BlkIf.Status.notSupported, request(operation, [(0, 0, 7)]))
  }

  @Test(
    arguments: [(64, 0, 0), (63, 0, 1), (UInt64.max, 0, 0), (UInt64.max - 7, 0, 7), (36_028_797_018_963_968, 0, 0)]
      as [(UInt64, UInt8, UInt8)])
  func sectorsOutsideTheDiskFail(sector: UInt64, first: UInt8, last: UInt8) throws {
    try expectFault(try pair(), request(BlkIf.Operation.read, sector: sector, [(0, first, last)]))
    try expectFault(try pair(), request(BlkIf.Operation.write, sector: sector, [(0, first, last)]))
  }

  @Test(arguments: [(1, 0, 7), (8, 0, 0), (8, 0, 6), (4, 4, 7)] as [(UInt64, UInt8, UInt8)])
  func whatIsNoWholeSectorOfTheDiskFails(sector: UInt64, first: UInt8, last: UInt8) throws {
    let geometry = BlockGeometry(sectorCount: 64, sectorByteCount: 4096)
    for operation in [BlkIf.Operation.read, BlkIf.Operation.write] {
      try expectFault(try pair(MemoryStore(geometry: geometry)), request(operation, sector: sector, [(0, first, last)]))
    }
  }

  @Test(arguments: [(1, 0), (0, 8), (8, 8), (255, 255), (0, 255)] as [(UInt8, UInt8)])
  func segmentOutsideItsPageFails(first: UInt8, last: UInt8) throws {
    try expectFault(try pair(), request(BlkIf.Operation.read, [(0, first, last)]))
  }

  @Test(arguments: [0, 12, 255] as [UInt8])
  func segmentCountOutOfRangeFails(count: UInt8) throws {
    let pair = try pair()
    var bad = request(BlkIf.Operation.read, [(0, 0, 7)])
    bad.segmentCount = count
    try expectFault(pair, bad)
  }

  @Test func writeToAReadOnlyDiskFails() throws {
    let pair = try pair(isReadOnly: true)
    try expectFault(pair, request(BlkIf.Operation.write, [(0, 0, 7)]))
    try expectFault(pair, request(BlkIf.Operation.writeBarrier, [(0, 0, 7)]))
  }

  @Test(arguments: [BlkIf.Operation.read, BlkIf.Operation.write])
  func oneBadGrantFailsItsRequestAndLeavesTheOthers(operation: UInt8) throws {
    let pair = try pair()
    var bad = request(operation, [(0, 0, 7), (1, 0, 7), (2, 0, 7)])
    bad.segments[1].gref = 4_000_000
    try expectFault(pair, bad)
  }

  @Test func badGrantIsNotHeldAgainstTheNextRequest() throws {
    let pair = try pair()
    var bad = request(BlkIf.Operation.read, [(0, 0, 7)], id: 1)
    bad.segments[0].gref = 4_000_000
    frontend.put(bad)
    #expect(try pair.statuses(frontend, 1) == [1: BlkIf.Status.error])
    frontend.put(request(BlkIf.Operation.read, [(0, 0, 7)], id: 2))
    #expect(try pair.statuses(frontend, 1) == [2: BlkIf.Status.okay])
  }

  @Test func writeWithABadGrantChangesNothingOnTheDisk() throws {
    let store = RecordingStore(sectorCount: 64)
    let pair = try pair(store)
    var bad = request(BlkIf.Operation.write, [(0, 0, 7), (1, 0, 7)])
    bad.segments[1].gref = 4_000_000
    try expectFault(pair, bad)
    #expect(store.record.allSatisfy { $0.hasPrefix("read") })
  }

  @Test func failingStoreFailsTheRequestAndNothingElse() throws {
    let pair = try pair(BrokenStore())
    frontend.put(request(BlkIf.Operation.read, [(0, 0, 7)], id: 1))
    frontend.put(request(BlkIf.Operation.write, [(0, 0, 7)], id: 2))
    #expect(try pair.statuses(frontend, 2) == [1: BlkIf.Status.error, 2: BlkIf.Status.okay])
  }

  @Test func emptyBarrierIsAFlush() throws {
    let store = RecordingStore(sectorCount: 64)
    let pair = try pair(store)
    frontend.put(request(BlkIf.Operation.writeBarrier, []))
    #expect(try pair.statuses(frontend, 1) == [1: 0])
    #expect(store.record == ["writeBarrier 0"] && store.sectorCounts == [0])
  }

  @Test func idsAreTheFrontendsOwnAndComeBackAsTheyWere() throws {
    let pair = try pair()
    for id in [0, UInt64.max, 0xDEAD_BEEF_0000_0001] {
      frontend.put(request(BlkIf.Operation.read, [(0, 0, 0)], id: id))
    }
    #expect(try pair.statuses(frontend, 3) == [0: 0, .max: 0, 0xDEAD_BEEF_0000_0001: 0])
  }
}
