// Named for the advisories that they are about.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import NetBack
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// What a guest can do to its card's backend.
struct NetBackSecurityTests {
  private static let bad = GrantReference(rawValue: 400)

  // MARK: S1

  @Test(arguments: ["tx", "rx"], [257, 0x8000_0000, 0xFFFF_FFFF] as [UInt32])
  func XSA39_requestProducerOutOfRangeClosesTheCardAlone(ring: String, producer: UInt32) throws {
    let stage = try NetBackStage()
    try stage.frontend.connect()
    // The receive ring is looked at when there is something to receive.
    stage.end.send(pattern(64, seed: 1))
    (ring == "tx" ? stage.frontend.tx! : stage.frontend.rx!).requestProducer = producer
    stage.peer.notify()
    #expect(try stage.expectClosed().contains("moved its request producer to \(producer)"))
    try stage.check()
  }

  /// A packet that waits for its other slots, and the ring moves backwards over those that were taken.
  @Test func XSA86_requestProducerMovedBackwardsInFlightClosesTheCard() throws {
    let stage = try NetBackStage()
    try stage.frontend.connect()
    for slot in 0..<4 {
      stage.frontend.put(
        NetIfTxRequest(gref: stage.frontend.references[0], flags: NetIf.TxFlag.moreData, id: UInt16(slot), size: 400))
    }
    stage.run(turns: 20)
    stage.frontend.tx.requestProducer = 2
    stage.peer.notify()
    #expect(try stage.expectClosed().contains("moved its request producer to 2"))
    try stage.check()
  }

  // MARK: S2

  @Test func XSA175_settingsInTheGuestsDirectoryAreNotRead() throws {
    let stage = try NetBackStage()
    for (key, value) in [
      ("mac", "ff:ff:ff:ff:ff:ff"), ("bridge", "xenbr9"), ("script", "/bin/sh"), ("rate", "1,1"), ("handle", "9"),
      ("online", "0"), ("hotplug-status", "error"), ("type", "tap"), ("frontend-id", "0"), ("carrier", "0"),
      ("resume-from", "7"), ("trusted", "1"), ("multi-queue-max-queues", "64"),
    ] {
      try stage.peer.write(key, value)
    }
    try stage.frontend.connect()
    #expect(try stage.directory.string("mac") == "00:16:3e:00:00:00")
    #expect(try stage.directory.string("handle") == "0" && stage.directory.string("carrier") == "1")
    for id in 0..<20 as Range<UInt16> {
      stage.frontend.put(NetIfTxRequest(gref: stage.frontend.references[0], id: id, size: 1000))
    }
    #expect(try stage.frontend.txResponses(20).allSatisfy { $0.status == 0 })
    #expect(stage.end.frames().count == 20)
    try stage.check()
  }

  // MARK: S3

  /// The slots of a packet are rewritten while it waits for its last one, and all slots while its frame is handed over: the
  /// packet is what its slots said when they were taken.
  @Test func XSA155_slotRewrittenDuringProcessingChangesNothing() throws {
    let stage = try NetBackStage()
    let frontend = stage.frontend!
    try frontend.connect()
    let payload = pattern(900, seed: 1)
    for page in 0..<3 { frontend.page(page).copy(from: Array(payload[page * 300..<(page + 1) * 300]).span) }
    frontend.put(NetIfTxRequest(gref: frontend.references[0], flags: NetIf.TxFlag.moreData, id: 1, size: 900))
    frontend.put(NetIfTxRequest(gref: frontend.references[1], flags: NetIf.TxFlag.moreData, id: 2, size: 300))
    stage.run(turns: 20)
    let garbage = [UInt8](repeating: 0xFF, count: 4032)
    frontend.tx.bytes.slice(from: 64, count: 4032).copy(from: garbage.span)
    let ring = frontend.tx!
    stage.end.whenTaken { ring.bytes.slice(from: 64, count: 4032).copy(from: garbage.span) }
    frontend.put(NetIfTxRequest(gref: frontend.references[2], id: 3, size: 300))
    _ = try frontend.txResponses(3)
    #expect(stage.end.frames() == [payload])
    stage.end.whenTaken(nil)
    frontend.put(NetIfTxRequest(gref: frontend.references[0], id: 4, size: 300))
    #expect(try frontend.txResponses(1).map(\.id) == [4])
    try stage.check()
  }

  /// What the end sees of a frame is a copy of its own.
  @Test func XSA155_frameRewrittenDuringProcessingIsAsItWas() throws {
    let stage = try NetBackStage()
    let frontend = stage.frontend!
    try frontend.connect()
    let frame = pattern(1000, seed: 2)
    frontend.page(0).copy(from: frame.span)
    let page = frontend.page(0)
    stage.end.whenTaken { page.zero() }
    frontend.put(NetIfTxRequest(gref: frontend.references[0], id: 1, size: 1000))
    #expect(try frontend.txResponses(1).map(\.status) == [0])
    #expect(stage.end.frames() == [frame])
    try stage.check()
  }

  // MARK: S4

  @Test func XSA216_everyByteOfAResponseIsWritten() throws {
    let stage = try NetBackStage()
    let frontend = stage.frontend!
    try frontend.connect()
    for id in 0..<300 as Range<UInt16> {
      let slot = frontend.tx.slot(UInt32(id))
      slot.copy(from: [UInt8](repeating: 0xEE, count: slot.count).span)
      let isBad = id % 3 == 0
      frontend.put(NetIfTxRequest(gref: isBad ? Self.bad : frontend.references[0], id: id, size: 64))
      #expect(try frontend.txResponses(1).map(\.id) == [id])
      let status: [UInt8] = isBad ? [0xFF, 0xFF] : [0, 0]
      #expect(slot.copied() == [UInt8(id & 0xFF), UInt8(id >> 8)] + status + [UInt8](repeating: 0, count: 8))
    }
    try stage.check()
  }

  // MARK: S6

  @Test func XSA332_eventStormCostsAWakeNowAndThen() throws {
    let host = AwakeHost()
    let stage = try NetBackStage(queueHost: host)
    stage.scheduler.add(host, name: "queues") { _ in
      host.step(nanoseconds: 10_000)
      return .idle
    }
    try stage.frontend.connect()
    #expect(try stage.useSecond())
    let before = host.pollCount(0)
    for _ in 0..<100_000 {
      stage.peer.notify()
      host.step(nanoseconds: 10_000)
    }
    let count = host.pollCount(0) - before
    #expect((50..<70).contains(count), "\(count) polls")
    stage.frontend.put(NetIfTxRequest(gref: stage.frontend.references[0], id: 1, size: 64))
    var waited = 0
    while stage.frontend.tx.responseProducer == 0, waited < 110 {
      host.step(nanoseconds: 1_000_000)
      waited += 1
    }
    #expect(stage.frontend.tx.responseProducer == 1, "after \(waited) ms")
    try stage.check()
  }

  // MARK: S8

  @Test(arguments: seeds(1...8, of: Self.self)) func XSA350_connectDisconnectLoopDuringTraffic(seed: Seed) throws {
    var random = SeededGenerator(seed)
    let stage = try NetBackStage(seed: seed)
    let frontend = stage.frontend!
    #expect(try stage.useSecond())
    let before = stage.loopback.grantCounts
    for _ in 0..<100 {
      try frontend.connect()
      for id in 0..<UInt16.random(in: 0...60, using: &random) {
        let flags = Int.random(in: 0..<4, using: &random) == 0 ? NetIf.TxFlag.moreData : 0
        frontend.tx.request(NetIfTxRequest(gref: frontend.references[Int(id) % 32], flags: flags, id: id, size: 200))
        if Bool.random(using: &random) { frontend.post(Int(id) % 32, id: id) }
        stage.end.send(pattern(200, seed: Int(id)))
      }
      stage.peer.notify()
      stage.run(turns: Int.random(in: 0...3, using: &random))
      if Bool.random(using: &random) { frontend.peer.closeChannel() }
      try stage.peer.write([.closing, .closed, .initialising, .unknown].randomElement(using: &random)!)
      stage.run(turns: Int.random(in: 0...2, using: &random))
      try stage.peer.write(.closed)
      #expect(try stage.run { try [.closed, .initWait].contains(stage.peer.otherState) })
      try stage.peer.write(.initialising)
    }
    let after = stage.loopback.grantCounts
    #expect(after.mappedPages == before.mappedPages && after.quarantinedPages == 0)
    try stage.check()
  }

  // MARK: S9, S10

  @Test func XSA362_eachGrantOperationsStatusIsChecked() throws {
    let stage = try NetBackStage()
    let frontend = stage.frontend!
    try frontend.connect()
    // Sent: one page of three, and whole packets before and after.
    for (id, page) in [(1, 0), (2, nil), (3, 1)] as [(UInt16, Int?)] {
      let reference = page.map { frontend.references[$0] } ?? Self.bad
      frontend.put(NetIfTxRequest(gref: reference, id: id, size: 100))
    }
    #expect(try frontend.txResponses(3).map { [Int($0.id), Int($0.status)] } == [[1, 0], [2, -1], [3, 0]])
    #expect(stage.end.frames().count == 2)
    // Received: a reference that is none, one that is for reading only, and one that is all right.
    let readOnly = try frontend.peer.share("read-only", writable: false)[0]
    for (id, reference) in [(7, Self.bad), (8, readOnly), (9, frontend.references[5])] as [(UInt16, GrantReference)] {
      frontend.rx.request(NetIfRxRequest(id: id, gref: reference))
      stage.end.send(pattern(80, seed: Int(id)))
    }
    stage.peer.notify()
    #expect(stage.run { frontend.rx.responseProducer == 3 })
    let responses = (0..<3).map { frontend.rx.entry($0, as: NetIfRxResponse.self) }
    #expect(responses.map(\.id) == [7, 8, 9] && responses.map(\.status) == [-1, -1, 80])
    #expect(frontend.peer.bytes("read-only").word(at: 0) == 0)
    try stage.check()
  }

  @Test(arguments: ["tx-ring-ref", "rx-ring-ref", "event-channel"])
  func XSA371_whatIsMappedForAConnectionThatFailsIsUnmapped(badKey: String) throws {
    let stage = try NetBackStage()
    #expect(try stage.useSecond())
    let before = stage.loopback.grantCounts.mappedPages
    try stage.frontend.publish(keys: [(badKey, "4000000")])
    #expect(try stage.expectClosed().contains(badKey == "event-channel" ? "cannot bind" : "cannot map"))
    #expect(stage.loopback.grantCounts.mappedPages == before)
    try stage.check()
  }

  // MARK: S12

  /// A guest that grants no page gets frames without end: what waits for it is bounded, and is gone after ten seconds.
  @Test func XSA392_guestThatTakesNothingCostsABoundedLine() throws {
    let stage = try NetBackStage()
    try stage.frontend.connect()
    for _ in 0..<200 {
      for _ in 0..<100 { stage.end.send([UInt8](repeating: 7, count: 1400)) }
      stage.run(turns: 1)
    }
    // Of half a megabyte in 256 frames at most.
    #expect(stage.end.refusedCount > 20_000 - 600)
    #expect(try stage.useSecond())
    // Ten seconds later all of them are gone, and pages bring the next frame.
    stage.run(turns: 12_000)
    let frame = pattern(100, seed: 9)
    stage.end.send(frame)
    stage.frontend.post(0, id: 5)
    #expect(stage.run { stage.frontend.rx.responseProducer == 1 })
    #expect(stage.frontend.page(0).slice(from: 0, count: 100).copied() == frame)
    try stage.check()
  }

  // MARK: S13

  @Test func XSA403_receivedFrameTouchesItsBytesAlone() throws {
    let stage = try NetBackStage()
    let frontend = stage.frontend!
    try frontend.connect()
    frontend.peer.bytes("data").copy(from: [UInt8](repeating: 0xEE, count: 32 * 4096).span)
    // A long frame of another's before it, so that buffers are full of that.
    stage.end.send([UInt8](repeating: 0x5E, count: 4000))
    frontend.post(0, id: 0)
    #expect(stage.run { frontend.rx.responseProducer == 1 })
    stage.end.send([UInt8](repeating: 0x11, count: 60))
    frontend.post(1, id: 1)
    #expect(stage.run { frontend.rx.responseProducer == 2 })
    #expect(
      frontend.page(1).copied() == [UInt8](repeating: 0x11, count: 60) + [UInt8](repeating: 0xEE, count: 4036))
    for page in 2..<32 { #expect(frontend.page(page).copied().allSatisfy { $0 == 0xEE }) }
    try stage.check()
  }

  // MARK: S15

  private enum Moment: CaseIterable { case offered, published, connected, inFlight, broken, refused }
  private enum Way: CaseIterable {
    case removed, frontendRemoved, unplugged, closing, closed, beginsAgain, killed, destroyed, busCloses
  }

  @Test(arguments: Moment.allCases, Way.allCases)
  private func XSA465_teardownAtAnyMomentInAnyWayIsOne(moment: Moment, way: Way) throws {
    let stage = try NetBackStage()
    let (frontend, peer) = (stage.frontend!, stage.peer!)
    switch moment {
    case .offered: try stage.expectState(.initWait)
    case .published: try frontend.publish()
    case .connected: try frontend.connect()
    case .inFlight:
      try frontend.connect()
      for id in 0..<8 as Range<UInt16> {
        frontend.put(NetIfTxRequest(gref: frontend.references[0], flags: NetIf.TxFlag.moreData, id: id, size: 4000))
        stage.end.send(pattern(200, seed: Int(id)))
      }
      stage.run(turns: 3)
    case .broken:
      try frontend.connect()
      frontend.tx.requestProducer = 1000
      peer.notify()
      _ = try stage.expectClosed()
    case .refused:
      try frontend.publish(keys: [("rx-ring-ref", "400")])
      _ = try stage.expectClosed()
    }
    for _ in 0..<2 {
      switch way {
      case .removed: try stage.toolstack.remove(stage.device)
      case .frontendRemoved: try? stage.store.remove(stage.device.frontendPath, in: nil)
      case .unplugged: try stage.toolstack.unplug(stage.device)
      case .closing: try peer.write(.closing)
      case .closed: try peer.write(.closed)
      case .beginsAgain: try peer.write(.initialising)
      case .killed: stage.hostile.kill()
      case .destroyed: if !stage.hostile.isKilled { stage.loopback.destroy(stage.hostile.domain) }
      case .busCloses: stage.bus.close()
      }
      stage.run(turns: 10)
    }
    if way == .busCloses { try stage.checkEnd() } else { try stage.check() }
  }
}
