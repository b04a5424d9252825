import NBDProtocol
import NIOCore
import Testing

struct TransmissionTests {
  private static let export = NBDExport(byteCount: 1 << 26, minimumBlock: 512, isReadOnly: false)
  private static let readOnly = NBDExport(byteCount: 1 << 26, minimumBlock: 512, isReadOnly: true)
  /// Where 1024 bytes do not fit; also such that offset and length together wrap.
  private static let beyondTheEnd: [UInt64] = [1 << 26 - 512, 1 << 26, 1 << 63, .max - 1023, .max - 511]
  private var transmission = NBDTransmission(NBDTerms(export: export, keepsToBlocks: true))

  /// All that the bytes are, with nothing left over.
  private mutating func messages(_ bytes: ByteBuffer...) throws -> [NBDTransmission.Message] {
    var input = ByteBuffer()
    for part in bytes { input.writeImmutableBuffer(part) }
    var messages: [NBDTransmission.Message] = []
    while let message = try transmission.next(&input) { messages.append(message) }
    #expect(input.readableBytes == 0)
    return messages
  }

  private static func request(_ command: NBDRequest.Command, cookie: UInt64 = 7) -> NBDTransmission.Message {
    .request(NBDRequest(cookie: cookie, command: command))
  }

  @Test mutating func readIsTaken() throws {
    #expect(
      try messages(Wire.request(0, cookie: .max, offset: 1 << 25, length: 4096))
        == [Self.request(.read(offset: 1 << 25, byteCount: 4096), cookie: .max)])
  }

  @Test mutating func writeIsTakenWithItsPayload() throws {
    let payload = (0..<512).map { UInt8(truncatingIfNeeded: $0 * 3) }
    #expect(
      try messages(Wire.request(1, offset: 512, length: 512, payload))
        == [Self.request(.write(offset: 512, payload, isDurable: false))])
  }

  @Test mutating func fuaMakesAWriteDurable() throws {
    let payload = [UInt8](repeating: 9, count: 512)
    #expect(
      try messages(Wire.request(1, flags: 1, length: 512, payload))
        == [Self.request(.write(offset: 0, payload, isDurable: true))])
  }

  @Test mutating func flushIsTaken() throws { #expect(try messages(Wire.request(3)) == [Self.request(.flush)]) }

  /// Clients are known to do so (proto.md, NBD_CMD_FLAG_FUA).
  @Test mutating func fuaIsAcceptedWithEveryCommand() throws {
    #expect(
      try messages(Wire.request(0, flags: 1, length: 512), Wire.request(3, flags: 1), Wire.request(2, flags: 1))
        == [Self.request(.read(offset: 0, byteCount: 512)), Self.request(.flush), .disconnect])
  }

  @Test mutating func disconnectIsTaken() throws { #expect(try messages(Wire.request(2)) == [.disconnect]) }

  @Test(arguments: [1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5, 1 << 15, .max] as [UInt16])
  mutating func otherFlagsAreInvalid(flags: UInt16) throws {
    #expect(try messages(Wire.request(0, flags: flags, length: 512)) == [.refused(cookie: 7, .invalid)])
  }

  /// TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, RESIZE and numbers that nobody has; none of them has a payload.
  @Test(arguments: [4, 5, 6, 7, 8, 9, .max] as [UInt16]) mutating func otherCommandsAreInvalid(command: UInt16) throws {
    #expect(
      try messages(Wire.request(command, length: 512), Wire.request(3))
        == [.refused(cookie: 7, .invalid), Self.request(.flush)])
  }

  @Test(arguments: [(1, 0), (0, 1), (.max, .max)] as [(UInt64, UInt32)])
  mutating func flushOfARangeIsInvalid(offset: UInt64, length: UInt32) throws {
    #expect(try messages(Wire.request(3, offset: offset, length: length)) == [.refused(cookie: 7, .invalid)])
  }

  @Test mutating func lastSectorIsOnTheDisk() throws {
    #expect(
      try messages(Wire.request(0, offset: 1 << 26 - 512, length: 512))
        == [Self.request(.read(offset: 1 << 26 - 512, byteCount: 512))])
  }

  @Test(arguments: beyondTheEnd)
  mutating func readBeyondTheEndIsInvalid(offset: UInt64) throws {
    #expect(try messages(Wire.request(0, offset: offset, length: 1024)) == [.refused(cookie: 7, .invalid)])
  }

  @Test(arguments: beyondTheEnd)
  mutating func writeBeyondTheEndHasNoSpaceAndItsPayloadIsSkipped(offset: UInt64) throws {
    let payload = [UInt8](repeating: 1, count: 1024)
    #expect(
      try messages(Wire.request(1, offset: offset, length: 1024, payload), Wire.request(3))
        == [.refused(cookie: 7, .noSpace), Self.request(.flush)])
  }

  @Test(arguments: [(1, 512), (0, 511), (0, 513), (256, 256)] as [(UInt64, UInt32)])
  mutating func unalignedIsInvalidForAClientThatKeepsToBlocks(offset: UInt64, length: UInt32) throws {
    let payload = [UInt8](repeating: 1, count: Int(length))
    #expect(
      try messages(
        Wire.request(0, offset: offset, length: length), Wire.request(1, offset: offset, length: length, payload))
        == [.refused(cookie: 7, .invalid), .refused(cookie: 7, .invalid)])
  }

  @Test mutating func unalignedIsTakenFromAClientThatDoesNotKnowTheBlocks() throws {
    transmission = NBDTransmission(NBDTerms(export: Self.export, keepsToBlocks: false))
    #expect(
      try messages(Wire.request(0, offset: 1, length: 3), Wire.request(1, offset: 5, length: 2, [8, 9]))
        == [
          Self.request(.read(offset: 1, byteCount: 3)), Self.request(.write(offset: 5, [8, 9], isDurable: false)),
        ])
  }

  @Test(arguments: [UInt16(0), 1]) mutating func nothingToTransferIsInvalid(command: UInt16) throws {
    #expect(try messages(Wire.request(command, length: 0)) == [.refused(cookie: 7, .invalid)])
  }

  @Test mutating func largestPayloadIsTaken() throws {
    let payload = [UInt8](repeating: 5, count: 1 << 25)
    #expect(
      try messages(Wire.request(0, length: 1 << 25), Wire.request(1, length: 1 << 25, payload))
        == [
          Self.request(.read(offset: 0, byteCount: 1 << 25)),
          Self.request(.write(offset: 0, payload, isDurable: false)),
        ])
  }

  @Test(arguments: [1 << 25 + 512, .max] as [UInt32]) mutating func readOfMoreThanTheMaximumIsInvalid(length: UInt32)
    throws
  {
    #expect(try messages(Wire.request(0, length: length)) == [.refused(cookie: 7, .invalid)])
  }

  @Test mutating func writeOfMoreThanTheMaximumIsSkippedAsItComes() throws {
    var input = Wire.request(1, cookie: 3, length: 1 << 25 + 512)
    let part = [UInt8](repeating: 0xA5, count: 1 << 16)
    for _ in 0..<512 {
      #expect(try transmission.next(&input) == nil)
      #expect(input.readableBytes == 0)
      input.writeBytes(part)
    }
    #expect(try transmission.next(&input) == nil)
    input.writeRepeatingByte(0xA5, count: 512)
    #expect(try transmission.next(&input) == .refused(cookie: 3, .invalid))
    #expect(try messages(Wire.request(3)) == [Self.request(.flush)])
  }

  /// Before anything else that is wrong with it.
  @Test(arguments: [(0, 512), (1 << 26, 512), (1, 3)] as [(UInt64, UInt32)])
  mutating func writeToAReadOnlyExportIsNotPermitted(offset: UInt64, length: UInt32) throws {
    transmission = NBDTransmission(NBDTerms(export: Self.readOnly, keepsToBlocks: true))
    let payload = [UInt8](repeating: 1, count: Int(length))
    #expect(
      try messages(Wire.request(1, offset: offset, length: length, payload), Wire.request(0, length: 512))
        == [.refused(cookie: 7, .notPermitted), Self.request(.read(offset: 0, byteCount: 512))])
  }

  @Test mutating func garbageInPlaceOfARequestEndsTheConnection() throws {
    #expect(throws: NBDFault.requestMagic(0x4745_5420)) { try messages(ByteBuffer(string: "GET / HTTP/1.1\r\n")) }
  }

  @Test mutating func garbageIsSeenBeforeAWholeHeaderIsThere() throws {
    var input = ByteBuffer(bytes: [1, 2, 3, 4])
    #expect(throws: NBDFault.requestMagic(0x0102_0304)) { try transmission.next(&input) }
  }

  @Test mutating func requestsMayComeByteByByte() throws {
    let payload = (0..<512).map { UInt8(truncatingIfNeeded: $0) }
    var whole = Wire.request(1, cookie: 1, length: 512, payload)
    whole.writeImmutableBuffer(Wire.request(1, cookie: 2, offset: 1 << 26, length: 512, payload))
    whole.writeImmutableBuffer(Wire.request(0, cookie: 3, length: 512))
    var input = ByteBuffer()
    var messages: [NBDTransmission.Message] = []
    for byte in whole.readableBytesView {
      input.writeInteger(byte)
      while let message = try transmission.next(&input) { messages.append(message) }
      // Payload is taken out as it comes.
      #expect(input.readableBytes < 28)
    }
    #expect(
      messages == [
        Self.request(.write(offset: 0, payload, isDurable: false), cookie: 1), .refused(cookie: 2, .noSpace),
        Self.request(.read(offset: 0, byteCount: 512), cookie: 3),
      ])
  }

  @Test func replyHasTheCookieAndTheError() {
    #expect(
      NBDTransmission.reply(to: 0x0102_0304_0506_0708, error: .noSpace)
        == ByteBuffer(bytes: [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 1, 2, 3, 4, 5, 6, 7, 8]))
    #expect(
      NBDTransmission.reply(to: 1)
        == ByteBuffer(bytes: [0x67, 0x44, 0x66, 0x98] + [UInt8](repeating: 0, count: 11) + [1]))
  }
}
