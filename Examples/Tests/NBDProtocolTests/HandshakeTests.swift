import NBDProtocol
import NIOCore
import Testing

struct HandshakeTests {
  private let export = NBDExport(byteCount: 1 << 20, minimumBlock: 512, isReadOnly: false)
  private var handshake: NBDHandshake

  init() { handshake = NBDHandshake(of: export) }

  /// As a client that knows fixed newstyle, after the greeting.
  private mutating func answers(clientFlags: UInt32 = 3, to options: ByteBuffer...) throws -> [NBDHandshake.Step] {
    var input = ByteBuffer()
    input.writeInteger(clientFlags)
    for option in options { input.writeImmutableBuffer(option) }
    var steps: [NBDHandshake.Step] = []
    while let step = try handshake.next(&input) { steps.append(step) }
    #expect(input.readableBytes == 0)
    return steps
  }

  /// The one reply to an option that leaves the client in the handshake.
  private mutating func replies(to option: ByteBuffer) throws -> [Wire.OptionReply] {
    let steps = try answers(to: option)
    guard steps.count == 1, case .reply(let bytes) = steps[0] else {
      Issue.record("\(steps) is not one reply")
      return []
    }
    return try #require(Wire.OptionReply.all(in: bytes))
  }

  @Test func greetingIsFixedNewstyleWithoutZeroes() {
    #expect(Array(NBDHandshake.greeting.readableBytesView) == Array("NBDMAGICIHAVEOPT".utf8) + [0, 3])
  }

  @Test mutating func unknownClientFlagsEndTheConnection() throws {
    #expect(throws: NBDFault.clientFlags(7)) { try answers(clientFlags: 7) }
  }

  @Test mutating func exportNameIsAnsweredWithSizeAndFlags() throws {
    let steps = try answers(to: Wire.option(1))
    // HAS_FLAGS, SEND_FLUSH, SEND_FUA, CAN_MULTI_CONN.
    let reply = ByteBuffer(bytes: [0, 0, 0, 0, 0, 0x10, 0, 0, 0x01, 0x0D])
    #expect(steps == [.enter(reply, NBDTerms(export: export, keepsToBlocks: false))])
  }

  @Test mutating func clientThatWantsZeroesGetsThemAfterExportName() throws {
    guard case .enter(let reply, _)? = try answers(clientFlags: 1, to: Wire.option(1)).first else {
      Issue.record("no transmission")
      return
    }
    #expect(reply.readableBytes == 10 + 124 && reply.readableBytesView.suffix(124).allSatisfy { $0 == 0 })
  }

  @Test mutating func otherExportNameEndsTheConnection() throws {
    #expect(throws: NBDFault.unknownExport(byteCount: 5)) {
      try answers(to: Wire.option(1, ByteBuffer(string: "other")))
    }
  }

  @Test mutating func endlessExportNameEndsTheConnectionAtItsHeader() throws {
    var option = ByteBuffer()
    option.writeMultipleIntegers(UInt32(3), UInt64(0x4948_4156_454F_5054), UInt32(1), UInt32.max)
    #expect(throws: NBDFault.unknownExport(byteCount: .max)) { try handshake.next(&option) }
  }

  @Test mutating func listNamesTheOneExport() throws {
    let replies = try replies(to: Wire.option(3))
    #expect(replies.map(\.type) == [2, 1] && replies.allSatisfy { $0.option == 3 })
    #expect(replies.first?.data == ByteBuffer(bytes: [0, 0, 0, 0]))
  }

  @Test mutating func listWithDataIsInvalid() throws {
    #expect(try replies(to: Wire.option(3, ByteBuffer(bytes: [1]))).map(\.type) == [1 << 31 + 3])
  }

  @Test mutating func abortIsAcknowledgedAndCloses() throws {
    guard case .close(let bytes)? = try answers(to: Wire.option(2)).first else {
      Issue.record("not closed")
      return
    }
    #expect(Wire.OptionReply.all(in: bytes)?.map(\.type) == [1])
  }

  @Test mutating func infoBringsSizeAndBlockSizesAndStaysInTheHandshake() throws {
    let replies = try replies(to: Wire.option(6, Wire.ask(3)))
    #expect(replies.map(\.type) == [3, 3, 1] && replies.allSatisfy { $0.option == 6 })
    #expect(replies.first?.data == ByteBuffer(bytes: [0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0x01, 0x0D]))
    // 512, 4096, 32 MiB.
    #expect(replies.dropFirst().first?.data == ByteBuffer(bytes: [0, 3, 0, 0, 2, 0, 0, 0, 16, 0, 2, 0, 0, 0]))
  }

  /// Only this makes the client keep to them (proto.md, NBD_INFO_BLOCK_SIZE).
  @Test(arguments: [(Wire.ask(3), true), (Wire.ask(0, 3), true), (Wire.ask(), false), (Wire.ask(0, 1), false)])
  mutating func goEntersTransmissionOnTheTermsAskedFor(ask: ByteBuffer, keepsToBlocks: Bool) throws {
    guard case .enter(let bytes, let terms)? = try answers(to: Wire.option(7, ask)).first else {
      Issue.record("no transmission")
      return
    }
    #expect(terms == NBDTerms(export: export, keepsToBlocks: keepsToBlocks))
    #expect(Wire.OptionReply.all(in: bytes)?.map(\.type) == [3, 3, 1])
  }

  @Test mutating func infoAloneBindsTheClientToNothing() throws {
    let steps = try answers(to: Wire.option(6, Wire.ask(3)), Wire.option(7, Wire.ask()))
    guard case .enter(_, let terms)? = steps.last else {
      Issue.record("no transmission")
      return
    }
    #expect(!terms.keepsToBlocks)
  }

  @Test mutating func readOnlyExportSaysSo() throws {
    handshake = NBDHandshake(of: NBDExport(byteCount: 512, minimumBlock: 512, isReadOnly: true))
    let steps = try answers(to: Wire.option(1))
    guard case .enter(let reply, _)? = steps.first else {
      Issue.record("no transmission")
      return
    }
    #expect(reply == ByteBuffer(bytes: [0, 0, 0, 0, 0, 0, 2, 0, 0x01, 0x0F]))
  }

  @Test(arguments: [UInt32(6), 7]) mutating func otherNameIsUnknownAndTheClientMayGoOn(option: UInt32) throws {
    let steps = try answers(to: Wire.option(option, Wire.ask(name: "other")), Wire.option(7, Wire.ask()))
    guard steps.count == 2, case .reply(let bytes) = steps[0], case .enter = steps[1] else {
      Issue.record("\(steps)")
      return
    }
    #expect(Wire.OptionReply.all(in: bytes)?.map(\.type) == [1 << 31 + 6])
  }

  @Test(
    arguments: [
      [], [0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0, 0, 0, 0, 0, 0, 9],
      [0, 0, 0, 1, 0, 0], [0xFF, 0xFF, 0xFF, 0xFF, 0, 0], [0, 0, 0, 0, 0xFF, 0xFF, 0, 3],
    ] as [[UInt8]])
  mutating func dataWhoseLengthsDoNotAddUpIsInvalid(data: [UInt8]) throws {
    #expect(try replies(to: Wire.option(7, ByteBuffer(bytes: data))).map(\.type) == [1 << 31 + 3])
  }

  /// STARTTLS, STRUCTURED_REPLY, the two of metadata, and numbers that nobody has.
  @Test(arguments: [0, 4, 5, 8, 9, 10, 11, 0x7FFF_FFFF, .max] as [UInt32])
  mutating func unknownOptionIsUnsupportedAndTheClientMayGoOn(option: UInt32) throws {
    let steps = try answers(to: Wire.option(option, ByteBuffer(string: "whatever")), Wire.option(7, Wire.ask()))
    guard steps.count == 2, case .reply(let bytes) = steps[0], case .enter = steps[1] else {
      Issue.record("\(steps)")
      return
    }
    let replies = try #require(Wire.OptionReply.all(in: bytes))
    #expect(replies.map(\.type) == [1 << 31 + 1] && replies.first?.option == option)
  }

  @Test mutating func overlongOptionIsSkippedAsItComesAndIsTooBig() throws {
    var input = ByteBuffer()
    input.writeMultipleIntegers(UInt32(3), UInt64(0x4948_4156_454F_5054), UInt32(6), UInt32(1 << 20))
    for _ in 0..<16 {
      #expect(try handshake.next(&input) == nil)
      #expect(input.readableBytes == 0)
      input.writeRepeatingByte(0x5A, count: 1 << 16)
    }
    guard case .reply(let bytes)? = try handshake.next(&input) else {
      Issue.record("not answered")
      return
    }
    #expect(Wire.OptionReply.all(in: bytes)?.map(\.type) == [1 << 31 + 9])
    input.writeImmutableBuffer(Wire.option(7, Wire.ask()))
    guard case .enter? = try handshake.next(&input) else {
      Issue.record("out of step after what was skipped")
      return
    }
  }

  @Test mutating func garbageInPlaceOfAnOptionEndsTheConnection() throws {
    #expect(throws: NBDFault.optionMagic(0x4745_5420_2F20_4854)) {
      try answers(to: ByteBuffer(string: "GET / HTTP/1.1\r\n\r\n"))
    }
  }

  @Test mutating func messagesMayComeByteByByte() throws {
    var whole = ByteBuffer()
    whole.writeInteger(UInt32(3))
    whole.writeImmutableBuffer(Wire.option(6, Wire.ask(3)))
    whole.writeImmutableBuffer(Wire.option(7, Wire.ask(3)))
    var input = ByteBuffer()
    var steps: [NBDHandshake.Step] = []
    for byte in whole.readableBytesView {
      input.writeInteger(byte)
      while let step = try handshake.next(&input) { steps.append(step) }
    }
    guard steps.count == 2, case .reply = steps[0], case .enter = steps[1] else {
      Issue.record("\(steps)")
      return
    }
  }

  @Test mutating func requestsRightBehindTheLastOptionAreLeftInPlace() throws {
    var input = ByteBuffer()
    input.writeInteger(UInt32(3))
    input.writeImmutableBuffer(Wire.option(7, Wire.ask()))
    let request = Wire.request(0, length: 512)
    input.writeImmutableBuffer(request)
    guard case .enter? = try handshake.next(&input) else {
      Issue.record("no transmission")
      return
    }
    #expect(input == request)
  }
}
