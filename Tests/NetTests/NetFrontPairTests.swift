import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// N4 to N8, N11, N12: both of our ends together.
struct NetFrontPairTests {
  /// Sends every frame back as it came, with what came with it.
  private final class UnfinishedEcho: NetworkEnd {
    let offloads: NetOffloads
    init(_ offloads: NetOffloads) { self.offloads = offloads }

    func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
      for index in frames.indices { guest.put(frames[index]) }
    }
  }

  private func pair(
    _ end: any NetworkEnd, queueCount: Int = 1, seed: Seed = 1, trusted: String = "1"
  ) throws -> NetPair {
    let features = NetFeatures(maxQueueCount: queueCount)
    let pair = try NetPair(
      seed: seed, frontendKeys: ["trusted": trusted], features: features, backendFeatures: features, end: end)
    pair.guest.sharedPageLimit = 8192
    try pair.connect()
    return pair
  }

  private func packet(_ number: Int, _ byteCount: Int) -> TestPacket {
    var packet = TestPacket(network: number % 2 == 0 ? .ipv4 : .ipv6, payload: pattern(byteCount, seed: number))
    packet.ports = (UInt16(2000 + number), 80)
    return packet
  }

  private func metadata(_ number: Int) -> NetPacketMetadata {
    NetPacketMetadata(
      checksum: .blank,
      segmentation: NetPacketMetadata.Segmentation(number % 2 == 0 ? .tcpv4 : .tcpv6, payloadByteCount: 1400))
  }

  /// The packet without its checksum, which is left to whoever finishes it.
  private func withoutChecksum(_ packet: TestPacket, _ bytes: [UInt8]) -> [UInt8] {
    var bytes = bytes
    bytes.replaceSubrange(packet.transportOffset + 16..<packet.transportOffset + 18, with: [0, 0])
    return bytes
  }

  @Test(arguments: seeds(1...20, of: NetFrontPairTests.self), [1, 3])
  func packetsToBeCutCrossWhole(seed: Seed, queueCount: Int) throws {
    let pair = try pair(
      UnfinishedEcho(.all), queueCount: queueCount, seed: seed, trusted: seed.modulo(2) == 0 ? "0" : "1")
    #expect(pair.card.offloads == .all && pair.card.queueStatistics.count == queueCount)
    let sizes = [100, 1400, 5000, 20_000, 65_000]
    let packets = (0..<60).map { packet($0, sizes[$0 % sizes.count]) }
    var (next, arrived) = (0, [Int: NetPacketMetadata]())
    let done = try pair.scheduler.run(turns: 50_000) {
      while next < packets.count, next - arrived.count < 6, !pair.card.waitsForSlots {
        let bytes = packets[next].bytes
        try pair.card.send(bytes.span, metadata(next))
        next += 1
      }
      pair.card.push()
      pair.card.poll { frame in
        let bytes = frame.copied()
        let number = packets.firstIndex { withoutChecksum($0, bytes) == withoutChecksum($0, $0.bytes) }
        if let number { arrived[number] = frame.metadata }
      }
      return arrived.count == packets.count
    }
    #expect(done, "\(arrived.count) of \(next)")
    for (number, found) in arrived { #expect(found == metadata(number)) }
    let statistics = pair.card.statistics
    #expect(statistics.tx.packets == 60 && statistics.rx.packets == 60 && statistics.rxGSOChecksumFixups == 0)
    #expect(statistics.tx.bytes == packets.reduce(0) { $0 + UInt64($1.bytes.count) })
    #expect(statistics.txSegmented == 60 && statistics.rxSegmented == 60)
    if queueCount > 1 { #expect(pair.card.queueStatistics.allSatisfy { $0.tx.packets > 0 && $0.rx.packets > 0 }) }
  }

  /// An end that takes nothing unfinished sees whole frames; who cuts them is nobody's business.
  @Test(arguments: [[], [.ipv4Checksum], [.ipv4Checksum, .ipv6Checksum, .tcpv4Segmentation]] as [NetOffloads])
  func packetsArriveFinishedWhereNobodyTakesThemUnfinished(offloads: NetOffloads) throws {
    let end = NotingEnd(offloads: offloads)
    let pair = try pair(end, queueCount: 2)
    #expect(pair.card.offloads == offloads)
    for number in 0..<4 {
      let packet = packet(number, 20_000)
      let bytes = packet.bytes
      try pair.card.send(bytes.span, metadata(number))
      pair.card.push()
      let isWhole = number % 2 == 0 && offloads.contains(.tcpv4Segmentation)
      let before = end.taken.count
      #expect(pair.scheduler.run { end.taken.count == before + (isWhole ? 1 : 15) })
      let arrived = end.taken[before...]
      if isWhole {
        #expect(arrived.first?.metadata == metadata(number))
        #expect(withoutChecksum(packet, arrived.first!.bytes) == withoutChecksum(packet, bytes))
      } else {
        let segmenter = try NetSegmenter(bytes.span, metadata(number).segmentation!)
        let segments = (0..<15).map { index in
          var one = [UInt8](repeating: 0, count: segmenter.byteCount(of: index))
          var span = one.mutableSpan
          segmenter.write(index, of: bytes.span, to: &span)
          return one
        }
        #expect(arrived.map(\.bytes) == segments)
      }
    }
  }

  private static let groups = (0..<4).map { MACAddress([0x01, 0, 0x5E, 0, 0, UInt8($0)]) }

  private func frame(to receiver: MACAddress) -> [UInt8] {
    receiver.bytes.indices.map { receiver.bytes[$0] } + pattern(60, seed: 1)
  }

  @Test func onlyGroupsThatAreJoinedArriveWhereThatIsAskedFor() throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    func arriving() -> [Int] {
      for group in Self.groups { end.send(frame(to: group).span) }
      end.send(frame(to: MACAddress(InlineArray(repeating: 0xFF))).span)
      let before = pair.received.count
      _ = pair.scheduler.run(turns: 100) {
        pair.pollCard()
        return false
      }
      return pair.received[before...].map { $0[0] == 0xFF ? 99 : Int($0[5]) }
    }
    #expect(arriving() == [0, 1, 2, 3, 99])
    try pair.card.join(Self.groups[2])
    #expect(pair.card.setMulticastFilter(true))
    _ = pair.scheduler.run(turns: 100) { false }
    #expect(arriving() == [2, 99])
    try pair.card.join(Self.groups[0])
    try pair.card.leave(Self.groups[2])
    _ = pair.scheduler.run(turns: 100) { false }
    #expect(arriving() == [0, 99] && pair.card.refusedGroups.isEmpty)
    pair.card.setMulticastFilter(false)
    _ = pair.scheduler.run(turns: 100) { false }
    #expect(arriving() == [0, 1, 2, 3, 99])
  }

  @Test(arguments: seeds(1...10, of: NetFrontPairTests.self))
  func roomBeforeFramesFollowsTheCard(seed: Seed) throws {
    let pair = try pair(UnfinishedEcho(.all), queueCount: 2, seed: seed)
    for byteCount in [256, 0, 100] {
      try pair.card.setHeadroom(byteCount)
      let settled = try pair.scheduler.run {
        try pair.card.headroomByteCount == byteCount && pair.frontendState == .connected
          && pair.backendState == .connected
      }
      #expect(settled, "\(pair.frontBus.report)")
      let packet = packet(byteCount, 10_000)
      let bytes = packet.bytes
      try pair.card.send(bytes.span, metadata(byteCount))
      pair.card.push()
      var arrived: [(room: Int, bytes: [UInt8])] = []
      let done = pair.scheduler.run {
        pair.card.poll { arrived.append(($0.headroomByteCount, $0.copied())) }
        return !arrived.isEmpty
      }
      #expect(done && arrived.map(\.room) == [byteCount])
      #expect(withoutChecksum(packet, arrived[0].bytes) == withoutChecksum(packet, bytes))
    }
  }
}
