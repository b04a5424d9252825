import NetBack
import TestSupport
import Testing

/// What packets carry besides their bytes, on a backend's side: what a guest sends unfinished, and what its end does.
struct NetBackOffloadTests {
  private final class Closed { var statistics = NetStatistics() }

  private let frontend = RawNetFrontend()
  private let closed = Closed()

  private static let takesAll = [
    StoreEntry("feature-sg", true), StoreEntry("feature-ipv6-csum-offload", true),
    StoreEntry("feature-gso-tcpv4", true), StoreEntry("feature-gso-tcpv6", true),
  ]

  private func pair(
    _ end: NotingEnd, keys: [StoreEntry] = takesAll, features: NetFeatures = NetFeatures()
  ) throws -> HandPolledPair {
    frontend.keys = keys
    return try HandPolledPair(
      frontend: frontend,
      backend: NetBackDriver(features: features, whenClosed: { [closed] in closed.statistics = $1.total }) { _ in end })
  }

  /// Puts a frame into the frontend's pages from `page` on, and asks for it to be sent; `infos` come behind the first slot.
  private func send(_ frame: [UInt8], flags: UInt16 = 0, infos: [NetIfExtraInfo] = [], page first: Int = 0) {
    let parts = stride(from: 0, to: frame.count, by: xenPageSize).map {
      Array(frame[$0..<min($0 + xenPageSize, frame.count)])
    }
    for (number, part) in parts.enumerated() {
      let page = first + number
      frontend.page(page).slice(from: 0, count: part.count).copy(from: part.span)
      var slotFlags = number < parts.count - 1 ? NetIf.TxFlag.moreData : 0
      if number == 0 { slotFlags |= flags | (infos.isEmpty ? 0 : NetIf.TxFlag.extraInfo) }
      frontend.put(
        NetIfTxRequest(
          gref: frontend.references[page], flags: slotFlags, id: UInt16(page),
          size: UInt16(number == 0 ? frame.count : part.count)))
      if number == 0 { for info in infos { frontend.put(info.transmitSlot) } }
    }
  }

  private func segmentation(_ kind: NetExtraInfo.SegmentKind, _ payload: UInt16 = 1000) -> NetIfExtraInfo {
    NetIfExtraInfo(.segmentation(kind, payloadByteCount: payload))
  }

  private func txAnswers(_ pair: HandPolledPair) throws -> [String] {
    frontend.push()
    _ = pair.pollUntilIdle()
    return try frontend.txResponses().map { $0.status == NetIf.Status.null ? "null" : "\($0.id):\($0.status)" }
  }

  private func post(_ ids: Range<UInt16>) {
    for id in ids { frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id)])) }
    frontend.push()
  }

  private func bytes(_ response: NetIfRxResponse) -> [UInt8] {
    frontend.page(Int(response.id)).slice(from: Int(response.offset), count: Int(response.status)).copied()
  }

  private func statistics(_ pair: HandPolledPair) -> NetStatistics {
    pair.backBus.close()
    for _ in 0..<20 {
      pair.frontBus.poll()
      pair.backBus.poll()
    }
    return closed.statistics
  }

  private let long = TestPacket(payload: pattern(9000, seed: 1))
  private let long6 = TestPacket(network: .ipv6, payload: pattern(5000, seed: 2))

  // MARK: What the guest sends

  @Test func aPacketToBeCutReachesAnEndThatTakesIt() throws {
    let end = NotingEnd(offloads: .all)
    let pair = try pair(end)
    send(long.bytes, flags: NetIf.TxFlag.checksumBlank, infos: [segmentation(.tcpv4, 1448)])
    send(long6.bytes, flags: NetIf.TxFlag.checksumBlank, infos: [segmentation(.tcpv6, 1428)], page: 4)
    #expect(try txAnswers(pair) == ["0:0", "null", "1:0", "2:0", "4:0", "null", "5:0"])
    #expect(
      end.taken == [
        .init(long.bytes, .init(checksum: .blank, segmentation: .init(.tcpv4, payloadByteCount: 1448))),
        .init(long6.bytes, .init(checksum: .blank, segmentation: .init(.tcpv6, payloadByteCount: 1428))),
      ])
    let statistics = statistics(pair)
    #expect(statistics.txSegmented == 2 && statistics.txGSOChecksumFixups == 0 && statistics.txChecksumsFilled == 0)
  }

  /// As Linux's backend does it, whose counter has that name.
  @Test func aPacketToBeCutWithoutABlankChecksumIsFixedUpAndCounted() throws {
    let end = NotingEnd(offloads: .all)
    let pair = try pair(end)
    send(long.whole, flags: NetIf.TxFlag.dataValidated, infos: [segmentation(.tcpv4)])
    #expect(try txAnswers(pair) == ["0:0", "null", "1:0", "2:0"])
    #expect(end.taken.map(\.metadata.checksum) == [.blank])
    #expect(statistics(pair).txGSOChecksumFixups == 1)
  }

  /// Each answer is in the slot of its request, also when packets before and behind are refused.
  @Test func extraInfosAreAnsweredInTheOrderOfTheRing() throws {
    let end = NotingEnd(offloads: .all)
    let pair = try pair(end)
    let unknown = NetIfExtraInfo(type: 9, words: (0, 0, 0))
    var following = segmentation(.tcpv4)
    following.flags = NetIf.extraFlagMore
    send(frame(1), infos: [unknown], page: 0)
    send(long.bytes, flags: NetIf.TxFlag.checksumBlank, infos: [following, unknown], page: 1)
    send(frame(2), page: 4)
    send(
      long.bytes, flags: NetIf.TxFlag.checksumBlank,
      infos: [following, NetIfExtraInfo(.headroom(byteCount: 64))], page: 5)
    #expect(
      try txAnswers(pair) == [
        "0:-1", "null", "1:-1", "null", "null", "2:-1", "3:-1", "4:0", "5:0", "null", "null", "6:0", "7:0",
      ])
    #expect(end.taken.map(\.bytes) == [frame(2), long.bytes])
  }

  @Test func aPacketIsCutAsWhatItIsOrNotAtAll() throws {
    let end = NotingEnd(offloads: .all)
    let pair = try pair(end)
    let datagram = TestPacket(transport: .udp, payload: pattern(3000, seed: 3))
    var fragment = long.bytes
    fragment[20] = 0x20
    for (frame, kind) in [
      (long.bytes, NetExtraInfo.SegmentKind.tcpv6), (long6.bytes, .tcpv4), (datagram.bytes, .tcpv4),
      (fragment, .tcpv4), (frame(1), .tcpv4),
    ] {
      send(frame, flags: NetIf.TxFlag.checksumBlank, infos: [segmentation(kind)])
      let answers = try txAnswers(pair)
      #expect(answers.first == "0:-1" && answers.allSatisfy { $0 == "null" || $0.hasSuffix(":-1") }, "\(answers)")
    }
    #expect(end.taken.isEmpty)
    #expect(statistics(pair).tx.errors == 5)
  }

  @Test func aPacketToBeCutThatWasNotOfferedIsRefusedAlone() throws {
    let end = NotingEnd(offloads: [.ipv4Checksum, .tcpv6Segmentation])
    let pair = try pair(end)
    send(long.bytes, flags: NetIf.TxFlag.checksumBlank, infos: [segmentation(.tcpv4)])
    send(frame(1), page: 4)
    #expect(try txAnswers(pair) == ["0:-1", "null", "1:-1", "2:-1", "4:0"])
    pair.backBus.poll()
    #expect(
      try pair.rig.error(of: pair.rig.driverDomain, "/local/domain/2/backend/vif/1/0")?.contains("not agreed on")
        == true)
  }

  /// What it does not take is finished, and its sum is known to be right.
  @Test(arguments: [[], [.ipv4Checksum], [.ipv6Checksum], [.ipv4Checksum, .ipv6Checksum]] as [NetOffloads])
  func anEndSeesNoBlankChecksumsThatItDoesNotTake(offloads: NetOffloads) throws {
    let end = NotingEnd(offloads: offloads)
    let pair = try pair(end)
    let packets = [
      TestPacket(payload: [1, 2, 3], checksumField: 7),
      TestPacket(network: .ipv6, transport: .udp, payload: [4, 5], checksumField: 8),
    ]
    for (number, packet) in packets.enumerated() {
      send(packet.bytes, flags: NetIf.TxFlag.checksumBlank | NetIf.TxFlag.dataValidated, page: number)
    }
    #expect(try txAnswers(pair) == ["0:0", "1:0"])
    let taken = packets.map { packet in
      let isTaken = offloads.contains(packet.network == .ipv4 ? .ipv4Checksum : .ipv6Checksum)
      return NotingEnd.Packet(
        isTaken ? packet.bytes : packet.whole, NetPacketMetadata(checksum: isTaken ? .blank : .validated))
    }
    #expect(end.taken == taken)
    #expect(statistics(pair).txChecksumsFilled == UInt64(taken.count { $0.metadata.checksum == .validated }))
  }

  @Test func whatTheGuestVouchesForIsPassedOnAsThat() throws {
    let end = NotingEnd()
    let pair = try pair(end)
    send(frame(1), flags: NetIf.TxFlag.dataValidated)
    send(frame(2), page: 1)
    #expect(try txAnswers(pair) == ["0:0", "1:0"])
    #expect(end.taken.map(\.metadata.checksum) == [.validated, .present])
  }

  /// XSA-423: whoever looks at headers finds them in one piece, however the guest has cut them up.
  @Test func headersReachAnEndInOnePiece() throws {
    let end = NotingEnd(offloads: .all)
    let pair = try pair(end)
    let bytes = long.bytes
    // One byte a slot as far as that goes, and the rest in pages.
    let cuts = Array(0..<14) + [14, 14 + 4096, 14 + 8192, bytes.count]
    for (number, (start, end)) in zip(cuts, cuts.dropFirst()).enumerated() where end > start {
      let part = Array(bytes[start..<end])
      let page = number % 13
      // One page serves several slots: each byte at a place of its own.
      let offset = part.count == 1 ? number : 0
      frontend.page(part.count == 1 ? 15 : page).slice(from: offset, count: part.count).copy(from: part.span)
      var flags = end < bytes.count ? NetIf.TxFlag.moreData : 0
      if number == 0 { flags |= NetIf.TxFlag.checksumBlank | NetIf.TxFlag.extraInfo }
      frontend.put(
        NetIfTxRequest(
          gref: frontend.references[part.count == 1 ? 15 : page], offset: UInt16(offset), flags: flags,
          id: UInt16(number), size: UInt16(number == 0 ? bytes.count : part.count)))
      if number == 0 { frontend.put(segmentation(.tcpv4).transmitSlot) }
    }
    #expect(try txAnswers(pair).filter { $0.hasSuffix(":0") }.count == 17)
    #expect(end.taken.map(\.bytes) == [bytes])
  }

  // MARK: What is offered

  @Test(
    arguments: [
      ([], .all, true, "1000"), (.all, .all, true, "0111"), (.all, .all, false, "0100"),
      (.all, [.ipv4Checksum, .tcpv4Segmentation], true, "0010"),
      ([.ipv6Checksum, .tcpv6Segmentation], .all, true, "1101"),
    ] as [(NetOffloads, NetOffloads, Bool, String)])
  func noMoreIsOfferedThanTheEndTakes(end: NetOffloads, features: NetOffloads, sg: Bool, keys: String) throws {
    var offered = NetFeatures(scatterGather: sg)
    offered.offloads = features
    let pair = try pair(NotingEnd(offloads: end), features: offered)
    let directory = pair.rig.directory("/local/domain/2/backend/vif/1/0")
    let names = [
      "feature-no-csum-offload", "feature-ipv6-csum-offload", "feature-gso-tcpv4", "feature-gso-tcpv6",
    ]
    #expect(try names.map { try directory.string($0) }.joined() == keys)
  }

  @Test(
    arguments: [
      (takesAll, .all, true), ([StoreEntry("feature-no-csum-offload", true)], [], false), ([], .ipv4Checksum, false),
      (
        [StoreEntry("feature-gso-tcpv4", true), StoreEntry("feature-ipv6-csum-offload", true)],
        [.ipv4Checksum, .ipv6Checksum], false
      ),
    ] as [([StoreEntry], NetOffloads, Bool)])
  func theEndHearsWhatTheGuestTakes(keys: [StoreEntry], offloads: NetOffloads, isSegmented: Bool) throws {
    let end = NotingEnd()
    let pair = try pair(end, keys: keys)
    #expect(end.guestOffloads == [offloads])
    let lines = try #require(pair.backBus.negotiations.first?.value).lines
    #expect((lines.first { $0.feature == "feature-gso-tcpv4" }?.agreed == "on") == isSegmented)
  }

  // MARK: What the guest gets

  @Test func blankAndValidatedChecksumsAreSaidToTheGuest() throws {
    let end = NotingEnd()
    let pair = try pair(end)
    let packet = TestPacket(payload: [1]).bytes
    end.toGive = [
      .init(packet, .init(checksum: .blank)), .init(packet, .init(checksum: .validated)), .init(packet),
    ]
    post(0..<3)
    _ = pair.pollUntilIdle()
    let blank = NetIf.RxFlag.checksumBlank | NetIf.RxFlag.dataValidated
    let responses = try frontend.rxResponses()
    #expect(responses.map(\.flags) == [blank, NetIf.RxFlag.dataValidated, 0])
    #expect(responses.map { bytes($0) } == [packet, packet, packet])
  }

  @Test(
    arguments: [
      ([], [true, false]), ([StoreEntry("feature-no-csum-offload", true)], [false, false]),
      ([StoreEntry("feature-no-csum-offload", true), StoreEntry("feature-ipv6-csum-offload", true)], [false, true]),
    ] as [([StoreEntry], [Bool])])
  func aGuestGetsNoBlankChecksumsThatItDoesNotTake(keys: [StoreEntry], taken: [Bool]) throws {
    let end = NotingEnd()
    let pair = try pair(end, keys: keys)
    let packets = [
      TestPacket(payload: [1, 2, 3], checksumField: 7),
      TestPacket(network: .ipv6, transport: .udp, payload: [4, 5], checksumField: 8),
    ]
    end.toGive = packets.map { .init($0.bytes, .init(checksum: .blank)) } + [.init(frame(1), .init(checksum: .blank))]
    post(0..<3)
    _ = pair.pollUntilIdle()
    let responses = try frontend.rxResponses()
    for (response, (packet, isTaken)) in zip(responses, zip(packets, taken)) {
      #expect((response.flags & NetIf.RxFlag.checksumBlank != 0) == isTaken)
      #expect(bytes(response) == (isTaken ? packet.bytes : packet.whole))
      #expect(response.flags & NetIf.RxFlag.dataValidated != 0)
    }
    // What has no place for a checksum is lost.
    #expect(responses.count == 2)
    let statistics = statistics(pair)
    #expect(statistics.rxChecksumsFilled == UInt64(taken.count { !$0 }) && statistics.rx.errors == 1)
  }

  /// netif.h, "Guest receive": behind the first fragment, in the slot of a request whose page is not used.
  @Test func aFrameToBeCutTakesARequestMore() throws {
    let end = NotingEnd()
    let pair = try pair(end)
    let bytes = long.bytes
    end.toGive = [.init(bytes, .init(checksum: .blank, segmentation: .init(.tcpv4, payloadByteCount: 1448)))]
    let untouched = pattern(4096, seed: 77)
    frontend.page(1).copy(from: untouched.span)
    post(0..<3)
    _ = pair.pollUntilIdle()
    // Three pages of data, and not a request too few.
    #expect(try frontend.rxResponses().isEmpty)
    post(3..<6)
    _ = pair.pollUntilIdle()
    let responses = try frontend.rxResponses()
    try #require(responses.count == 4)
    #expect(
      responses[0].flags
        == NetIf.RxFlag.checksumBlank | NetIf.RxFlag.dataValidated | NetIf.RxFlag.moreData | NetIf.RxFlag.extraInfo)
    #expect(
      try NetExtraInfo(parsing: NetIfExtraInfo(responses[1])) == .segmentation(.tcpv4, payloadByteCount: 1448))
    #expect(!NetIfExtraInfo(responses[1]).hasMore)
    #expect([responses[2].flags, responses[3].flags] == [NetIf.RxFlag.moreData, 0])
    #expect([responses[0].id, responses[2].id, responses[3].id] == [0, 2, 3])
    #expect(self.bytes(responses[0]) + self.bytes(responses[2]) + self.bytes(responses[3]) == bytes)
    #expect(frontend.page(1).copied() == untouched)
    // The next one begins in the slot behind.
    end.toGive = [.init(frame(1))]
    _ = pair.pollUntilIdle()
    #expect(try frontend.rxResponses().map(\.id) == [4])
    #expect(statistics(pair).rxSegmented == 1)
  }

  /// Its slots are still told apart by their ids.
  @Test func aFrameWithAnExtraInfoThatCannotBeGivenFailsInEachSlot() throws {
    let end = NotingEnd()
    let pair = try pair(end)
    end.toGive = [
      .init(long.bytes, .init(checksum: .blank, segmentation: .init(.tcpv4, payloadByteCount: 1448))), .init(frame(1)),
    ]
    for id in 0..<3 as Range<UInt16> { frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id)])) }
    frontend.put(NetIfRxRequest(id: 3, gref: GrantReference(rawValue: 4242)))
    post(4..<5)
    _ = pair.pollUntilIdle()
    let responses = try frontend.rxResponses()
    #expect(responses.map(\.id) == [0, 1, 2, 3, 4] && responses.map(\.status) == [-1, -1, -1, -1, 64])
    #expect(responses.map(\.flags) == [4, 4, 4, 0, 0])
  }
}
