import NetBack
import TestSupport
import Testing

/// Frames that an end leaves to be cut for a guest that does not take them so: the backend cuts them, and nothing is lost.
struct NetBackSegmentTests {
  private final class Closed { var statistics = NetStatistics() }

  private let frontend = RawNetFrontend()
  private let end = NotingEnd()
  private let closed = Closed()

  private func pair(_ keys: [StoreEntry] = [StoreEntry("feature-sg", true)]) throws -> HandPolledPair {
    frontend.keys = keys
    return try HandPolledPair(
      frontend: frontend,
      backend: NetBackDriver(whenClosed: { [closed] in closed.statistics = $1.total }) { [end] _ in end })
  }

  private func statistics(_ pair: HandPolledPair) -> NetStatistics {
    pair.backBus.close()
    for _ in 0..<20 {
      pair.frontBus.poll()
      pair.backBus.poll()
    }
    return closed.statistics
  }

  private static func unfinished(_ packet: TestPacket, _ payloadByteCount: UInt16) -> NotingEnd.Packet {
    let kind: NetExtraInfo.SegmentKind = packet.network == .ipv4 ? .tcpv4 : .tcpv6
    return .init(
      packet.bytes,
      NetPacketMetadata(checksum: .blank, segmentation: .init(kind, payloadByteCount: payloadByteCount)))
  }

  /// What the segmenter makes of it in one piece each.
  private func segments(_ packet: NotingEnd.Packet) throws -> [[UInt8]] {
    let segmentation = try #require(packet.metadata.segmentation)
    let segmenter = try NetSegmenter(packet.bytes.span, segmentation)
    return (0..<segmenter.frameCount).map { index in
      var frame = [UInt8](repeating: 0, count: segmenter.byteCount(of: index))
      var span = frame.mutableSpan
      segmenter.write(index, of: packet.bytes.span, to: &span)
      return frame
    }
  }

  /// Gives the guest's pages one by one, and puts together what comes.
  private func receive(_ pair: HandPolledPair, pageCount: Int, at step: Int = 1, budget: Int = 64) throws -> [[UInt8]] {
    var frames: [[UInt8]] = []
    var rest: [UInt8] = []
    for first in stride(from: 0, to: pageCount, by: step) {
      for id in first..<min(first + step, pageCount) {
        frontend.put(NetIfRxRequest(id: UInt16(id), gref: frontend.references[id % 16]))
      }
      frontend.push()
      for _ in 0..<100 where pair.poll(budget: budget) == .more {}
      for response in try frontend.rxResponses() {
        #expect(response.flags & (NetIf.RxFlag.extraInfo | NetIf.RxFlag.checksumBlank) == 0)
        rest += frontend.page(Int(response.id) % 16).slice(from: Int(response.offset), count: Int(response.status))
          .copied()
        guard response.flags & NetIf.RxFlag.moreData == 0 else { continue }
        frames.append(rest)
        rest = []
      }
    }
    #expect(rest.isEmpty)
    return frames
  }

  /// However the pages come: each segment once, in order, with right checksums, and what stands behind them behind them.
  @Test(
    arguments: [1, 2, 7, 16], [(1448, 20_000), (1000, 1001), (5000, 20_000), (9, 600), (65535, 700)] as [(UInt16, Int)])
  func aFrameIsCutForWhomItIsTooLong(pages: Int, sizes: (payload: UInt16, byteCount: Int)) throws {
    for network in [NetHeaders.Network.ipv4, .ipv6] {
      let pair = try pair()
      let packet = Self.unfinished(
        TestPacket(network: network, payload: pattern(sizes.byteCount, seed: 3)), sizes.payload)
      let expected = try segments(packet)
      end.toGive = [.init(frame(1)), packet, .init(frame(2)), packet]
      let all = [frame(1)] + expected + [frame(2)] + expected
      let pageCount = all.reduce(0) { $0 + ($1.count + 4095) / 4096 }
      #expect(try receive(pair, pageCount: pageCount, at: pages) == all)
      let statistics = statistics(pair)
      #expect(Int(statistics.rx.packets) == all.count && statistics.rx.errors == 0 && statistics.rx.drops == 0)
      #expect(statistics.rxSegmented == 0)
    }
  }

  /// A turn cuts no more than its budget, however long the packet is.
  @Test func aTurnCutsNoMoreThanItsBudget() throws {
    let pair = try pair()
    let packet = Self.unfinished(TestPacket(payload: pattern(10_000, seed: 1)), 100)
    end.toGive = [packet]
    for id in 0..<100 as Range<UInt16> { frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id) % 16])) }
    frontend.push()
    for turn in 0..<10 {
      #expect(pair.poll(budget: 10) == .more)
      #expect(try frontend.rxResponses().map(\.id) == (0..<10).map { UInt16(turn * 10 + $0) })
    }
    #expect(pair.pollUntilIdle() == .idle)
  }

  /// More than a batch holds, with a budget that is larger.
  @Test func aLargeBudgetCutsAllOfIt() throws {
    let pair = try pair()
    let packet = Self.unfinished(TestPacket(payload: pattern(20_000, seed: 1)), 100)
    end.toGive = [packet]
    let all = try segments(packet)
    #expect(all.count == 200)
    #expect(try receive(pair, pageCount: 200, at: 200, budget: 1000).count == 200)
  }

  /// Without scatter-gather as well, as far as a segment fits a page.
  @Test func aGuestOfOnePageFramesGetsSegmentsThatFit() throws {
    let pair = try pair([])
    let packet = Self.unfinished(TestPacket(payload: pattern(3000, seed: 2)), 1000)
    end.toGive = [packet]
    #expect(try receive(pair, pageCount: 3) == segments(packet))
  }

  @Test func segmentsBeginBehindTheHeadroom() throws {
    let pair = try pair([StoreEntry("feature-sg", true), StoreEntry("xdp-headroom", 128)])
    let packet = Self.unfinished(TestPacket(payload: pattern(3000, seed: 2)), 1000)
    end.toGive = [packet]
    for id in 0..<6 as Range<UInt16> { frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id)])) }
    frontend.push()
    _ = pair.pollUntilIdle()
    let responses = try frontend.rxResponses()
    try #require(responses.count == 6)
    let parts = stride(from: 0, to: 6, by: 2).map { responses[$0] }
    #expect(parts.allSatisfy { $0.offset == 128 && $0.flags & NetIf.RxFlag.extraInfo != 0 })
    #expect(
      try parts.map { frontend.page(Int($0.id)).slice(from: 128, count: Int($0.status)).copied() } == segments(packet))
  }

  /// What is left of it when it has waited for too long is not taken for a part of the next one.
  @Test func aFrameThatExpiresHalfWayIsLeftAndTheNextOneIsWhole() throws {
    let pair = try pair()
    let first = Self.unfinished(TestPacket(payload: pattern(4000, seed: 1)), 1000)
    let second = Self.unfinished(TestPacket(payload: pattern(2500, seed: 2)), 1200)
    end.toGive = [first]
    for id in 0..<2 as Range<UInt16> { frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id)])) }
    frontend.push()
    _ = pair.pollUntilIdle(at: 1)
    #expect(try frontend.rxResponses().count == 2)
    _ = pair.pollUntilIdle(at: 12)
    end.toGive = [second]
    for id in 2..<5 as Range<UInt16> { frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id)])) }
    frontend.push()
    _ = pair.pollUntilIdle(at: 12)
    let responses = try frontend.rxResponses()
    #expect(
      try responses.map { frontend.page(Int($0.id)).slice(from: 0, count: Int($0.status)).copied() }
        == segments(second))
    #expect(statistics(pair).rx.drops == 1)
  }

  @Test func aSegmentThatCannotBeGivenFailsAlone() throws {
    let pair = try pair()
    let packet = Self.unfinished(TestPacket(payload: pattern(3000, seed: 1)), 1000)
    end.toGive = [packet]
    for id in 0..<3 as Range<UInt16> {
      frontend.put(
        NetIfRxRequest(id: id, gref: id == 1 ? GrantReference(rawValue: 4242) : frontend.references[Int(id)]))
    }
    frontend.push()
    _ = pair.pollUntilIdle()
    #expect(try frontend.rxResponses().map { $0.status < 0 } == [false, true, false])
    #expect(statistics(pair).rx.errors == 1)
  }

  /// An end that says so of what is no such packet loses it, and nothing else.
  @Test func whatCannotBeCutIsLostAndCounted() throws {
    let pair = try pair()
    let metadata = NetPacketMetadata(checksum: .blank, segmentation: .init(.tcpv4, payloadByteCount: 1000))
    let others = [frame(1, byteCount: 3000), TestPacket(transport: .udp, payload: pattern(3000, seed: 1)).bytes]
    end.toGive = others.map { .init($0, metadata) } + [.init(frame(2))]
    #expect(try receive(pair, pageCount: 1) == [frame(2)])
    #expect(statistics(pair).rx.errors == 2)
  }
}
