import NetBack
@_spi(Measuring) import NetFront
import TestSupport
import Testing

struct NetTrafficTests {
  @Test func onePacketGoesThereAndBack() throws {
    let pair = try NetPair(end: EchoEnd())
    try pair.connect()
    #expect(pair.card.macAddress?.description == "00:16:3e:00:00:01")
    #expect(pair.card.mtu == 1500)
    #expect(pair.card.handle == 0)
    #expect(pair.card.hasCarrier)
    let sent = frame(7, byteCount: 1518)
    try pair.card.send(sent.span)
    pair.card.push()
    #expect(pair.receive(1))
    #expect(pair.received == [sent])
    #expect(pair.card.inFlightCount == 0)
    #expect(pair.card.statistics.tx.packets == 1 && pair.card.statistics.tx.bytes == 1518)
    #expect(pair.card.statistics.rx.packets == 1 && pair.card.statistics.rx.bytes == 1518)
  }

  /// Many times the ring's 256 slots, so every index wraps around the ring, in batches of the schedule's choosing.
  @Test(arguments: seeds(0...99, of: NetTrafficTests.self))
  func manyPacketsComeBackInOrder(seed: Seed) throws {
    let pair = try NetPair(seed: seed, end: EchoEnd())
    try pair.connect()
    let count = 600
    var random = SeededGenerator(seed)
    func next(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &random) }
    var sent: [[UInt8]] = []
    let done = try pair.scheduler.run(turns: 100_000) {
      for _ in 0..<next(12) where sent.count < count && !pair.card.waitsForSlots {
        let one = frame(sent.count, byteCount: 14 + next(next(8) == 0 ? 1505 : 90))
        try pair.card.send(one.span)
        sent.append(one)
      }
      if next(2) == 0 || sent.count == count { pair.card.push() }
      if next(3) == 0 || sent.count == count { pair.pollCard() }
      return pair.received.count >= count
    }
    #expect(done, "\(pair.received.count) of \(count)")
    #expect(pair.received == sent)
    #expect(pair.card.statistics.tx.errors == 0 && pair.card.statistics.rx.errors == 0)
  }

  @Test func fullRingIsBusyUntilResponsesCome() throws {
    let pair = try NetPair(end: try InProcessEnd(capacity: 512))
    try pair.connect()
    let one = frame(1)
    for _ in 0..<256 { try pair.card.send(one.span) }
    #expect(pair.card.waitsForSlots)
    #expect(throws: NetFrontError.busy) { try pair.card.send(one.span) }
    pair.card.push()
    let woke = pair.scheduler.run {
      pair.pollCard()
      return !pair.card.waitsForSlots
    }
    #expect(woke)
    try pair.card.send(one.span)
    pair.card.push()
    let finished = pair.scheduler.run {
      pair.pollCard()
      return pair.card.inFlightCount == 0
    }
    #expect(finished)
    #expect(pair.card.statistics.tx.packets == 257)
  }

  /// Its pages are wanted back before the last one is gone, and not one by one; that is left out only to measure what it saves.
  @Test(arguments: [true, false]) func theCardIsWokenForHalfOfWhatItHasSent(holdsOff: Bool) throws {
    let backend = RawNetBackend()
    let pair = try NetPair(backend: backend)
    pair.card.holdsOffTxEvents = holdsOff
    try pair.connect()
    let one = frame(1)
    for _ in 0..<10 { try pair.card.send(one.span) }
    pair.card.push()
    pair.pollCard()
    let wakes = try backend.txRequests().map { backend.answer(NetIfTxResponse(id: $0.id, status: 0)) }
    #expect(wakes == (1...10).map { $0 == (holdsOff ? 6 : 1) })
  }

  @Test func aFrameMayBeAnsweredWhileItIsHandedOver() throws {
    let end = try InProcessEnd()
    let pair = try NetPair(end: end)
    try pair.connect()
    let asked = frame(3, byteCount: 99)
    let taken = end.send(asked.span)
    #expect(taken)
    var answered: [[UInt8]] = []
    let done = try pair.scheduler.run {
      var failure: NetFrontError?
      pair.card.poll { bytes in
        do throws(NetFrontError) { try pair.card.send(bytes.copied().span) } catch { failure = error }
      }
      if let failure { throw failure }
      pair.card.push()
      end.receive { answered.append($0.bytes.copied()) }
      return !answered.isEmpty
    }
    #expect(done)
    #expect(answered == [asked])
  }

  @Test func framesOutsideTheLimitsAreNotTaken() throws {
    let pair = try NetPair(mtu: 1000, end: EchoEnd())
    let long = frame(1, byteCount: 1019)
    #expect(throws: NetFrontError.notConnected) { try pair.card.send(long.span) }
    try pair.connect()
    #expect(pair.card.maxFrameByteCount == 1018)
    #expect(throws: NetFrontError.tooLong(byteCount: 1019, limit: 1018)) { try pair.card.send(long.span) }
    let short = [UInt8](repeating: 0, count: 13)
    #expect(throws: NetFrontError.tooShort(byteCount: 13)) { try pair.card.send(short.span) }
    #expect(pair.card.inFlightCount == 0)
  }

  @Test(arguments: [
    (NetFeatures(scatterGather: false), NetFeatures()), (NetFeatures(), NetFeatures(scatterGather: false)),
  ])
  func aJumboMTUNeedsScatterGather(features: NetFeatures, backendFeatures: NetFeatures) throws {
    let pair = try NetPair(mtu: 9000, features: features, backendFeatures: backendFeatures, end: EchoEnd())
    try pair.connect()
    let long = frame(1, byteCount: 1519)
    #expect(throws: NetFrontError.tooLong(byteCount: 1519, limit: 1518)) { try pair.card.send(long.span) }
    #expect(pair.card.maxFrameByteCount == 1518)
    #expect(pair.card.negotiation.description.contains("without feature-sg"))
    let sent = frame(9, byteCount: 1518)
    try pair.card.send(sent.span)
    pair.card.push()
    #expect(pair.receive(1))
    #expect(pair.received == [sent])
  }

  @Test func framesWithoutRoomAreDroppedAndCounted() throws {
    var seen: NetStatistics?
    let pair = try NetPair(
      backend: NetBackDriver(whenClosed: { seen = $1.total }) { _ in FloodingEnd(count: 1000) })
    try pair.connect()
    let one = frame(1)
    try pair.card.send(one.span)
    pair.card.push()
    // 256 frames may wait; for the rest there was no room when they came.
    #expect(pair.receive(256))
    for _ in 0..<50 {
      pair.scheduler.round()
      pair.pollCard()
    }
    #expect(pair.received.count == 256)
    try pair.toolstack.unplug(pair.device)
    let closed = pair.scheduler.run { pair.holdsNothing }
    #expect(closed, "\(pair.loopback.grantCounts) \(pair.loopback.openPortCount)")
    #expect(seen?.rx.packets == 256)
    #expect(seen?.rx.drops == 744)
  }

  @Test func anEndWithoutCarrierIsSaid() throws {
    final class Unplugged: NetworkEnd {
      func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {}
      var hasCarrier: Bool { false }
    }
    let pair = try NetPair(end: Unplugged())
    try pair.connect()
    #expect(!pair.card.hasCarrier)
  }
}

/// Answers the first frame with many.
final class FloodingEnd: NetworkEnd {
  let count: Int
  init(count: Int) { self.count = count }

  func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
    for _ in 0..<count { guest.put(frames[0]) }
  }
}
