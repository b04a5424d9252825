import NetFront
import TestSupport
import Testing

/// N6 to N8: what comes with a frame, and what a backend can do wrong with it.
struct NetFrontExtraInfoTests {
  private let backend = ManyRingsNetBackend()

  private func pair(features: NetFeatures = NetFeatures()) throws -> NetPair {
    let pair = try NetPair(features: features, backend: backend)
    #expect(pair.scheduler.run { pair.card.isConnected })
    return pair
  }

  /// One slot of a frame that arrives.
  private enum Slot {
    case data(Int, UInt16 = 0)
    case extra(UInt8, UInt16, UInt16, UInt16, more: Bool = false)

    static let more = NetIf.RxFlag.moreData
    static let infos = NetIf.RxFlag.extraInfo
    static let blank = NetIf.RxFlag.checksumBlank
    static let validated = NetIf.RxFlag.dataValidated
  }

  private func arrive(_ slots: [Slot]) throws {
    for slot in slots {
      switch slot {
      case .data(let byteCount, let flags):
        try backend.fill(byteCount > 0 ? pattern(byteCount, seed: 7) : [], flags: flags, status: byteCount)
      case .extra(let type, let first, let second, let third, let more):
        try backend.fill(NetIfExtraInfo(type: type, flags: more ? 1 : 0, words: (first, second, third)))
      }
    }
  }

  private struct Arrival: CustomTestStringConvertible {
    let testDescription: String
    let slots: [Slot]
    /// Nil when the frame is lost.
    var metadata: NetPacketMetadata?
    var byteCount = 64
    var fixups: UInt64 = 0
  }

  private static let v4 = NetPacketMetadata.Segmentation(.tcpv4, payloadByteCount: 1448)
  private static let hash = NetPacketMetadata.Hash(.ipv4TCP, value: 0x8765_4321)

  private static let arrivals: [Arrival] = [
    Arrival(testDescription: "nothing", slots: [.data(64)], metadata: NetPacketMetadata()),
    Arrival(
      testDescription: "validated", slots: [.data(64, Slot.validated)],
      metadata: NetPacketMetadata(checksum: .validated)),
    Arrival(
      testDescription: "blank", slots: [.data(64, Slot.blank)], metadata: NetPacketMetadata(checksum: .blank)),
    Arrival(
      testDescription: "blank and validated", slots: [.data(64, Slot.blank | Slot.validated)],
      metadata: NetPacketMetadata(checksum: .blank)),
    Arrival(
      testDescription: "GSO", slots: [.data(64, Slot.infos | Slot.blank), .extra(1, 1448, 1, 0)],
      metadata: NetPacketMetadata(checksum: .blank, segmentation: v4)),
    Arrival(
      testDescription: "GSO of IPv6",
      slots: [
        .data(4096, Slot.infos | Slot.blank | Slot.more), .extra(1, 1000, 2, 0), .data(4096, Slot.more), .data(8),
      ],
      metadata: NetPacketMetadata(
        checksum: .blank, segmentation: NetPacketMetadata.Segmentation(.tcpv6, payloadByteCount: 1000)),
      byteCount: 8200),
    Arrival(
      testDescription: "GSO without a blank checksum", slots: [.data(64, Slot.infos), .extra(1, 1448, 1, 0)],
      metadata: NetPacketMetadata(checksum: .blank, segmentation: v4), fixups: 1),
    Arrival(
      testDescription: "GSO that is said to be validated",
      slots: [.data(64, Slot.infos | Slot.validated), .extra(1, 1448, 1, 0)],
      metadata: NetPacketMetadata(checksum: .blank, segmentation: v4), fixups: 1),
    Arrival(
      testDescription: "a hash", slots: [.data(64, Slot.infos), .extra(4, 0x0101, 0x4321, 0x8765)],
      metadata: NetPacketMetadata(checksum: .present, hash: hash)),
    Arrival(
      testDescription: "GSO and a hash",
      slots: [
        .data(64, Slot.infos | Slot.blank), .extra(1, 1448, 1, 0, more: true), .extra(4, 0x0101, 0x4321, 0x8765),
      ], metadata: NetPacketMetadata(checksum: .blank, segmentation: v4, hash: hash)),
    Arrival(
      testDescription: "flags of a further slot say nothing",
      slots: [.data(64, Slot.more), .data(64, Slot.infos | Slot.blank)], metadata: NetPacketMetadata(), byteCount: 128),
    // What is wrong costs the frame, and nothing else.
    Arrival(testDescription: "GSO of size 0", slots: [.data(64, Slot.infos | Slot.blank), .extra(1, 0, 1, 0)]),
    Arrival(testDescription: "GSO of type 0", slots: [.data(64, Slot.infos | Slot.blank), .extra(1, 1448, 0, 0)]),
    Arrival(testDescription: "GSO of type 3", slots: [.data(64, Slot.infos | Slot.blank), .extra(1, 1448, 3, 0)]),
    Arrival(testDescription: "GSO with features", slots: [.data(64, Slot.infos | Slot.blank), .extra(1, 1448, 1, 1)]),
    Arrival(testDescription: "an unknown type", slots: [.data(64, Slot.infos), .extra(6, 1, 1, 1)]),
    Arrival(testDescription: "type 0", slots: [.data(64, Slot.infos), .extra(0, 0, 0, 0)]),
    Arrival(testDescription: "a group to be added", slots: [.data(64, Slot.infos), .extra(2, 0x0001, 0x005E, 0x0100)]),
    Arrival(testDescription: "a hash of another algorithm", slots: [.data(64, Slot.infos), .extra(4, 0x0201, 1, 2)]),
    Arrival(testDescription: "headroom that nobody asked for", slots: [.data(64, Slot.infos), .extra(5, 16, 0, 0)]),
    Arrival(
      testDescription: "GSO twice",
      slots: [
        .data(64, Slot.infos | Slot.blank | Slot.more), .extra(1, 1448, 1, 0, more: true), .extra(1, 1448, 1, 0),
        .data(100),
      ]),
    Arrival(
      testDescription: "a failed first slot with infos",
      slots: [.data(-1, Slot.infos | Slot.blank | Slot.more), .extra(1, 1448, 1, 0), .data(100)]),
    Arrival(testDescription: "less than a header", slots: [.data(13, Slot.infos | Slot.blank), .extra(1, 1448, 1, 0)]),
    Arrival(
      testDescription: "five infos, the last one unknown",
      slots: [
        .data(64, Slot.infos), .extra(1, 1448, 1, 0, more: true), .extra(4, 0x0101, 1, 2, more: true),
        .extra(5, 0, 0, 0, more: true), .extra(9, 0, 0, 0, more: true), .extra(7, 0, 0, 0),
      ]),
  ]

  @Test(arguments: NetFrontExtraInfoTests.arrivals, [0, 250])
  private func whatComesWithAFrameIsKnownOrCostsItsFrame(_ arrival: Arrival, before count: Int) throws {
    let pair = try pair()
    // So that the frame goes round the ring.
    for _ in 0..<count { try arrive([.data(60)]) }
    pair.pollCard()
    let pageCount = try backend.pages().count
    #expect(pageCount == 256)
    var arrived: [(NetPacketMetadata, [UInt8])] = []
    for slot in arrival.slots {
      #expect(arrived.isEmpty)
      try arrive([slot])
      pair.card.poll { arrived.append(($0.metadata, $0.copied())) }
    }
    let statistics = pair.card.statistics
    if let metadata = arrival.metadata {
      #expect(arrived.map(\.0) == [metadata] && arrived.map(\.1.count) == [arrival.byteCount])
      #expect(statistics.rx.errors == 0)
    } else {
      #expect(arrived.isEmpty && statistics.rx.errors == 1)
    }
    #expect(statistics.rxGSOChecksumFixups == arrival.fixups)
    // The next frame is one, and knows nothing of the one before; all pages are back.
    try arrive([.data(100)])
    var next: [NetPacketMetadata] = []
    pair.card.poll { next.append($0.metadata) }
    #expect(next == [NetPacketMetadata()] && pair.card.isConnected)
    #expect(try Set(backend.pages().map(\.gref)).count == 256)
  }

  /// Its next slot is the rest of it, whenever that comes.
  @Test(arguments: [Slot.more, Slot.infos, Slot.more | Slot.infos])
  func frameWithNothingBehindItWaits(flags: UInt16) throws {
    let pair = try pair()
    try arrive([.data(64, flags)])
    for _ in 0..<10 { pair.pollCard() }
    #expect(pair.received.isEmpty && pair.card.isConnected && pair.card.statistics.rx.errors == 0)
    // What is sent meanwhile goes.
    let one = frame(1)
    try pair.card.send(one.span)
    pair.card.push()
    backend.answerAll(try backend.requests())
    pair.pollCard()
    #expect(pair.card.statistics.tx.packets == 1)
    if flags & Slot.infos != 0 { try arrive([.extra(1, 1448, 1, 0)]) }
    if flags & Slot.more != 0 { try arrive([.data(64)]) }
    pair.pollCard()
    #expect(pair.received.map(\.count) == [flags & Slot.more != 0 ? 128 : 64])
  }

  private func refusal(_ pair: NetPair) throws -> String? {
    let refused = try pair.scheduler.run {
      pair.pollCard()
      return try !pair.card.isConnected && pair.frontendError != nil
    }
    #expect(refused && pair.received.isEmpty)
    let error = try pair.frontendError
    #expect(pair.scheduler.run { pair.holdsNothing }, "\(pair.loopback.grantCounts) \(pair.loopback.openPortCount)")
    return error
  }

  @Test func extraInfosThatNeverEndCloseTheCard() throws {
    let pair = try pair()
    try arrive([.data(64, Slot.infos)] + Array(repeating: .extra(1, 1448, 1, 0, more: true), count: 5))
    pair.pollCard()
    #expect(pair.card.isConnected)
    try arrive([.extra(1, 1448, 1, 0, more: true)])
    #expect(try refusal(pair) == "22 the backend gave a frame with more than 5 extra infos")
  }

  /// Whoever has said that there is no use for any gets none.
  @Test func extraInfosThatNobodyTakesCloseTheCard() throws {
    var features = NetFeatures()
    (features.offloads, features.controlRing) = ([.ipv4Checksum, .ipv6Checksum], false)
    let pair = try pair(features: features)
    try arrive([.data(64, Slot.infos)])
    #expect(try refusal(pair)?.contains("extra information, never agreed on") == true)
  }

  @Test func offloadsThatNobodyTakesCostTheirFrame() throws {
    var features = NetFeatures()
    features.offloads = [.ipv4Checksum, .tcpv4Segmentation]
    let pair = try pair(features: features)
    try arrive([.data(64, Slot.infos | Slot.blank), .extra(1, 1448, 2, 0), .data(64, Slot.blank)])
    pair.pollCard()
    #expect(pair.received.count == 1 && pair.card.statistics.rx.errors == 1)
    features.offloads = []
    let other = ManyRingsNetBackend()
    let plain = try NetPair(features: features, backend: other)
    #expect(plain.scheduler.run { plain.card.isConnected })
    try other.fill(pattern(64, seed: 1), flags: Slot.blank)
    plain.pollCard()
    #expect(plain.received.isEmpty && plain.card.statistics.rx.errors == 1 && plain.card.isConnected)
  }

  // MARK: Answers to extra infos

  private func sendCut(_ pair: NetPair) throws {
    let packet = TestPacket(payload: pattern(1000, seed: 1)).bytes
    try pair.card.send(packet.span, NetPacketMetadata(checksum: .blank, segmentation: Self.v4))
    pair.card.push()
  }

  @Test(arguments: [0, 1, 7])
  func moreAnswersToExtraInfosThanThereAreCloseTheCard(count: Int) throws {
    let pair = try pair()
    for _ in 0..<count { try sendCut(pair) }
    let one = frame(1)
    try pair.card.send(one.span)
    pair.card.push()
    let slots = try backend.requests()
    for _ in 0..<count { backend.answer(NetIfTxResponse(id: slots[0].id, status: NetIf.Status.null)) }
    pair.pollCard()
    #expect(pair.card.isConnected && pair.card.inFlightCount == count + 1)
    // In the place of an answer to a packet.
    backend.answer(NetIfTxResponse(id: slots[0].id, status: NetIf.Status.null))
    #expect(try refusal(pair) == "22 the backend answered more tx extra infos than there are in flight")
    #expect(pair.card.statistics.tx.drops == UInt64(count + 1))
  }

  private struct Answer: CustomTestStringConvertible {
    let testDescription: String
    let responses: [NetIfTxResponse]
    let reason: String
  }

  private static let answers: [Answer] = [
    Answer(
      testDescription: "twice", responses: [NetIfTxResponse(id: 0, status: 0), NetIfTxResponse(id: 0, status: 0)],
      reason: "tx request 0, which is not in flight"),
    Answer(
      testDescription: "never put", responses: [NetIfTxResponse(id: 1, status: 0)],
      reason: "tx request 1, which is not in flight"),
    Answer(
      testDescription: "out of range", responses: [NetIfTxResponse(id: 256, status: 0)],
      reason: "tx request 256, which is not in flight"),
    Answer(
      testDescription: "far out of range", responses: [NetIfTxResponse(id: 0xFFFF, status: -1)],
      reason: "tx request 65535, which is not in flight"),
    Answer(
      testDescription: "unknown status", responses: [NetIfTxResponse(id: 0, status: 2)],
      reason: "tx request 0 with status 2, which means nothing"),
    Answer(
      testDescription: "an extra info as a packet",
      responses: Array(repeating: NetIfTxResponse(id: 0, status: 0), count: 2),
      reason: "tx request 0, which is not in flight"),
  ]

  @Test(arguments: NetFrontExtraInfoTests.answers)
  private func answerThatFitsNothingClosesTheCard(_ answer: Answer) throws {
    let pair = try pair()
    try sendCut(pair)
    #expect(try backend.requests().map(\.id).first == 0)
    for response in answer.responses { backend.answer(response) }
    #expect(try refusal(pair) == "22 the backend answered \(answer.reason)")
  }
}
