// Named for the advisories that they are about.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import BlkBack
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// What a guest can do to its disk's backend by what it grants, and when.
struct BlkBackGrantSecurityTests {
  private static let bad = GrantReference(rawValue: 400)

  // MARK: S9

  private enum Part: CaseIterable { case segment, indirectPage, indirectSegment }

  private static let operations = [BlkIf.Operation.read, BlkIf.Operation.write].flatMap { [($0, false), ($0, true)] }

  /// One refused reference, in whatever part of a request, fails that request: those before and after it in the same batch
  /// succeed, and what it would have written is not written.
  @Test(arguments: Part.allCases, operations)
  private func XSA365_refusedReferenceFailsItsRequestAlone(part: Part, way: (operation: UInt8, isPersistent: Bool))
    throws
  {
    let (operation, isPersistent) = way
    let store = AttackedStore()
    let stage = try BlkBackStage(store: store)
    let frontend = stage.frontend!
    try frontend.connect(isPersistent: isPersistent)
    var bad: BlkIfRequest
    switch part {
    case .segment:
      bad = frontend.request(operation, sector: 32, pages: [2, 3, 4], id: 2)
      bad.segments[1].gref = Self.bad.rawValue
    case .indirectPage:
      var indirect = frontend.indirect(operation, sector: 32, pages: [2, 3, 4], in: 16, id: 2).indirect
      indirect.references[0] = Self.bad.rawValue
      bad = BlkIfRequest(indirect)
    case .indirectSegment:
      bad = frontend.indirect(operation, sector: 32, pages: [2, 3, 4], in: 16, id: 2)
      frontend.page(16).slice(from: 8, count: 8).put(BlkIfSegment(gref: Self.bad, firstSector: 0, lastSector: 7))
    }
    // One batch: shown together.
    frontend.ring.request(frontend.request(operation, pages: [0], id: 1))
    frontend.ring.request(bad)
    frontend.ring.request(frontend.request(operation, sector: 8, pages: [1], id: 3))
    stage.peer.notify()
    #expect(try frontend.statuses(3) == [1: 0, 2: BlkIf.Status.error, 3: 0])
    #expect(operation == BlkIf.Operation.read || !store.sectors.contains(32))
    try stage.check()
  }

  /// The pages of a read that the store has are shared no more when it completes: that request fails.
  @Test func XSA367_pageThatIsWithdrawnDuringAReadFailsItsRequestAlone() throws {
    let store = WaitingStore()
    let stage = try BlkBackStage(store: store)
    let frontend = stage.frontend!
    try frontend.connect()
    let other = try frontend.peer.share("other")[0]
    var request = frontend.request(BlkIf.Operation.read, pages: [0], id: 1)
    request.segments[0].gref = other.rawValue
    frontend.put(request)
    frontend.put(frontend.request(BlkIf.Operation.read, pages: [1], id: 2))
    #expect(stage.run { store.count == 2 })
    frontend.peer.unshare("other")
    store.open()
    #expect(try frontend.statuses(2) == [1: BlkIf.Status.error, 2: 0])
    try stage.check()
  }

  /// Read-only pages can be written from, and not read into; where pages stay mapped the protocol wants them writable.
  @Test(arguments: [false, true]) func XSA361_pageThatMayOnlyBeReadIsNotWritten(isPersistent: Bool) throws {
    let stage = try BlkBackStage()
    let frontend = stage.frontend!
    try frontend.connect(isPersistent: isPersistent)
    let reference = try frontend.peer.share("read-only", writable: false)[0]
    frontend.peer.bytes("read-only").put(UInt32(0xEEEE_EEEE))
    var request = frontend.request(BlkIf.Operation.read, pages: [0], id: 1)
    request.segments[0].gref = reference.rawValue
    frontend.put(request)
    frontend.put(frontend.request(BlkIf.Operation.read, pages: [1], id: 2))
    #expect(try frontend.statuses(2) == [1: BlkIf.Status.error, 2: 0])
    #expect(frontend.peer.bytes("read-only").word(at: 0) == 0xEEEE_EEEE)
    try stage.check()
  }

  /// Whatever the platform refuses at random costs the requests concerned and nothing else.
  @Test(arguments: seeds(1...10, of: Self.self), [false, true])
  func XSA362_grantOperationsThatFailNowAndThenAreEachAnswered(seed: Seed, isPersistent: Bool) throws {
    let stage = try BlkBackStage(seed: seed)
    let frontend = stage.frontend!
    try frontend.connect(isPersistent: isPersistent)
    #expect(try stage.useSecond())
    stage.loopback.grantFaults.failedMap = .oneIn(3)
    stage.loopback.grantFaults.failedCopy = .oneIn(5)
    var failed = 0
    for id in 0..<200 as Range<UInt64> {
      let operation = id % 2 == 0 ? BlkIf.Operation.read : BlkIf.Operation.write
      frontend.put(frontend.request(operation, pages: [Int(id) % 32, Int(id) % 7], id: id))
      let response = try frontend.responses(1)[0]
      #expect(response.id == id)
      if response.status != 0 { failed += 1 }
    }
    #expect(failed < 200 && (isPersistent || failed > 0), "\(failed) failed")
    stage.loopback.grantFaults = GrantFaults()
    frontend.put(frontend.request(BlkIf.Operation.read, pages: [0], id: 1))
    #expect(try frontend.statuses(1) == [1: 0])
    try stage.check()
  }

  // MARK: S10

  /// A connection that fails half-way leaves nothing mapped: the last page of a ring, the last queue, its port.
  @Test(arguments: ["ring-ref3", "queue-1/ring-ref3", "queue-1/event-channel", "queue-0/event-channel"])
  func XSA371_whatIsMappedForAConnectionThatFailsIsUnmapped(badKey: String) throws {
    let stage = try BlkBackStage()
    let peer = stage.peer!
    try stage.expectState(.initWait)
    let queueCount = badKey.hasPrefix("queue") ? 2 : 1
    try peer.write("protocol", "x86_64-abi")
    try peer.write("ring-page-order", 2)
    try peer.write("multi-queue-num-queues", queueCount)
    for queue in 0..<queueCount {
      let prefix = queueCount > 1 ? "queue-\(queue)/" : ""
      for (page, reference) in try peer.share("ring \(queue)", pageCount: 4).enumerated() {
        try peer.write("\(prefix)ring-ref\(page)", reference.rawValue)
      }
      try peer.write("\(prefix)event-channel", peer.allocateChannel("\(queue)").rawValue)
    }
    try peer.write(badKey, 4_000_000)
    #expect(try stage.useSecond())
    let before = stage.loopback.grantCounts.mappedPages
    try peer.write(.initialised)
    let complaint = try stage.expectClosed()
    #expect(complaint.contains(badKey.hasSuffix("channel") ? "cannot bind" : "cannot map"))
    #expect(stage.loopback.grantCounts.mappedPages == before, "as many as the second disk alone has")
    try stage.check()
  }

  /// Each end of a connection with pages that stay mapped: maps equal unmaps.
  @Test func XSA371_mapsEqualUnmapsAtEachClose() throws {
    var options = BlkBackOptions()
    options.persistentPageCount = 20
    let stage = try BlkBackStage(options: options)
    #expect(try stage.useSecond())
    let before = stage.loopback.grantCounts.mappedPages
    for round in 0..<5 {
      let frontend = stage.frontend!
      try frontend.connect(isPersistent: true)
      for id in 0..<60 as Range<UInt64> {
        frontend.put(frontend.request(BlkIf.Operation.read, pages: [Int(id) % 32, Int(id * 7) % 32], id: id))
        #expect(try frontend.statuses(1) == [id: 0])
        #expect(stage.loopback.grantCounts.mappedPages <= before + 1 + options.persistentPageCount)
      }
      if round % 2 == 0 {
        try stage.peer.write(.closing)
        try stage.expectState(.closing)
        // Linux's of before 5.15 goes on using a disk that is open.
        frontend.put(frontend.request(BlkIf.Operation.read, pages: [0, 1], id: 99))
        #expect(try frontend.statuses(1) == [99: 0])
      }
      try stage.peer.write(.closed)
      try stage.expectState(.closed)
      #expect(stage.loopback.grantCounts.mappedPages == before)
      try stage.peer.write(.initialising)
    }
    #expect(stage.loopback.grantCounts.mapTotal > 100)
    try stage.check()
  }

  // MARK: S11

  /// Two guests with the same reference numbers: what stays mapped of one is never the other's, nor is it there for the next
  /// one that is connected in its place.
  @Test func XSA396_mappedPageIsTheOneOfItsOwnGuestAndConnection() throws {
    let store = MemoryStore(sectorCount: 64)
    let stage = try BlkBackStage(store: store)
    let frontend = stage.frontend!
    try frontend.connect(isPersistent: true)
    frontend.page(0).copy(from: pattern(4096, seed: 1).span)
    frontend.put(frontend.request(BlkIf.Operation.write, pages: [0], id: 1))
    #expect(try frontend.statuses(1) == [1: 0])
    #expect(try stage.useSecond(), "the other guest's references have the same numbers")
    // The next connection names the reference of the former one's page, which is shared no more.
    let former = frontend.references[0]
    try stage.peer.write(.closed)
    try stage.expectState(.closed)
    try stage.peer.write(.initialising)
    try frontend.connect(isPersistent: true)
    var request = frontend.request(BlkIf.Operation.write, sector: 8, pages: [0], id: 2)
    request.segments[0].gref = former.rawValue
    frontend.put(request)
    #expect(try frontend.statuses(1) == [2: BlkIf.Status.error])
    try stage.check()
  }

  /// A guest that withdraws pages which its backend has mapped: they are reported as in use, and the backend that unmaps them
  /// is no worse for it.
  @Test func XSA376_pageThatIsWithdrawnWhileMappedIsQuarantinedUntilItIsUnmapped() throws {
    let stage = try BlkBackStage()
    let frontend = stage.frontend!
    try frontend.connect(isPersistent: true)
    frontend.put(frontend.request(BlkIf.Operation.read, pages: [0, 1], id: 1))
    #expect(try frontend.statuses(1) == [1: 0])
    frontend.peer.unshare("data")
    #expect(stage.loopback.grantCounts.quarantinedPages == 2)
    try stage.check(quarantined: 2)
  }
}
