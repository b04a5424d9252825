import NBDProtocol
import NIOCore

/// What a client sends, and what it finds in replies; the numbers are proto.md's, spelt out once more.
enum Wire {
  static func option(_ option: UInt32, _ data: ByteBuffer = ByteBuffer()) -> ByteBuffer {
    var bytes = ByteBuffer()
    bytes.writeMultipleIntegers(UInt64(0x4948_4156_454F_5054), option, UInt32(data.readableBytes))
    bytes.writeImmutableBuffer(data)
    return bytes
  }

  /// The data of NBD_OPT_INFO (6) and NBD_OPT_GO (7).
  static func ask(name: String = "", _ information: UInt16...) -> ByteBuffer {
    var bytes = ByteBuffer()
    bytes.writeInteger(UInt32(name.utf8.count))
    bytes.writeString(name)
    bytes.writeInteger(UInt16(information.count))
    for number in information { bytes.writeInteger(number) }
    return bytes
  }

  static func request(
    _ command: UInt16, flags: UInt16 = 0, cookie: UInt64 = 7, offset: UInt64 = 0, length: UInt32 = 0,
    _ payload: [UInt8] = []
  ) -> ByteBuffer {
    var bytes = ByteBuffer()
    bytes.writeMultipleIntegers(UInt32(0x2560_9513), flags, command, cookie, offset, length)
    bytes.writeBytes(payload)
    return bytes
  }

  /// One reply to an option.
  struct OptionReply: Equatable {
    let option: UInt32
    let type: UInt32
    let data: ByteBuffer

    /// All that are in the bytes; nil when there is anything else in them.
    static func all(in bytes: ByteBuffer) -> [OptionReply]? {
      var bytes = bytes
      var replies: [OptionReply] = []
      while bytes.readableBytes > 0 {
        guard
          let (magic, option, type, count) = bytes.readMultipleIntegers(as: (UInt64, UInt32, UInt32, UInt32).self),
          magic == 0x3_E889_0455_65A9, let data = bytes.readSlice(length: Int(count))
        else { return nil }
        replies.append(OptionReply(option: option, type: type, data: data))
      }
      return replies
    }
  }
}
