import NIOCore

/// The server's side of the fixed newstyle handshake, without a socket (proto.md, "Handshake").
///
/// It offers one export, under the empty name. Structured replies, metadata and TLS are answered as options that this server
/// does not know, which the protocol has clients be prepared for.
public struct NBDHandshake: Sendable {
  /// The most option data that is looked at, in bytes: a name of 4096 and more information requests than there are.
  static let maximumOptionData: UInt32 = 8192

  /// What to do next.
  public enum Step: Hashable, Sendable {
    case reply(ByteBuffer)
    /// Reply, then go over to transmission.
    case enter(ByteBuffer, NBDTerms)
    /// Reply, then close.
    case close(ByteBuffer)
  }

  private enum State {
    case clientFlags
    case option
    /// Option data that nobody wants, still to come.
    case skipping(byteCount: UInt32, option: UInt32)
  }

  private let export: NBDExport
  private var state = State.clientFlags
  private var sendsZeroes = true

  public init(of export: NBDExport) { self.export = export }

  /// What a server sends first.
  public static var greeting: ByteBuffer {
    var bytes = ByteBuffer()
    bytes.writeInteger(NBD.magic)
    bytes.writeInteger(NBD.optionMagic)
    bytes.writeInteger(NBD.HandshakeFlag.fixedNewstyle | NBD.HandshakeFlag.noZeroes)
    return bytes
  }

  /// Takes the next message out of `input`.
  ///
  /// - Returns: nil when it is not all there yet; what is left in `input` then is shorter than
  ///   ``maximumOptionData`` and a header.
  /// - Throws: when the connection must be closed without an answer.
  public mutating func next(_ input: inout ByteBuffer) throws(NBDFault) -> Step? {
    while true {
      switch state {
      case .clientFlags:
        guard let flags = input.readInteger(as: UInt32.self) else { return nil }
        guard flags & ~UInt32(NBD.HandshakeFlag.fixedNewstyle | NBD.HandshakeFlag.noZeroes) == 0 else {
          throw .clientFlags(flags)
        }
        sendsZeroes = flags & UInt32(NBD.HandshakeFlag.noZeroes) == 0
        state = .option
      case .option:
        var ahead = input
        guard let magic = ahead.readInteger(as: UInt64.self) else { return nil }
        guard magic == NBD.optionMagic else { throw .optionMagic(magic) }
        guard let (option, count) = ahead.readMultipleIntegers(as: (UInt32, UInt32).self) else { return nil }
        guard count <= Self.maximumOptionData else {
          if option == NBD.Option.exportName { throw .unknownExport(byteCount: count) }
          input = ahead
          state = .skipping(byteCount: count, option: option)
          continue
        }
        guard let data = ahead.readSlice(length: Int(count)) else { return nil }
        input = ahead
        return try answer(option, data)
      case .skipping(let byteCount, let option):
        // Fits: no more than there was to skip.
        let skipped = UInt32(min(Int(byteCount), input.readableBytes))
        input.moveReaderIndex(forwardBy: Int(skipped))
        guard skipped == byteCount else {
          state = .skipping(byteCount: byteCount - skipped, option: option)
          return nil
        }
        state = .option
        return .reply(Self.reply(to: option, NBD.OptionReply.tooBig, text: "the option is too long"))
      }
    }
  }

  private func answer(_ option: UInt32, _ data: ByteBuffer) throws(NBDFault) -> Step {
    switch option {
    case NBD.Option.exportName:
      guard data.readableBytes == 0 else { throw .unknownExport(byteCount: UInt32(data.readableBytes)) }
      return .enter(exportNameReply, NBDTerms(export: export, keepsToBlocks: false))
    case NBD.Option.abort:
      return .close(Self.reply(to: option, NBD.OptionReply.ack))
    case NBD.Option.list:
      guard data.readableBytes == 0 else {
        return .reply(Self.reply(to: option, NBD.OptionReply.invalid, text: "a list is asked for without data"))
      }
      var emptyName = ByteBuffer()
      emptyName.writeInteger(UInt32(0))
      var reply = Self.reply(to: option, NBD.OptionReply.server, emptyName)
      reply.writeImmutableBuffer(Self.reply(to: option, NBD.OptionReply.ack))
      return .reply(reply)
    case NBD.Option.info, NBD.Option.go:
      return answerInfo(option, data)
    default:
      return .reply(Self.reply(to: option, NBD.OptionReply.unsupported, text: "this server does not know the option"))
    }
  }

  private func answerInfo(_ option: UInt32, _ data: ByteBuffer) -> Step {
    guard let ask = NBDInfoRequest(data) else {
      return .reply(Self.reply(to: option, NBD.OptionReply.invalid, text: "the lengths in the option do not add up"))
    }
    guard ask.nameByteCount == 0 else {
      return .reply(
        Self.reply(to: option, NBD.OptionReply.unknown, text: "the only export here has the empty name"))
    }
    var size = ByteBuffer()
    size.writeMultipleIntegers(NBD.Info.export, export.byteCount, export.transmissionFlags)
    var reply = Self.reply(to: option, NBD.OptionReply.info, size)
    // Also unasked: whoever knows what it means fares better.
    var blocks = ByteBuffer()
    blocks.writeMultipleIntegers(
      NBD.Info.blockSize, UInt32(export.minimumBlock), UInt32(export.preferredBlock), UInt32(NBDExport.maximumPayload))
    reply.writeImmutableBuffer(Self.reply(to: option, NBD.OptionReply.info, blocks))
    reply.writeImmutableBuffer(Self.reply(to: option, NBD.OptionReply.ack))
    guard option == NBD.Option.go else { return .reply(reply) }
    return .enter(reply, NBDTerms(export: export, keepsToBlocks: ask.wantsBlockSize))
  }

  private var exportNameReply: ByteBuffer {
    var reply = ByteBuffer()
    reply.writeMultipleIntegers(export.byteCount, export.transmissionFlags)
    if sendsZeroes { reply.writeRepeatingByte(0, count: 124) }
    return reply
  }

  private static func reply(to option: UInt32, _ type: UInt32, _ data: ByteBuffer = ByteBuffer()) -> ByteBuffer {
    var reply = ByteBuffer()
    reply.writeMultipleIntegers(NBD.optionReplyMagic, option, type, UInt32(data.readableBytes))
    reply.writeImmutableBuffer(data)
    return reply
  }

  /// An error, with a sentence for the client's user.
  private static func reply(to option: UInt32, _ type: UInt32, text: String) -> ByteBuffer {
    reply(to: option, type, ByteBuffer(string: text))
  }
}

/// What the two ends have agreed on.
public struct NBDTerms: Hashable, Sendable {
  public let export: NBDExport
  /// Whether the client asked for the block sizes as it went over to transmission: then it must keep to them. One that did
  /// not may address every byte.
  public let keepsToBlocks: Bool

  public init(export: NBDExport, keepsToBlocks: Bool) {
    self.export = export
    self.keepsToBlocks = keepsToBlocks
  }
}

/// The data of NBD_OPT_INFO and NBD_OPT_GO.
private struct NBDInfoRequest {
  let nameByteCount: UInt32
  private(set) var wantsBlockSize = false

  /// - Returns: nil when the lengths in it do not add up to its own.
  init?(_ data: ByteBuffer) {
    var data = data
    guard let nameByteCount = data.readInteger(as: UInt32.self), data.readSlice(length: Int(nameByteCount)) != nil,
      let count = data.readInteger(as: UInt16.self), data.readableBytes == Int(count) * 2
    else { return nil }
    self.nameByteCount = nameByteCount
    while let information = data.readInteger(as: UInt16.self) {
      if information == NBD.Info.blockSize { wantsBlockSize = true }
    }
  }
}
