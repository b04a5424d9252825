import NetBack
import TestSupport
import Testing

/// The situations that FreeBSD's network backend tests itself in, as far as no other suite of ours has them; which test
/// shows which, docs/netback-situations.md says.
struct NetBackSituationTests {
  private let frontend = RawNetFrontend()
  private let end = NotingEnd(offloads: .all)
  private let pair: HandPolledPair

  init() throws {
    frontend.keys = [StoreEntry("feature-sg", true), StoreEntry("feature-gso-tcpv4", true)]
    pair = try HandPolledPair(frontend: frontend, backend: NetBackDriver { [end] _ in end })
  }

  private func slot(
    _ size: Int, page: Int, id: UInt16, offset: Int = 0, flags: UInt16 = 0, reference: GrantReference? = nil
  ) -> NetIfTxRequest {
    NetIfTxRequest(
      gref: reference ?? frontend.references[page], offset: UInt16(offset), flags: flags, id: id, size: UInt16(size))
  }

  /// Writes a part of a frame to where its slot says that it is.
  private func fill(_ bytes: some Collection<UInt8>, page: Int, offset: Int = 0) {
    let bytes = Array(bytes)
    frontend.page(page).slice(from: offset, count: bytes.count).copy(from: bytes.span)
  }

  /// The answers as the ring has them: "null", or id and status.
  private func answers() throws -> [String] {
    frontend.push()
    _ = pair.pollUntilIdle()
    return try frontend.txResponses().map { $0.status == NetIf.Status.null ? "null" : "\($0.id):\($0.status)" }
  }

  private func post(_ ids: Range<UInt16>) {
    for id in ids { frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id) % 16])) }
    frontend.push()
  }

  private func give(_ packets: [NotingEnd.Packet]) throws -> [NetIfRxResponse] {
    end.toGive = packets
    _ = pair.pollUntilIdle()
    return try frontend.rxResponses()
  }

  private func bytes(_ response: NetIfRxResponse) -> [UInt8] {
    frontend.page(Int(response.id) % 16).slice(from: Int(response.offset), count: Int(response.status)).copied()
  }

  private static let more = NetIf.TxFlag.moreData

  // MARK: From the ring to packets, and their answers

  @Test func anEmptyRingIsNoPacketAndHasNoAnswer() throws {
    #expect(pair.poll() == .idle)
    #expect(try answers().isEmpty && end.taken.isEmpty)
    #expect(frontend.push() == (false, false))
  }

  @Test(arguments: [[69], [100, 40], [200, 40, 50], [1000, 300, 400]] as [[Int]])
  func packetsOfOneTwoAndThreeSlotsArriveWhole(sizes: [Int]) throws {
    let whole = frame(sizes[0], byteCount: sizes[0])
    var place = 0
    for (number, size) in sizes.enumerated() {
      let count = number == 0 ? size - sizes.dropFirst().reduce(0, +) : size
      fill(whole[place..<place + count], page: number)
      place += count
      frontend.put(
        slot(size, page: number, id: UInt16(60 + number), flags: number < sizes.count - 1 ? Self.more : 0))
    }
    #expect(try answers() == sizes.indices.map { "\(60 + $0):0" })
    #expect(end.taken.map(\.bytes) == [whole])
  }

  /// One slot, an extra info, and two more slots: the answers are in that order.
  @Test func anExtraInfoBetweenSlotsIsPartOfItsPacket() throws {
    let packet = TestPacket(payload: pattern(900, seed: 1)).bytes
    fill(packet[..<254], page: 0)
    fill(packet[254..<554], page: 1)
    fill(packet[554...], page: 2)
    frontend.put(
      slot(packet.count, page: 0, id: 254, flags: Self.more | NetIf.TxFlag.extraInfo | NetIf.TxFlag.checksumBlank))
    frontend.put(NetIfExtraInfo(.segmentation(.tcpv4, payloadByteCount: 250)).transmitSlot)
    frontend.put(slot(300, page: 1, id: 1034, flags: Self.more))
    frontend.put(slot(packet.count - 554, page: 2, id: 34))
    #expect(try answers() == ["254:0", "null", "1034:0", "34:0"])
    #expect(end.taken.first?.metadata.segmentation == .init(.tcpv4, payloadByteCount: 250))
    #expect(end.taken.map(\.bytes) == [packet])
  }

  @Test func aPacketThatIsNotAllThereHasNoAnswer() throws {
    frontend.put(slot(150, page: 0, id: 1, flags: Self.more))
    #expect(try answers().isEmpty && end.taken.isEmpty)
    frontend.put(slot(50, page: 1, id: 2))
    #expect(try answers() == ["1:0", "2:0"])
    #expect(end.taken.map(\.bytes.count) == [150])
  }

  @Test func anUnknownExtraInfoFailsItsPacket() throws {
    frontend.put(slot(1000, page: 0, id: 69, flags: NetIf.TxFlag.extraInfo))
    frontend.put(NetIfExtraInfo(type: 0xFF, words: (0, 0, 0)).transmitSlot)
    #expect(try answers() == ["69:-1", "null"])
  }

  @Test func aPacketThatCannotBeReadIsAnError() throws {
    frontend.put(slot(1000, page: 0, id: 7, reference: GrantReference(rawValue: 4242)))
    #expect(try answers() == ["7:-1"])
  }

  /// From the last two slots of the ring to its first one, with answers there, too.
  @Test func packetsAndTheirAnswersGoRoundTheRing() throws {
    for number in 0..<254 {
      frontend.put(slot(64, page: 0, id: 0))
      if number % 100 == 99 { #expect(try answers().count == 100) }
    }
    #expect(try answers().count == 54)
    let whole = frame(1, byteCount: 550)
    fill(whole[..<400], page: 0)
    fill(whole[400..<500], page: 1)
    fill(whole[500...], page: 2)
    frontend.put(slot(550, page: 0, id: 1, flags: Self.more))
    frontend.put(slot(100, page: 1, id: 2, flags: Self.more))
    frontend.put(slot(50, page: 2, id: 3))
    #expect(try answers() == ["1:0", "2:0", "3:0"])
    #expect(end.taken.last?.bytes == whole)
  }

  // MARK: From packets to an end's memory

  /// Below, at and above the sizes that other systems' buffers have: here each lies in one piece.
  @Test(arguments: [14, 207, 208, 2047, 2048, 2049, 4095, 4096])
  func aPacketOfAnySizeLiesInOnePiece(size: Int) throws {
    let one = frame(size, byteCount: size)
    fill(one, page: 0)
    frontend.put(slot(size, page: 0, id: 1))
    #expect(try answers() == ["1:0"])
    #expect(end.taken.map(\.bytes) == [one])
  }

  @Test(arguments: [4097, 8192, 9000]) func aPacketOfSeveralPagesLiesInOnePiece(size: Int) throws {
    let one = frame(size, byteCount: size)
    let parts = stride(from: 0, to: size, by: 4096).map { one[$0..<min($0 + 4096, size)] }
    for (page, part) in parts.enumerated() {
      fill(part, page: page)
      frontend.put(
        slot(page == 0 ? size : part.count, page: page, id: UInt16(page), flags: page < parts.count - 1 ? Self.more : 0)
      )
    }
    #expect(try answers().count == parts.count)
    #expect(end.taken.map(\.bytes) == [one])
  }

  /// Each fragment is read from where its slot says that it is, and from no other byte.
  @Test func fragmentsAreReadFromTheirOffsets() throws {
    let one = frame(3, byteCount: 207)
    fill([UInt8](repeating: 0xEE, count: 4096), page: 0)
    fill(one, page: 0, offset: 17)
    frontend.put(slot(207, page: 0, id: 1, offset: 17))
    let two = frame(4, byteCount: 1900)
    fill(two[..<1400], page: 1)
    fill(two[1400...], page: 2, offset: 3596)
    frontend.put(slot(1900, page: 1, id: 2, flags: Self.more))
    frontend.put(slot(500, page: 2, id: 3, offset: 3596))
    #expect(try answers() == ["1:0", "2:0", "3:0"])
    #expect(end.taken.map(\.bytes) == [one, two])
  }

  // MARK: From an end's frames to the ring

  @Test(arguments: [0, 1, 13]) func whatIsNoFrameTakesNoRequest(size: Int) throws {
    post(0..<1)
    #expect(try give([.init([UInt8](repeating: 1, count: size))]).isEmpty)
    #expect(try give([.init(frame(1))]).map(\.id) == [0])
  }

  @Test(arguments: [128, 223, 2048, 4096]) func aFrameOfAPageAtMostTakesOneRequest(size: Int) throws {
    post(0..<2)
    let one = frame(size, byteCount: size)
    let responses = try give([.init(one)])
    try #require(responses.count == 1)
    #expect(responses[0].id == 0 && responses[0].offset == 0 && responses[0].flags == 0)
    #expect(Int(responses[0].status) == size && bytes(responses[0]) == one)
  }

  @Test(arguments: [4097, 4196, 9557]) func aLongerFrameTakesOneForEachPage(size: Int) throws {
    post(0..<4)
    let one = frame(size, byteCount: size)
    let responses = try give([.init(one)])
    let count = (size + 4095) / 4096
    #expect(responses.map(\.id) == (0..<UInt16(count)).map { $0 })
    #expect(responses.dropLast().allSatisfy { $0.flags == NetIf.RxFlag.moreData && $0.status == 4096 })
    #expect(responses.last?.flags == 0 && responses.allSatisfy { $0.offset == 0 })
    #expect(responses.flatMap { bytes($0) } == one)
  }

  @Test func aFrameToBeCutHasItsExtraInfoBehindTheFirstFragment() throws {
    let packet = TestPacket(payload: pattern(9000, seed: 2)).bytes
    post(0..<4)
    let responses = try give([
      .init(packet, .init(checksum: .blank, segmentation: .init(.tcpv4, payloadByteCount: 496)))
    ])
    try #require(responses.count == 4)
    let blank = NetIf.RxFlag.checksumBlank | NetIf.RxFlag.dataValidated
    #expect(responses[0].flags == blank | NetIf.RxFlag.moreData | NetIf.RxFlag.extraInfo)
    let info = NetIfExtraInfo(responses[1])
    #expect(info.type == 1 && !info.hasMore && info.words.0 == 496 && info.words.1 == 1 && info.words.2 == 0)
  }

  @Test func aFrameForWhichThereAreTooFewRequestsWaits() throws {
    post(0..<2)
    let long = frame(1, byteCount: 9557)
    #expect(try give([.init(long)]).isEmpty)
    post(2..<3)
    _ = pair.pollUntilIdle()
    #expect(try frontend.rxResponses().flatMap { bytes($0) } == long)
  }

  /// What lies behind the requests of a frame that cannot be given is not touched.
  @Test func aFrameThatCannotBeGivenTakesItsOwnRequestsOnly() throws {
    frontend.put(NetIfRxRequest(id: 0, gref: frontend.references[0]))
    frontend.put(NetIfRxRequest(id: 1, gref: GrantReference(rawValue: 4242)))
    post(2..<5)
    let canary = pattern(4096, seed: 99)
    frontend.page(2).copy(from: canary.span)
    let responses = try give([.init(frame(1, byteCount: 5000))])
    #expect(responses.map(\.id) == [0, 1] && responses.map(\.status) == [-1, -1])
    #expect(frontend.page(2).copied() == canary)
    #expect(try give([.init(frame(2))]).map(\.id) == [2])
  }

  @Test func framesGoRoundTheRing() throws {
    for _ in 0..<127 {
      post(0..<2)
      #expect(try give([.init(frame(1)), .init(frame(2))]).count == 2)
    }
    post(3..<6)
    let long = frame(3, byteCount: 9000)
    let responses = try give([.init(long)])
    #expect(responses.map(\.id) == [3, 4, 5] && responses.flatMap { bytes($0) } == long)
  }

  // MARK: Checksums

  private func sent(_ bytes: [UInt8], flags: UInt16) throws -> NotingEnd.Packet? {
    fill(bytes, page: 0)
    frontend.put(slot(bytes.count, page: 0, id: 1, flags: flags))
    #expect(try answers() == ["1:0"])
    return end.taken.last
  }

  /// ARP and ICMP have nothing to fill in: who vouches for them has them passed on so, byte by byte.
  @Test(arguments: [[0x08, 0x06, 0, 1, 8, 0], [0x08, 0x00, 0x45, 0, 0, 84, 0, 28, 0, 0, 64, 1]] as [[UInt8]])
  func whatHasNoChecksumOfItsOwnIsLeftAsItIs(head: [UInt8]) throws {
    let bytes = [UInt8](repeating: 0xFF, count: 12) + head + pattern(80, seed: 5)
    #expect(try sent(bytes, flags: NetIf.TxFlag.dataValidated) == .init(bytes, .init(checksum: .validated)))
  }

  /// A sum that nobody has left blank is nobody's to correct.
  @Test func aWrongChecksumThatIsNotBlankIsLeftAsItIs() throws {
    let bytes = TestPacket(payload: Array("FreeBSD\n".utf8), checksumField: 0xBEEF).bytes
    #expect(try sent(bytes, flags: 0) == .init(bytes))
  }
}

/// Checksums of packets that were seen on real networks.
struct NetBackSeenChecksumTests {
  private static let payload = Array("FreeBSD\n".utf8)

  /// Between 192.168.10.4 and 192.168.10.5; where the checksum belongs something else stands.
  private static func frame(_ number: UInt8, id: UInt8, dontFragment: Bool, _ segment: [UInt8]) -> [UInt8] {
    let addresses: [UInt8] = [0xC0, 0xA8, 0x0A, 0x04, 0xC0, 0xA8, 0x0A, 0x05]
    return [0, 0x16, 0x3E, 0x23, 0x50, 0x0B, 0, 0x16, 0x30, 0, 0, 0, 8, 0]
      + [0x45, 0, 0, UInt8(20 + segment.count), 0, id, dontFragment ? 0x40 : 0, 0, 64, number, 0, 0] + addresses
      + segment
  }

  private static let udp = frame(
    17, id: 4, dontFragment: false, [0x51, 0xAE, 0x08, 0xAE, 0, 16, 0xBA, 0xAD] + payload)
  private static let tcp = frame(
    6, id: 8, dontFragment: true,
    [
      0x9C, 0xD9, 0x08, 0xAE, 0, 0xF7, 0x2B, 0x10, 0x7F, 0x37, 0xBA, 0x6C, 0x80, 0x18, 0x04, 0x10, 0xBA, 0xAD, 0, 0, 1,
      1, 8, 10, 0, 0, 0x81, 0xDF, 0xCE, 0x18, 0x20, 0x7F,
    ] + payload)

  @Test(arguments: [(udp, 40, 0xDDE2), (tcp, 50, 0x2F64)] as [([UInt8], Int, UInt16)])
  func blankOnesAreFilledInAsTheirSendersDid(bytes: [UInt8], offset: Int, checksum: UInt16) throws {
    let frontend = RawNetFrontend()
    let end = NotingEnd()
    let pair = try HandPolledPair(frontend: frontend, backend: NetBackDriver { _ in end })
    frontend.page(0).slice(from: 0, count: bytes.count).copy(from: bytes.span)
    frontend.put(
      NetIfTxRequest(
        gref: frontend.references[0], flags: NetIf.TxFlag.checksumBlank | NetIf.TxFlag.dataValidated, id: 1,
        size: UInt16(bytes.count)))
    frontend.push()
    _ = pair.pollUntilIdle()
    var expected = bytes
    (expected[offset], expected[offset + 1]) = (UInt8(checksum >> 8), UInt8(checksum & 0xFF))
    #expect(end.taken.map(\.bytes) == [expected])
  }
}
