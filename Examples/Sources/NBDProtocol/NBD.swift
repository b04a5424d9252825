/// The numbers of the protocol, named as they are in proto.md, "Values". Everything on the wire is big-endian.
enum NBD {
  static let magic: UInt64 = 0x4E42_444D_4147_4943
  static let optionMagic: UInt64 = 0x4948_4156_454F_5054
  static let optionReplyMagic: UInt64 = 0x0003_E889_0455_65A9
  static let requestMagic: UInt32 = 0x2560_9513
  static let simpleReplyMagic: UInt32 = 0x6744_6698

  /// The server's and the client's handshake flags have the same numbers.
  enum HandshakeFlag {
    static let fixedNewstyle: UInt16 = 1 << 0
    static let noZeroes: UInt16 = 1 << 1
  }

  enum TransmissionFlag {
    static let hasFlags: UInt16 = 1 << 0
    static let readOnly: UInt16 = 1 << 1
    static let sendFlush: UInt16 = 1 << 2
    static let sendFUA: UInt16 = 1 << 3
    static let canMultiConn: UInt16 = 1 << 8
  }

  enum Option {
    static let exportName: UInt32 = 1
    static let abort: UInt32 = 2
    static let list: UInt32 = 3
    static let info: UInt32 = 6
    static let go: UInt32 = 7
  }

  enum OptionReply {
    static let ack: UInt32 = 1
    static let server: UInt32 = 2
    static let info: UInt32 = 3
    static let unsupported: UInt32 = 1 << 31 + 1
    static let invalid: UInt32 = 1 << 31 + 3
    static let unknown: UInt32 = 1 << 31 + 6
    static let tooBig: UInt32 = 1 << 31 + 9
  }

  enum Info {
    static let export: UInt16 = 0
    static let blockSize: UInt16 = 3
  }

  enum Command {
    static let read: UInt16 = 0
    static let write: UInt16 = 1
    static let disconnect: UInt16 = 2
    static let flush: UInt16 = 3
  }

  enum CommandFlag {
    static let fua: UInt16 = 1 << 0
  }
}

/// Why a request is answered with an error (proto.md, "Error values").
public enum NBDError: UInt32, Error, Hashable, Sendable {
  /// A write to a read-only export.
  case notPermitted = 1
  case inputOutput = 5
  /// A flag, command, length or alignment that does not exist here, or a read beyond the end.
  case invalid = 22
  /// A write beyond the end.
  case noSpace = 28
}

/// Why a connection cannot go on: what the client sent leaves no way to tell where its next message begins, or it broke a
/// rule for which the protocol knows no answer.
public enum NBDFault: Error, Hashable, Sendable, CustomStringConvertible {
  case clientFlags(UInt32)
  case optionMagic(UInt64)
  case requestMagic(UInt32)
  /// Asked for by ``NBD/Option/exportName``, to which no error can be answered.
  case unknownExport(byteCount: UInt32)

  public var description: String {
    switch self {
    case .clientFlags(let flags):
      "it answered the greeting with flags 0x\(String(flags, radix: 16)), which nobody knows"
    case .optionMagic(let magic): "it sent 0x\(String(magic, radix: 16)) where an NBD option begins"
    case .requestMagic(let magic): "it sent 0x\(String(magic, radix: 16)) where an NBD request begins"
    case .unknownExport(let count):
      "it asked for an export by a name of \(count) bytes; the only one here has the empty name"
    }
  }
}
