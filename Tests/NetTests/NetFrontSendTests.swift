import NetFront
import TestSupport
import Testing

/// N6, N7: what a card leaves to its backend, and what it finishes itself.
struct NetFrontSendTests {
  private let blank = NetPacketMetadata(checksum: .blank)

  private func pair(_ backend: ManyRingsNetBackend, features: NetFeatures = NetFeatures()) throws -> NetPair {
    let pair = try NetPair(features: features, backend: backend)
    pair.guest.sharedPageLimit = 4096
    #expect(pair.scheduler.run { pair.card.isConnected })
    return pair
  }

  private func large(_ network: NetHeaders.Network, _ byteCount: Int) -> TestPacket {
    TestPacket(network: network, payload: pattern(byteCount, seed: byteCount), checksumField: 0xABCD)
  }

  private func cut(_ kind: NetExtraInfo.SegmentKind, _ byteCount: UInt16 = 1448) -> NetPacketMetadata {
    NetPacketMetadata(
      checksum: .blank, segmentation: NetPacketMetadata.Segmentation(kind, payloadByteCount: byteCount))
  }

  /// What belongs into a blank field: the sum of the pseudo-header alone.
  private func withPseudoHeaderSum(_ packet: TestPacket) -> [UInt8] {
    var bytes = packet.bytes
    let addresses =
      packet.network == .ipv4
      ? packet.networkOffset + 12..<packet.networkOffset + 20 : packet.networkOffset + 8..<packet.networkOffset + 40
    let byteCount = bytes.count - packet.padding.count - packet.transportOffset
    let sum = ~naiveChecksum(
      Array(bytes[addresses]) + [0, packet.transport.rawValue] + big(UInt16(byteCount)))
    let field = packet.transportOffset + (packet.transport == .tcp ? 16 : 6)
    bytes.replaceSubrange(field..<field + 2, with: big(sum))
    return bytes
  }

  @Test(arguments: [NetHeaders.Network.ipv4, .ipv6], [1000, 4000, 20_000, 65_400])
  func frameToBeCutHasAnExtraInfoBehindItsFirstSlot(network: NetHeaders.Network, byteCount: Int) throws {
    let backend = ManyRingsNetBackend()
    let pair = try pair(backend)
    #expect(pair.card.offloads == .all && pair.card.maxSegmentedByteCount == 65535)
    let packet = large(network, byteCount)
    let frame = packet.bytes
    try pair.card.send(frame.span, cut(network == .ipv4 ? .tcpv4 : .tcpv6))
    pair.card.push()
    let slots = try backend.requests()
    #expect(slots.count == (frame.count + 4095) / 4096 + 1)
    #expect(slots[0].size == frame.count && slots[0].flags == (slots.count > 2 ? 15 : 11))
    let info = NetIfExtraInfo(slots[1])
    #expect(info.type == 1 && info.flags == 0 && info.words == (1448, network == .ipv4 ? 1 : 2, 0))
    #expect(slots.dropFirst(2).map(\.flags) == (2..<slots.count).map { $0 < slots.count - 1 ? 4 : 0 })
    #expect(backend.frame(slots) == withPseudoHeaderSum(packet))
    backend.answerAll(slots)
    pair.pollCard()
    #expect(pair.card.inFlightCount == 0 && pair.card.isConnected)
    #expect(pair.card.statistics.tx.packets == 1 && pair.card.statistics.tx.bytes == UInt64(frame.count))
  }

  @Test(
    arguments: [(NetHeaders.Network.ipv4, NetHeaders.Transport.tcp), (.ipv4, .udp), (.ipv6, .tcp), (.ipv6, .udp)],
    [true, false])
  func blankChecksumIsLeftToWhoTakesItAndElseFilledIn(
    kind: (network: NetHeaders.Network, transport: NetHeaders.Transport), isOffered: Bool
  ) throws {
    let (network, transport) = kind
    // The other protocol's the other way round, so that neither is taken for both.
    let backend = ManyRingsNetBackend(offered: [
      StoreEntry("feature-no-csum-offload", (network == .ipv4) != isOffered),
      StoreEntry("feature-ipv6-csum-offload", (network == .ipv6) == isOffered),
    ])
    let pair = try pair(backend)
    #expect(pair.card.offloads == ((network == .ipv4) == isOffered ? .ipv4Checksum : .ipv6Checksum))
    for payloadByteCount in [0, 1, 7, 1400] {
      var packet = TestPacket(network: network, transport: transport, tags: [0x8100], checksumField: 0x1234)
      packet.payload = pattern(payloadByteCount, seed: 3)
      if payloadByteCount < 10 { packet.padding = [9, 9, 9] }
      let frame = packet.bytes
      try pair.card.send(frame.span, blank)
      pair.card.push()
      let slots = try backend.requests()
      #expect(slots.map(\.flags) == [isOffered ? 3 : 0])
      #expect(backend.frame(slots) == (isOffered ? withPseudoHeaderSum(packet) : packet.whole))
      backend.answerAll(slots)
      pair.pollCard()
    }
  }

  /// The field may lie behind a page's end.
  @Test(arguments: [true, false])
  func checksumFarBehindTheStartIsWrittenInItsPage(isOffered: Bool) throws {
    let backend = ManyRingsNetBackend(offered: [StoreEntry("feature-ipv6-csum-offload", isOffered)])
    let pair = try NetPair(mtu: 9000, backend: backend)
    #expect(pair.scheduler.run { pair.card.isConnected })
    for extensionByteCount in [2048, 2046 * 2 - 2] {
      var packet = TestPacket(network: .ipv6, transport: .udp, payload: pattern(3000, seed: 1))
      // Destination options, of at most 2048 bytes each; their content does not matter.
      packet.firstExtension = 60
      let count = (4096 - 14 - 40 - 6) / 8 * 8
      packet.options = [60, 255] + pattern(2046, seed: 2)
      let rest = count - 2048 + (extensionByteCount == 2048 ? 0 : 8)
      packet.options += [17, UInt8(rest / 8 - 1)] + pattern(rest - 2, seed: 3)
      let frame = packet.bytes
      try pair.card.send(frame.span, blank)
      pair.card.push()
      let slots = try backend.requests()
      #expect(backend.frame(slots) == (isOffered ? withPseudoHeaderSum(packet) : packet.whole))
      backend.answerAll(slots)
      pair.pollCard()
    }
  }

  @Test func validatedChecksumIsSaid() throws {
    let backend = ManyRingsNetBackend()
    let pair = try pair(backend)
    for (checksum, flags) in [(.present, 0), (.validated, 2)] as [(NetPacketMetadata.Checksum, UInt16)] {
      let one = frame(1)
      try pair.card.send(one.span, NetPacketMetadata(checksum: checksum))
      pair.card.push()
      let slots = try backend.requests()
      #expect(slots.map(\.flags) == [flags] && backend.frame(slots) == one)
    }
  }

  private struct Refused: CustomTestStringConvertible {
    let testDescription: String
    let frame: [UInt8]
    let metadata: NetPacketMetadata
    let error: NetFrontError
  }

  private static let refused: [Refused] = {
    func metadata(_ kind: NetExtraInfo.SegmentKind, _ byteCount: UInt16) -> NetPacketMetadata {
      NetPacketMetadata(
        checksum: .blank, segmentation: NetPacketMetadata.Segmentation(kind, payloadByteCount: byteCount))
    }
    func refusal(_ kind: NetExtraInfo.SegmentKind, _ byteCount: UInt16) -> NetFrontError {
      .segmentation(NetPacketMetadata.Segmentation(kind, payloadByteCount: byteCount))
    }
    let tcp = TestPacket(payload: pattern(5000, seed: 1)).bytes
    let udp = TestPacket(transport: .udp, payload: pattern(500, seed: 1)).bytes
    var arp = frame(1)
    arp.replaceSubrange(12..<14, with: [0x08, 0x06])
    return [
      Refused(
        testDescription: "a blank checksum without a place", frame: arp, metadata: NetPacketMetadata(checksum: .blank),
        error: .unfinishable(.notIP(etherType: 0x0806))),
      Refused(
        testDescription: "half a packet", frame: Array(udp.prefix(100)), metadata: NetPacketMetadata(checksum: .blank),
        error: .unfinishable(.ipLength(byteCount: 528))),
      Refused(testDescription: "no payload", frame: tcp, metadata: metadata(.tcpv4, 0), error: refusal(.tcpv4, 0)),
      Refused(
        testDescription: "another protocol", frame: tcp, metadata: metadata(.tcpv6, 1448), error: refusal(.tcpv6, 1448)),
      Refused(testDescription: "UDP", frame: udp, metadata: metadata(.tcpv4, 100), error: refusal(.tcpv4, 100)),
      Refused(
        testDescription: "too long as it is", frame: tcp, metadata: NetPacketMetadata(checksum: .blank),
        error: .tooLong(byteCount: 5054, limit: 1518)),
      Refused(
        testDescription: "too long for anything", frame: tcp + [UInt8](repeating: 0, count: 61_000),
        metadata: metadata(.tcpv4, 1448), error: .tooLong(byteCount: 66_054, limit: 65_535)),
    ]
  }()

  @Test(arguments: NetFrontSendTests.refused)
  private func whatCannotBeFinishedIsRefusedAndLeavesNothing(_ refused: Refused) throws {
    let backend = ManyRingsNetBackend()
    let pair = try pair(backend)
    #expect(throws: refused.error) { try pair.card.send(refused.frame.span, refused.metadata) }
    pair.card.push()
    #expect(try backend.requests().isEmpty && pair.card.inFlightCount == 0)
  }

  @Test func offloadsAreThoseOfBothEnds() throws {
    let checksums: NetOffloads = [.ipv4Checksum, .ipv6Checksum]
    let table: [(ours: NetFeatures, theirs: [StoreEntry], agreed: NetOffloads)] = [
      (NetFeatures(), [], .ipv4Checksum), (NetFeatures(), ManyRingsNetBackend.everything, .all),
      (NetFeatures(), [StoreEntry("feature-no-csum-offload", true), StoreEntry("feature-gso-tcpv4", true)], []),
      (NetFeatures(), [StoreEntry("feature-gso-tcpv6", true)], .ipv4Checksum),
      (NetFeatures(scatterGather: false), ManyRingsNetBackend.everything, checksums),
      (NetFeatures(), ManyRingsNetBackend.everything + [StoreEntry("feature-sg", false)], checksums),
    ]
    for (ours, theirs, agreed) in table {
      let backend = ManyRingsNetBackend(offered: theirs)
      let pair = try pair(backend, features: ours)
      #expect(pair.card.offloads == agreed, "\(theirs)")
      #expect(pair.card.maxSegmentedByteCount == 65535)
    }
  }

  /// What the backend does not cut arrives as if it had.
  @Test(
    arguments: [NetHeaders.Network.ipv4, .ipv6], [(1, 100), (1000, 5000), (1428, 65_400), (260, 65_400), (1400, 1400)])
  func frameThatTheBackendDoesNotCutIsCutHere(
    network: NetHeaders.Network, sizes: (segment: UInt16, payload: Int)
  ) throws {
    let backend = ManyRingsNetBackend(offered: [StoreEntry("multi-queue-max-queues", 2)])
    let pair = try pair(backend, features: NetFeatures(maxQueueCount: 2))
    let packet = large(network, sizes.payload)
    let (frame, kind) = (packet.bytes, network == .ipv4 ? NetExtraInfo.SegmentKind.tcpv4 : .tcpv6)
    let segmenter = try NetSegmenter(
      frame.span, NetPacketMetadata.Segmentation(kind, payloadByteCount: sizes.segment))
    let expected = (0..<segmenter.frameCount).map { index in
      var one = [UInt8](repeating: 0, count: segmenter.byteCount(of: index))
      var span = one.mutableSpan
      segmenter.write(index, of: frame.span, to: &span)
      return one
    }
    for _ in 0..<3 {
      try pair.card.send(frame.span, cut(kind, sizes.segment))
      pair.card.push()
      let slots = try (0..<2).map { try backend.requests(queue: $0) }
      #expect(slots.filter(\.isEmpty).count == 1 && slots.joined().allSatisfy { $0.flags == 0 })
      #expect(slots.joined().map { backend.frame([$0]) } == expected)
      for queue in 0..<2 { backend.answerAll(queue: queue, slots[queue]) }
      pair.pollCard()
    }
    #expect(pair.card.statistics.tx.packets == UInt64(3 * expected.count) && pair.card.inFlightCount == 0)
  }

  @Test func allSegmentsHaveRoomOrNoneIsSent() throws {
    let backend = ManyRingsNetBackend(offered: [])
    let pair = try pair(backend)
    let (packet, one) = (large(.ipv4, 50_000).bytes, frame(1))
    #expect(throws: NetFrontError.tooManySegments(count: 500, limit: 256)) {
      try pair.card.send(packet.span, cut(.tcpv4, 100))
    }
    #expect(throws: NetFrontError.tooLong(byteCount: 1554, limit: 1518)) {
      try pair.card.send(packet.span, cut(.tcpv4, 1500))
    }
    #expect(throws: NetFrontError.unsegmentable(.otherPacket(.tcpv6))) {
      try pair.card.send(packet.span, cut(.tcpv6, 1000))
    }
    for _ in 0..<206 { try pair.card.send(one.span) }
    try pair.card.send(packet.span, cut(.tcpv4, 1000))
    #expect(pair.card.inFlightCount == 256)
    pair.card.push()
    backend.answerAll(try backend.requests())
    pair.pollCard()
    for _ in 0..<207 { try pair.card.send(one.span) }
    #expect(throws: NetFrontError.busy) { try pair.card.send(packet.span, cut(.tcpv4, 1000)) }
    #expect(pair.card.inFlightCount == 207)
  }

  /// What we take is said whatever the backend offers; segments only with what they need.
  @Test func whatTheCardTakesIsInItsKeys() throws {
    let table: [(NetFeatures, [String])] = [
      (NetFeatures(), ["0", "1", "1", "1"]), (NetFeatures(scatterGather: false), ["0", "1", "0", "0"]),
    ]
    func keys(_ features: NetFeatures) throws -> [String?] {
      let pair = try pair(ManyRingsNetBackend(offered: []), features: features)
      let own = pair.rig.directory(pair.device.frontendPath)
      return try [
        own.optionalString("feature-no-csum-offload"), own.optionalString("feature-ipv6-csum-offload"),
        own.optionalString("feature-gso-tcpv4"), own.optionalString("feature-gso-tcpv6"),
      ]
    }
    for (features, expected) in table { #expect(try keys(features) == expected) }
    var none = NetFeatures()
    none.offloads = []
    #expect(try keys(none) == ["1", "0", "0", "0"])
    none.offloads = [.tcpv4Segmentation, .ipv6Checksum, .tcpv6Segmentation]
    #expect(try keys(none) == ["1", "1", "0", "1"])
  }

  @Test func negotiationNamesEachOffload() throws {
    let pair = try pair(ManyRingsNetBackend(offered: [StoreEntry("feature-gso-tcpv6", true)]))
    let lines = Dictionary(uniqueKeysWithValues: pair.card.negotiation.lines.map { ($0.feature, $0) })
    #expect(lines["ipv4 checksum offload"]?.agreed == "on")
    #expect(lines["feature-ipv6-csum-offload"]?.reason == "the backend does not offer it")
    #expect(lines["feature-gso-tcpv4"]?.reason == "the backend does not offer it")
    #expect(lines["feature-gso-tcpv6"]?.agreed == "off")
    #expect(lines["feature-gso-tcpv6"]?.reason == "it needs feature-sg and the checksum offload of its protocol")
  }

  /// Extra infos have slots and no pages: slots run out first.
  @Test func slotsOfExtraInfosAreCounted() throws {
    let backend = ManyRingsNetBackend()
    let pair = try pair(backend)
    let packet = large(.ipv4, 1000).bytes
    for _ in 0..<10 {
      for _ in 0..<128 { try pair.card.send(packet.span, cut(.tcpv4, 500)) }
      #expect(!pair.card.hasRoom(for: packet.count) && pair.card.waitsForSlots)
      #expect(throws: NetFrontError.busy) { try pair.card.send(packet.span, cut(.tcpv4, 500)) }
      #expect(throws: NetFrontError.busy) { try pair.card.send(packet.span) }
      pair.card.push()
      let slots = try backend.requests()
      #expect(slots.count == 256)
      backend.answerAll(slots)
      pair.pollCard()
      #expect(pair.card.inFlightCount == 0)
    }
    // One slot left is enough for a frame as it is, and not for one to be cut.
    for _ in 0..<127 { try pair.card.send(packet.span, cut(.tcpv4, 500)) }
    try pair.card.send(packet.span)
    #expect(pair.card.hasRoom(for: packet.count) && !pair.card.hasRoom(for: packet.count, isSegmented: true))
    #expect(throws: NetFrontError.busy) { try pair.card.send(packet.span, cut(.tcpv4, 500)) }
    try pair.card.send(packet.span)
    pair.card.push()
    #expect(try backend.requests().count == 256)
  }
}
