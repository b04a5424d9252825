import NetIf
import TestSupport
import Testing

/// Headers in frames: where they are found, what is refused, and the checksum that goes into them.
struct NetHeadersTests {
  private func fault(_ bytes: [UInt8]) -> NetHeaderFault? {
    do throws(NetHeaderFault) {
      _ = try NetHeaders(parsing: bytes.span)
      return nil
    } catch { return error }
  }

  private func filled(_ bytes: [UInt8]) throws -> [UInt8] {
    var bytes = bytes
    var frame = bytes.mutableSpan
    try NetHeaders(parsing: frame.span).fillChecksum(in: &frame)
    return bytes
  }

  private static let allTags: [[UInt16]] = [[], [0x8100], [0x88A8, 0x8100]]
  /// One of every form that is known, and each with every other.
  private static let forms: [TestPacket] = [NetHeaders.Network.ipv4, .ipv6].flatMap { network in
    [NetHeaders.Transport.tcp, .udp].flatMap { transport in
      allTags.flatMap { tags in
        [false, true].map { hasOptions in
          var packet = TestPacket(network: network, transport: transport, tags: tags)
          packet.payload = pattern(33, seed: 7)
          guard hasOptions else { return packet }
          packet.padding = [1, 2, 3]
          if transport == .tcp { packet.transportOptions = [UInt8](repeating: 1, count: 12) }
          switch network {
          case .ipv4: packet.options = [UInt8](repeating: 1, count: 40)
          case .ipv6:
            packet.firstExtension = 0
            // Hop-by-hop, routing with nothing left, destination options of two units, and the only fragment.
            packet.options =
              [43, 0, 1, 4, 0, 0, 0, 0] + [60, 0, 0, 0, 0, 0, 0, 0] + [44, 1] + [UInt8](repeating: 0, count: 14)
              + [transport.rawValue, 0, 0, 0, 1, 2, 3, 4]
          }
          return packet
        }
      }
    }
  }

  @Test(arguments: forms.indices)
  func headersAreFoundInEveryForm(form: Int) throws {
    let packet = Self.forms[form]
    let headers = try NetHeaders(parsing: packet.bytes.span)
    #expect(headers.network == packet.network && headers.transport == packet.transport)
    #expect(headers.networkOffset == packet.networkOffset && headers.transportOffset == packet.transportOffset)
    #expect(headers.payloadOffset == packet.payloadOffset)
    #expect(headers.end == packet.payloadOffset + packet.payload.count)
  }

  /// Cut off anywhere, a frame is refused; that it is not read beyond its end, the span sees to.
  @Test(arguments: forms.indices)
  func aFrameCutOffAnywhereIsRefused(form: Int) {
    let packet = Self.forms[form]
    let bytes = packet.bytes
    for count in 0..<bytes.count - packet.padding.count {
      #expect(fault(Array(bytes[..<count])) != nil, "\(count) bytes")
    }
    #expect(fault(Array(bytes.dropLast(packet.padding.count))) == nil)
    #expect(fault([]) == .truncated(.ethernet) && fault(Array(bytes[..<13])) == .truncated(.ethernet))
  }

  @Test(
    arguments: [
      (12, [0x08, 0x06], .notIP(etherType: 0x0806)), (12, [0x81, 0x00], .notIP(etherType: 43)),
      (14, [0x65], .version(6)),
      (14, [0x44], .ipv4HeaderLength(words: 4)), (14, [0x40], .ipv4HeaderLength(words: 0)),
      (16, [0, 19], .ipv4HeaderLength(words: 5)), (16, [0, 20], .truncated(.tcp)), (16, [0, 39], .truncated(.tcp)),
      (16, [0, 0], .ipv4HeaderLength(words: 5)), (16, [0, 44], .ipLength(byteCount: 44)),
      (16, [0xFF, 0xFF], .ipLength(byteCount: 0xFFFF)), (20, [0x20, 0], .fragment), (20, [0, 1], .fragment),
      (20, [0x1F, 0xFF], .fragment), (23, [1], .transport(number: 1)), (23, [0], .transport(number: 0)),
      (46, [0x40], .tcpHeaderLength(words: 4)), (46, [0x60], .tcpHeaderLength(words: 6)),
      (46, [0xF0], .tcpHeaderLength(words: 15)),
    ] as [(Int, [UInt8], NetHeaderFault)])
  func nonsenseInIPv4AndTCPIsRefused(offset: Int, bytes: [UInt8], expected: NetHeaderFault) {
    var frame = TestPacket(payload: [1, 2, 3]).bytes
    frame.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    #expect(fault(frame) == expected)
  }

  @Test(
    arguments: [
      (14, [0x40], .version(4)), (18, [0, 12], .ipLength(byteCount: 12)),
      (18, [0xFF, 0xFF], .ipLength(byteCount: 0xFFFF)),
      // As jumbograms have it.
      (18, [0, 0], .truncated(.udp)), (18, [0, 7], .truncated(.udp)), (20, [58], .transport(number: 58)),
      (20, [0], .transport(number: 156)), (20, [51], .transport(number: 51)), (20, [59], .transport(number: 59)),
      (58, [0, 7], .udpLength(byteCount: 7)), (58, [0, 0], .udpLength(byteCount: 0)),
      (58, [0, 12], .udpLength(byteCount: 12)), (58, [0xFF, 0xFF], .udpLength(byteCount: 0xFFFF)),
    ] as [(Int, [UInt8], NetHeaderFault)])
  func nonsenseInIPv6AndUDPIsRefused(offset: Int, bytes: [UInt8], expected: NetHeaderFault) {
    var frame = TestPacket(network: .ipv6, transport: .udp, payload: [1, 2, 3]).bytes
    frame.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    #expect(fault(frame) == expected)
  }

  @Test(
    arguments: [
      (43, [17, 0, 2, 1, 0, 0, 0, 0], .segmentsLeft(1)), (44, [17, 0, 0, 1, 0, 0, 0, 1], .fragment),
      (44, [17, 0, 0, 8, 0, 0, 0, 1], .fragment), (60, [17, 1, 0, 0, 0, 0, 0, 0], .truncated(.udp)),
      (60, [17, 3, 0, 0, 0, 0, 0, 0], .truncated(.udp)), (60, [17, 255, 0, 0, 0, 0, 0, 0], .truncated(.udp)),
      (60, [60, 1, 0, 0, 0, 0, 0, 0], .truncated(.ipv6Extension)),
    ] as [(UInt8, [UInt8], NetHeaderFault)])
  func nonsenseInExtensionHeadersIsRefused(first: UInt8, options: [UInt8], expected: NetHeaderFault) {
    var packet = TestPacket(network: .ipv6, transport: .udp, options: options, firstExtension: first)
    packet.payload = [1, 2, 3, 4, 1, 2, 3]
    #expect(fault(packet.bytes) == expected)
  }

  /// More bytes may follow a UDP packet within its IP packet; its own length says what the checksum covers.
  @Test func aShorterUDPPacketEndsWhereItSays() throws {
    let packet = TestPacket(transport: .udp, payload: [1, 2, 3, 4])
    var frame = packet.bytes + [9, 9]
    frame[17] += 2
    let headers = try NetHeaders(parsing: frame.span)
    #expect(headers.end == frame.count - 2)
    var expected = packet.whole + [9, 9]
    expected[17] += 2
    #expect(try filled(frame) == expected)
  }

  /// Zero in UDP's place says that there is none; in TCP's it is a sum like any other.
  @Test(arguments: [(.udp, [0xFF, 0xFF]), (.tcp, [0, 0])] as [(NetHeaders.Transport, [UInt8])])
  func aChecksumOfZeroIsWrittenAsItsProtocolHasIt(transport: NetHeaders.Transport, field: [UInt8]) throws {
    var packet = TestPacket(transport: transport, payload: [0, 0])
    let place = packet.transportOffset + (transport == .tcp ? 16 : 6)
    // With its own checksum added, everything adds up to nothing.
    packet.payload = Array(packet.whole[place..<place + 2])
    #expect(try Array(filled(packet.bytes)[place..<place + 2]) == field)
  }

  /// Whatever stood in the field, as Linux leaves the pseudo-header's sum there.
  @Test(arguments: seeds(1...100, of: NetHeadersTests.self))
  func theChecksumIsTheNaiveOne(seed: Seed) throws {
    var random = SeededGenerator(seed)
    var packet = Self.forms[Int.random(in: 0..<Self.forms.count, using: &random)]
    let count =
      seed.modulo(4) == 0 ? Int.random(in: 0...65_000, using: &random) : Int.random(in: 0...1460, using: &random)
    packet.payload = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
    packet.source = (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) }
    packet.destination = (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) }
    packet.checksumField = UInt16.random(in: 0...UInt16.max, using: &random)
    #expect(try filled(packet.bytes) == packet.whole)
  }

  /// Whatever the bytes are, nothing traps, and what is found lies within the frame.
  @Test(arguments: seeds(1...100, of: NetHeadersTests.self))
  func randomBytesAreRefusedOrWithinTheFrame(seed: Seed) {
    var random = SeededGenerator(seed)
    var passed = 0
    for _ in 0..<200 {
      var bytes = Self.forms[Int.random(in: 0..<Self.forms.count, using: &random)].bytes
      for _ in 0..<Int.random(in: 0...6, using: &random) {
        bytes[Int.random(in: 12..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      bytes.removeLast(Int.random(in: 0..<4, using: &random))
      guard let headers = try? NetHeaders(parsing: bytes.span) else { continue }
      passed += 1
      #expect(headers.networkOffset >= 14 && headers.networkOffset + 20 <= headers.transportOffset)
      #expect(headers.transportOffset + 8 <= headers.payloadOffset && headers.payloadOffset <= headers.end)
      #expect(headers.end <= bytes.count)
      var frame = bytes.mutableSpan
      headers.fillChecksum(in: &frame)
    }
    #expect(passed > 0)
  }

  /// A frame of TCP over IPv4 without tags or options is found in a shorter way; a tag alone makes it go the long one.
  @Test(arguments: seeds(1...100, of: NetHeadersTests.self))
  func theShortWayFindsWhatTheLongOneDoes(seed: Seed) throws {
    var random = SeededGenerator(seed)
    var (passed, plainCount) = (0, 0)
    for _ in 0..<200 {
      var packet = TestPacket(payload: pattern(Int.random(in: 0...40, using: &random), seed: 1))
      packet.padding = pattern(Int.random(in: 0...3, using: &random), seed: 2)
      if Bool.random(using: &random) { packet.transportOptions = [1, 1, 1, 1] }
      var bytes = packet.bytes
      for _ in 0..<Int.random(in: 0...2, using: &random) {
        // The fields that decide: versions and lengths, the fragment's place, the protocol; and any other.
        let fields = [14, 16, 17, 20, 21, 23, 46, Int.random(in: 14..<bytes.count, using: &random)]
        let place = fields[Int.random(in: 0..<fields.count, using: &random)]
        bytes[place] = Bool.random(using: &random) ? bytes[place] ^ 1 : UInt8.random(in: 0...255, using: &random)
      }
      if Int.random(in: 0..<4, using: &random) == 0 { bytes.removeLast(Int.random(in: 1..<8, using: &random)) }
      let tagged = bytes[..<12] + [0x81, 0, 0, 1] + bytes[12...]
      guard let headers = try? NetHeaders(parsing: bytes.span) else {
        #expect(fault(bytes) == fault(Array(tagged)), "\(bytes)")
        #expect(
          NetHeaders.plainBlankChecksum(of: bytes.span) == nil && !NetHeaders.arePlain(in: bytes.span), "\(bytes)")
        continue
      }
      passed += 1
      let others = try NetHeaders(parsing: Array(tagged).span)
      #expect(headers.network == others.network && headers.transport == others.transport)
      #expect(
        headers.networkOffset == others.networkOffset - 4 && headers.transportOffset == others.transportOffset - 4)
      #expect(headers.payloadOffset == others.payloadOffset - 4 && headers.end == others.end - 4, "\(bytes)")
      // What only most frames have.
      let isPlain = headers.transport == .tcp && headers.transportOffset == 34
      let blank = isPlain ? headers.blankChecksum(of: bytes.span) : nil
      #expect(NetHeaders.plainBlankChecksum(of: bytes.span) == blank, "\(bytes)")
      #expect(NetHeaders.arePlain(in: bytes.span) == isPlain, "\(bytes)")
      if isPlain { plainCount += 1 }
      #expect(!isPlain || headers.checksumOffset == NetHeaders.plainChecksumOffset)
    }
    #expect(passed > 20 && plainCount > 20)
  }
}
