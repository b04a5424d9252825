// Named for the advisories that they are about.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import NetFront
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// What a card's backend can do to its frontend: lose it, and nothing else.
struct NetFrontSecurityTests {
  private func send(_ stage: NetFrontStage, _ count: Int) throws -> [NetIfTxRequest] {
    for number in 0..<count {
      let frame = pattern(100, seed: number)
      try stage.card.send(frame.span)
    }
    stage.card.push()
    return stage.backend.txRequests()
  }

  private func expectClosed(_ stage: NetFrontStage) throws -> String {
    stage.run {
      stage.pollCard()
      return !stage.card.isConnected
    }
    return try stage.expectClosed()
  }

  // MARK: S1

  @Test(arguments: ["tx", "rx"], [257, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func XSA39_responseProducerOutOfRangeClosesTheCardAlone(ring: String, producer: UInt32) throws {
    let stage = try NetFrontStage()
    try stage.backend.connect()
    _ = try send(stage, 2)
    (ring == "tx" ? stage.backend.tx! : stage.backend.rx!).responseProducer = producer
    stage.peer.notify()
    #expect(try expectClosed(stage).contains("moved its response producer to \(producer)"))
    #expect(stage.received.isEmpty)
    try stage.check()
  }

  @Test func XSA86_responseProducerMovedBackwardsClosesTheCard() throws {
    let stage = try NetFrontStage()
    try stage.backend.connect()
    for request in try send(stage, 4)[..<2] { stage.backend.answer(NetIfTxResponse(id: request.id, status: 0)) }
    stage.run {
      stage.pollCard()
      return stage.card.inFlightCount == 2
    }
    stage.backend.tx.responseProducer = 1
    stage.peer.notify()
    #expect(try expectClosed(stage).contains("moved its response producer to 1"))
    try stage.check()
  }

  // MARK: S2

  @Test func XSA175_settingsInTheBackendsDirectoryAreNotTheGuests() throws {
    let stage = try NetFrontStage(isTrusted: false)
    try stage.backend.connect(keys: [
      ("trusted", "1"), ("mac", "ff:ff:ff:ff:ff:ff"), ("mtu", "9000"), ("handle", "9"), ("tx-ring-ref", "9"),
      ("event-channel", "9"), ("backend-id", "0"),
    ])
    #expect(stage.card.negotiation.lines.contains { $0.feature == "trusted" && $0.agreed == "0" })
    #expect("\(stage.card.macAddress!)" == "00:16:3e:00:00:00" && stage.card.mtu == 1500 && stage.card.handle == 0)
    #expect(throws: DeviceError.self) { try stage.peer.other.write([StoreEntry("trusted", "1")]) }
    try stage.check()
  }

  // MARK: S3

  /// While a frame is handed over its page and all slots are rewritten: of a backend that is not trusted the frame stays what it
  /// was; and no later frame is anything else than its own response said.
  @Test(arguments: [false, true]) func XSA155_slotRewrittenDuringProcessingChangesNothing(isTrusted: Bool) throws {
    let stage = try NetFrontStage(isTrusted: isTrusted)
    try stage.backend.connect()
    let frames = (0..<3).map { pattern(200 + $0, seed: $0) }
    for slot in 0..<3 {
      let request = stage.backend.rxRequest(UInt32(slot))
      try stage.peer.map("page \(slot)", [GrantReference(rawValue: request.gref)])
      let frame = frames[slot]
      stage.peer.bytes("page \(slot)").copy(from: frame.span)
      stage.backend.rx.respond(NetIfRxResponse(id: request.id, status: Int16(frame.count)))
    }
    stage.peer.notify()
    let (rx, first) = (stage.backend.rx!, stage.peer.bytes("page 0"))
    var received: [[UInt8]] = []
    var again: [UInt8]?
    #expect(
      stage.run {
        stage.card.poll(now: stage.scheduler.now) { frame in
          let copy = frame.copied()
          if received.isEmpty {
            first.zero()
            again = frame.copied()
          }
          received.append(copy)
        }
        return received.count == 3
      })
    #expect(received == frames)
    // A frame of a trusted one may change under whoever looks twice.
    #expect(isTrusted || again == frames[0])
    rx.bytes.slice(from: 64, count: 4032).copy(from: [UInt8](repeating: 0xFF, count: 4032).span)
    stage.backend.tx.bytes.slice(from: 64, count: 4032).copy(from: [UInt8](repeating: 0xFF, count: 4032).span)
    stage.pollCard()
    #expect(stage.card.isConnected)
    try stage.check()
  }

  // MARK: S4, S13

  /// A backend that is not trusted sees of a page the frame that is sent from it, and zeros; whatever it asks for, it has not
  /// been granted anything else.
  @Test func XSA403_nothingButItsFramesIsShared() throws {
    let stage = try NetFrontStage(isTrusted: false)
    try stage.backend.connect()
    #expect(stage.backend.tx.bytes.slice(from: 64, count: 4032).copied().allSatisfy { $0 == 0 })
    // Every page is used for a long frame, and then for a short one.
    for round in 0..<2 {
      for _ in 0..<4 {
        for _ in 0..<64 {
          try stage.card.send([UInt8](repeating: round == 0 ? 0x5E : 0x11, count: round == 0 ? 1500 : 60).span)
        }
        stage.card.push()
        for request in stage.backend.txRequests() {
          let page = try #require(stage.peer.peek(GrantReference(rawValue: request.gref)))
          let (start, end) = (Int(request.offset), Int(request.offset) + Int(request.size))
          #expect(page[start..<end].allSatisfy { $0 == (round == 0 ? 0x5E : 0x11) })
          #expect(page[..<start].allSatisfy { $0 == 0 } && page[end...].allSatisfy { $0 == 0 })
          stage.backend.answer(NetIfTxResponse(id: request.id, status: 0))
        }
        #expect(
          stage.run {
            stage.pollCard()
            return stage.card.inFlightCount == 0
          })
      }
    }
    try stage.check()
  }

  // MARK: S8

  @Test(arguments: seeds(1...8, of: Self.self)) func XSA350_connectDisconnectLoopDuringTraffic(seed: Seed) throws {
    var random = SeededGenerator(seed)
    let stage = try NetFrontStage(seed: seed)
    for _ in 0..<40 {
      try stage.backend.connect()
      for request in try send(stage, Int.random(in: 0...40, using: &random)) where Bool.random(using: &random) {
        stage.backend.answer(NetIfTxResponse(id: request.id, status: Int16.random(in: -2...0, using: &random)))
      }
      for slot in 0..<UInt32.random(in: 0...40, using: &random) {
        stage.backend.answer(NetIfRxResponse(id: stage.backend.rxRequest(slot).id, status: 64))
      }
      stage.run(turns: Int.random(in: 0...2, using: &random))
      if Bool.random(using: &random) { stage.pollCard() }
      let state: XenbusState = [.closing, .closed, .unknown].randomElement(using: &random)!
      if state != .closing { stage.peer.dropAll() }
      try stage.peer.write(state)
      try stage.expectState(.closed)
      stage.pollCard()
      stage.peer.dropAll()
      try stage.peer.write(.closed)
    }
    #expect(stage.loopback.grantCounts.quarantinedPages == 0)
    #expect(!stage.received.isEmpty && stage.received.allSatisfy { $0.count == 64 })
    try stage.check()
  }

  // MARK: S11

  @Test func XSA376_pageThatABackendKeepsIsNotUsedAgain() throws {
    let stage = try NetFrontStage()
    try stage.backend.connect()
    let kept = GrantReference(rawValue: stage.backend.rxRequest(0).gref)
    try stage.peer.map("kept", [kept])
    try stage.peer.write(.closing)
    try stage.expectState(.closed)
    stage.peer.closeChannel()
    for name in ["tx", "rx"] { stage.peer.unmap(name) }
    try stage.peer.write(.closed)
    stage.run(turns: 20)
    #expect(stage.loopback.grantCounts.quarantinedPages == 1)
    try stage.backend.connect()
    #expect(stage.backend.rx.requestProducer == 256)
    for slot in 0..<256 as Range<UInt32> { #expect(stage.backend.rxRequest(slot).gref != kept.rawValue) }
    #expect(stage.peer.peek(kept) == nil)
    try stage.check(quarantined: 1)
  }

  // MARK: S14

  /// What a backend says of the pages that it has filled, at its extremes: a frame, a lost frame, or a closed card.
  private static let extremes: [(responses: [NetIfRxResponse], frames: [Int]?)] = [
    ([NetIfRxResponse(id: 0, status: 14)], [14]), ([NetIfRxResponse(id: 0, status: 13)], []),
    ([NetIfRxResponse(id: 0, status: 0)], []), ([NetIfRxResponse(id: 0, status: 4096)], [4096]),
    ([NetIfRxResponse(id: 0, status: 4097)], nil), ([NetIfRxResponse(id: 0, offset: 4082, status: 14)], [14]),
    ([NetIfRxResponse(id: 0, offset: 4083, status: 14)], nil),
    ([NetIfRxResponse(id: 0, offset: 65535, status: Int16.max)], nil), ([NetIfRxResponse(id: 7, status: 64)], nil),
    // Sixteen pages are a frame of the longest, seventeen are longer than any.
    ((0..<16).map { NetIfRxResponse(id: $0, flags: $0 < 15 ? 4 : 0, status: $0 < 15 ? 4096 : 4095) }, [65535]),
    ((0..<17).map { NetIfRxResponse(id: $0, flags: $0 < 16 ? 4 : 0, status: 4096) }, []),
    ((0..<40).map { NetIfRxResponse(id: $0, flags: $0 < 39 ? 4 : 0, status: 1) }, []),
    // Fragments without bytes, and a failure in the middle.
    ((0..<4).map { NetIfRxResponse(id: $0, flags: $0 < 3 ? 4 : 0, status: $0 == 0 ? 100 : 0) }, [100]),
    ((0..<4).map { NetIfRxResponse(id: $0, flags: $0 < 3 ? 4 : 0, status: $0 == 2 ? -1 : 100) }, []),
  ]

  @Test(arguments: extremes.indices) func XSA448_responsesAtTheirExtremesAreAFrameOrAnError(number: Int) throws {
    let (responses, frames) = Self.extremes[number]
    let stage = try NetFrontStage()
    try stage.backend.connect()
    for response in responses { stage.backend.rx.respond(response) }
    stage.peer.notify()
    guard let frames else {
      #expect(try expectClosed(stage).hasPrefix("the backend answered rx request"))
      #expect(stage.received.isEmpty)
      return try stage.check()
    }
    stage.run(turns: 10)
    stage.pollCard()
    // The next one is whole.
    stage.backend.answer(NetIfRxResponse(id: UInt16(responses.count), status: 64))
    stage.run(turns: 10)
    stage.pollCard()
    #expect(stage.received.map(\.count) == frames + [64])
    try stage.check()
  }

  // MARK: S15

  private enum Moment: CaseIterable { case began, offered, connected, inFlight, broken }
  private enum Way: CaseIterable {
    case removed, backendRemoved, unplugged, closing, closed, unknown, killed, destroyed, busCloses, suspended
  }

  @Test(arguments: Moment.allCases, Way.allCases)
  private func XSA465_teardownAtAnyMomentInAnyWayIsOne(moment: Moment, way: Way) throws {
    let stage = try NetFrontStage()
    let (backend, peer) = (stage.backend!, stage.peer!)
    switch moment {
    case .began: break
    case .offered:
      try peer.write("feature-rx-copy", 1)
      try peer.write(.initWait)
      try stage.expectState(.connected)
    case .connected: try backend.connect()
    case .inFlight:
      try backend.connect()
      _ = try send(stage, 8)
      // A frame whose last slot does not come.
      backend.answer(NetIfRxResponse(id: 0, flags: NetIf.RxFlag.moreData, status: 64))
      stage.run(turns: 3)
      stage.pollCard()
    case .broken:
      try backend.connect()
      backend.answer(NetIfTxResponse(id: 99, status: 0))
      stage.run {
        stage.pollCard()
        return !stage.card.isConnected
      }
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
      stage.pollCard()
      stage.run(turns: 5)
    }
    // Who says that it is gone and keeps both rings mapped: their pages are found to be in use.
    let keepsRings =
      [.connected, .inFlight, .broken].contains(moment)
      && [.removed, .backendRemoved, .closed, .unknown].contains(way)
    if way == .busCloses { try stage.checkEnd() } else { try stage.check(quarantined: keepsRings ? 2 : 0) }
  }
}
