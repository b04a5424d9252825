// Named for the advisories that they are about.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import BlkFront
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// What a disk's backend can do to its frontend: lose it, and nothing else.
struct BlkFrontSecurityTests {
  private func stage(seed: Seed = 1, _ change: (inout BlkFrontOptions) -> Void = { _ in }) throws -> BlkFrontStage {
    var options = BlkFrontOptions()
    // What is in flight ends with its backend, so that nothing has to come back.
    options.requeuesRequests = false
    change(&options)
    return try BlkFrontStage(seed: seed, options: options)
  }

  /// Puts `count` reads and gives the backend what arrives.
  private func read(_ stage: BlkFrontStage, _ count: Int, from tag: UInt64 = 0) throws -> [BlkIfRequest] {
    for index in 0..<UInt64(count) { try stage.disk.read(sector: index % 56, byteCount: 4096, tag: tag + index) }
    stage.disk.push()
    return stage.backend.requests()
  }

  private func finish(_ stage: BlkFrontStage) -> Bool {
    stage.run {
      stage.pollDisk()
      return stage.disk.inFlightCount == 0
    }
  }

  // MARK: S1

  @Test(arguments: [3, 33, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func XSA39_responseProducerOutOfRangeClosesTheDiskAlone(producer: UInt32) throws {
    let stage = try stage()
    try stage.backend.connect()
    _ = try read(stage, 2)
    stage.backend.ring.responseProducer = producer
    stage.peer.notify()
    #expect(finish(stage) && stage.results == [0: .disconnected, 1: .disconnected])
    #expect(try stage.expectClosed().contains("moved its response producer to \(producer)"))
    try stage.check()
  }

  @Test func XSA86_responseProducerMovedBackwardsClosesTheDisk() throws {
    let stage = try stage()
    try stage.backend.connect()
    let requests = try read(stage, 4)
    for request in requests[..<2] { stage.backend.answer(request) }
    stage.run {
      stage.pollDisk()
      return stage.results.count == 2
    }
    stage.backend.ring.responseProducer = 1
    stage.peer.notify()
    #expect(finish(stage) && stage.results.values.count { $0 == .disconnected } == 2)
    #expect(try stage.expectClosed().contains("moved its response producer to 1"))
    try stage.check()
  }

  // MARK: S2

  /// Whether a backend is trusted is not its own to say, nor what the disk's frontend decides.
  @Test func XSA175_settingsInTheBackendsDirectoryAreNotTheGuests() throws {
    let stage = try stage()
    try StoreDirectory(stage.device.frontendPath, in: stage.store).write([StoreEntry("trusted", "0")])
    try stage.backend.connect(keys: [
      ("trusted", "1"), ("virtual-device", "768"), ("backend-id", "0"), ("protocol", "x86_32-abi"),
      ("ring-ref", "9"), ("event-channel", "9"),
    ])
    #expect(stage.disk.negotiation.lines.contains { $0.feature == "trusted" && $0.agreed == "0" })
    #expect(throws: DeviceError.self) { try stage.peer.other.write([StoreEntry("trusted", "1")]) }
    let requests = try read(stage, 1)
    stage.backend.answer(requests[0])
    #expect(finish(stage) && stage.results == [0: .succeeded])
    try stage.check()
  }

  // MARK: S3

  /// In the middle of the first completion everything that the backend can reach is rewritten: what has been taken in stays
  /// as it was, and requests are not read back out of their slots.
  @Test func XSA155_slotRewrittenDuringProcessingChangesNothing() throws {
    let stage = try stage()
    try stage.backend.connect()
    let requests = try read(stage, 4)
    for request in requests { stage.backend.answer(request, status: request.id == 2 ? -1 : 0) }
    let ring = stage.backend.ring!
    var results: [UInt64: BlkFrontCompletion.Result] = [:]
    #expect(
      stage.run {
        stage.disk.poll {
          ring.bytes.slice(from: 64, count: 4032).copy(from: [UInt8](repeating: 0xFF, count: 4032).span)
          results[$0.tag] = $0.result
        }
        return stage.disk.inFlightCount == 0
      })
    #expect(results.count == 4 && results.values.count { $0 == .failed } == 1)
    #expect(stage.disk.isConnected)
    // The slots' next lap is not disturbed either.
    for request in try read(stage, 32, from: 100) { stage.backend.answer(request) }
    #expect(finish(stage) && stage.results.count == 32)
    try stage.check()
  }

  // MARK: S4, S13

  /// What a guest shows its backend of its own memory: the requests and the payload that it asked to write.
  @Test func XSA403_nothingButItsRequestsIsShared() throws {
    let stage = try stage()
    try StoreDirectory(stage.device.frontendPath, in: stage.store).write([StoreEntry("trusted", "0")])
    try stage.backend.connect()
    let ring = stage.backend.ring!
    #expect(ring.bytes.slice(from: 64, count: 4032).copied().allSatisfy { $0 == 0 })
    let secret = [UInt8](repeating: 0x5E, count: 4096)
    try stage.disk.write(sector: 0, secret.span, tag: 1)
    stage.disk.push()
    let write = stage.backend.requests()[0]
    stage.backend.answer(write)
    #expect(finish(stage))
    // All pages are used again, for less than a page.
    for tag in 2..<34 as Range<UInt64> {
      try stage.disk.write(sector: 0, [UInt8](repeating: 1, count: 512).span, tag: tag)
    }
    stage.disk.push()
    for request in stage.backend.requests() {
      let page = try #require(stage.peer.peek(GrantReference(rawValue: request.segments[0].gref)))
      #expect(page == [UInt8](repeating: 1, count: 512) + [UInt8](repeating: 0, count: 3584))
      for index in 1..<11 { #expect(request.segments[index].gref == 0 && request.segments[index].lastSector == 0) }
      stage.backend.answer(request)
    }
    #expect(finish(stage))
    try stage.check()
  }

  /// A request's slot holds nothing of what stood there before.
  @Test func XSA216_everyByteOfARequestIsWritten() throws {
    let stage = try stage()
    try stage.backend.connect()
    let ring = stage.backend.ring!
    ring.bytes.slice(from: 64, count: 4032).copy(from: [UInt8](repeating: 0xEE, count: 4032).span)
    let requests = try read(stage, 32)
    #expect(requests.count == 32)
    for index in 0..<32 as Range<UInt32> {
      // What is between the fields, and what is behind the one segment, with its own two bytes.
      let slot = ring.slot(index).copied()
      #expect(slot[4..<8].allSatisfy { $0 == 0 } && slot[30...].allSatisfy { $0 == 0 }, "slot \(index)")
    }
    for request in requests { stage.backend.answer(request) }
    #expect(finish(stage))
    try stage.check()
  }

  // MARK: S7

  @Test func XSA349_watchStormOverEverNewPathsIsBounded() throws {
    let stage = try stage()
    try stage.backend.connect()
    #expect(try stage.useSecond())
    for round in 0..<20_000 {
      try stage.peer.write("state/\(round)", "x")
      try stage.peer.own.remove("state/\(round)")
    }
    #expect((1024...1034).contains(stage.loopback.waitingWatchEventCount))
    var polls = 0
    while stage.bus.poll() == .more { polls += 1 }
    #expect((10..<40).contains(polls) && stage.disk.isConnected, "\(polls) polls")
    try stage.check()
  }

  // MARK: S8

  /// A backend that comes and goes in the middle of requests: each one completes once, and what is put again is put whole.
  @Test(arguments: seeds(1...8, of: Self.self), [false, true])
  func XSA350_connectDisconnectLoopDuringIO(seed: Seed, requeues: Bool) throws {
    var random = SeededGenerator(seed)
    let stage = try stage(seed: seed) { $0.requeuesRequests = requeues }
    let before = stage.loopback.grantCounts
    var tag: UInt64 = 0
    for _ in 0..<60 {
      try stage.backend.connect()
      for _ in 0..<Int.random(in: 0...24, using: &random) where stage.disk.inFlightCount < 28 {
        tag += 1
        try stage.disk.write(sector: tag % 64, [UInt8](repeating: UInt8(tag % 251), count: 512).span, tag: tag)
      }
      stage.disk.push()
      for request in stage.backend.requests() where Bool.random(using: &random) {
        let page = try #require(stage.peer.peek(GrantReference(rawValue: request.segments[0].gref)))
        #expect(page[0] == page[511])
        stage.backend.answer(request)
      }
      stage.run(turns: Int.random(in: 0...2, using: &random))
      if Bool.random(using: &random) { stage.pollDisk() }
      // It lets go before it says so, or, where it asks to close, when the disk has stopped.
      let state: XenbusState = [.closing, .closed, .unknown].randomElement(using: &random)!
      if state != .closing { stage.peer.dropAll() }
      try stage.peer.write(state)
      try stage.expectState(.closed)
      stage.pollDisk()
      stage.peer.dropAll()
      try stage.peer.write(.closed)
    }
    try stage.backend.connect()
    #expect(
      stage.run {
        for request in stage.backend.requests() { stage.backend.answer(request) }
        stage.pollDisk()
        return stage.disk.inFlightCount == 0
      })
    #expect(Set(stage.results.keys) == Set(1...tag))
    #expect(!requeues || stage.results.values.allSatisfy { $0 == .succeeded })
    #expect(stage.loopback.grantCounts.quarantinedPages == 0)
    #expect(stage.loopback.grantCounts.sharedPages <= before.sharedPages + 2 * 353)
    try stage.check()
  }

  // MARK: S11

  /// A backend that keeps the pages mapped after it has said Closed: they are reported as in use and given to nobody else,
  /// and what it writes there afterwards is nobody's.
  @Test func XSA376_pageThatABackendKeepsIsNotUsedAgain() throws {
    let stage = try stage()
    try stage.backend.connect()
    let requests = try read(stage, 1)
    let kept = GrantReference(rawValue: requests[0].segments[0].gref)
    try stage.peer.map("kept", [kept])
    try stage.peer.write(.closing)
    try stage.expectState(.closed)
    stage.pollDisk()
    stage.peer.closeChannel()
    stage.peer.unmap("ring")
    try stage.peer.write(.closed)
    stage.run(turns: 20)
    #expect(stage.loopback.grantCounts.quarantinedPages == 1)
    // The next connection shares others, and shares nothing under the former numbers.
    try stage.backend.connect()
    for request in try read(stage, 8, from: 100) {
      #expect(request.segments[0].gref != kept.rawValue)
      stage.peer.bytes("kept").copy(from: [UInt8](repeating: 0xEE, count: 4096).span)
      stage.backend.answer(request)
    }
    #expect(finish(stage))
    #expect((100..<108).allSatisfy { stage.results[$0] == .succeeded && stage.bytes[$0]!.allSatisfy { $0 == 0 } })
    #expect(stage.peer.peek(kept) == nil)
    try stage.check(quarantined: 1)
  }

  /// Two backends of one guest: what one of them is granted, the other cannot reach.
  @Test func XSA396_pageIsGrantedToItsOwnBackendAlone() throws {
    let stage = try stage()
    try stage.backend.connect()
    #expect(try stage.useSecond())
    #expect(stage.peer.peek(try stage.backend.reference("ring-ref")) != nil, "its own")
    let directory = StoreDirectory(stage.second.frontendPath, in: stage.store)
    let reference = GrantReference(rawValue: try directory.number("ring-ref"))
    // And those about it: the pool's.
    for number in reference.rawValue..<reference.rawValue + 300 {
      #expect(stage.peer.peek(GrantReference(rawValue: number)) == nil)
    }
    try stage.check()
  }

  // MARK: S15

  private enum Moment: CaseIterable { case began, offered, connected, inFlight, answered, broken, refused }
  private enum Way: CaseIterable {
    case removed, backendRemoved, unplugged, closing, closed, unknown, killed, destroyed, busCloses, suspended
  }

  @Test(arguments: Moment.allCases, Way.allCases)
  private func XSA465_teardownAtAnyMomentInAnyWayIsOne(moment: Moment, way: Way) throws {
    let stage = try stage { $0.requeuesRequests = true }
    let (backend, peer) = (stage.backend!, stage.peer!)
    switch moment {
    case .began: break
    case .offered:
      try peer.write(.initWait)
      try stage.expectState(.initialised)
    case .connected: try backend.connect()
    case .inFlight:
      try backend.connect()
      _ = try read(stage, 8)
    case .answered:
      try backend.connect()
      for request in try read(stage, 8) { backend.answer(request) }
    case .broken:
      try backend.connect()
      _ = try read(stage, 8)
      backend.answer(BlkIfResponse(id: 99, operation: 0, status: 0))
      stage.run {
        stage.pollDisk()
        return !stage.disk.isConnected
      }
    case .refused:
      try peer.write(.initWait)
      try stage.expectState(.initialised)
      try peer.write("sectors", "none")
      try peer.write(.connected)
      _ = try stage.expectClosed()
    }
    for _ in 0..<2 {
      switch way {
      case .removed: try stage.toolstack.remove(stage.device)
      case .backendRemoved: try? stage.store.remove(stage.device.backendPath, in: nil)
      case .unplugged: try stage.toolstack.unplug(stage.device)
      case .closing: try peer.write(.closing)
      case .closed: try peer.write(.closed)
      case .unknown: try peer.write("state", "of grace")
      case .killed: stage.hostile.kill()
      case .destroyed: if !stage.hostile.isKilled { stage.loopback.destroy(stage.hostile.domain) }
      case .busCloses: stage.bus.close()
      case .suspended:
        stage.victim.suspendAndResume()
        stage.bus.resume()
      }
      stage.run(turns: 5)
      stage.pollDisk()
      stage.run(turns: 5)
    }
    // Who says that it is gone and keeps the ring mapped: the page is found to be in use.
    let keepsRing =
      [.connected, .inFlight, .answered, .broken].contains(moment)
      && [.removed, .backendRemoved, .closed, .unknown].contains(way)
    if way == .busCloses { try stage.checkEnd() } else { try stage.check(quarantined: keepsRing ? 1 : 0) }
    stage.pollDisk()
    #expect(stage.disk.inFlightCount == 0)
  }
}
