import SystemPackage

/// The numbers of the classic capture file format (draft-ietf-opsawg-pcap).
enum PcapFormat {
  static let fileHeaderByteCount = 24
  static let recordHeaderByteCount = 16
  static let microsecondMagic: UInt32 = 0xA1B2_C3D4
  static let nanosecondMagic: UInt32 = 0xA1B2_3C4D
  /// Of the newer format, which is another one altogether.
  static let nextGenerationMagic: UInt32 = 0x0A0D_0D0A
  static let majorVersion: UInt16 = 2
  static let minorVersion: UInt16 = 4
  /// No capture program keeps more of a packet (libpcap, `MAXIMUM_SNAPLEN`).
  static let maxByteCount = 262_144
}

/// What the packets in a file begin with (`LINKTYPE_*`).
public struct PcapLinkType: RawRepresentable, Hashable, Sendable {
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public static let ethernet = PcapLinkType(rawValue: 1)
}

/// A packet of a capture file.
public struct PcapPacket: Hashable, Sendable {
  /// Since the beginning of 1970, UTC.
  public var nanoseconds: UInt64
  /// How long the packet was; more than ``bytes`` when only its beginning was kept.
  public var originalByteCount: Int
  public var bytes: [UInt8]

  public init(nanoseconds: UInt64, bytes: [UInt8], originalByteCount: Int? = nil) {
    self.nanoseconds = nanoseconds
    self.bytes = bytes
    self.originalByteCount = originalByteCount ?? bytes.count
  }
}

/// Why a capture file cannot be read or written.
@nonexhaustive public enum PcapError: Error, Hashable, Sendable, CustomStringConvertible {
  case cannotOpen(FilePath, Errno)
  case cannotRead(FilePath, Errno)
  case cannotWrite(FilePath, Errno)
  case notACapture(FilePath, magic: UInt32)
  case unknownVersion(FilePath, major: UInt16, minor: UInt16)
  case truncatedHeader(FilePath, byteCount: Int)
  /// `packet` counts from 1.
  case truncatedPacket(FilePath, packet: Int)
  case absurdLength(FilePath, packet: Int, byteCount: UInt32, limit: Int)

  public var description: String {
    switch self {
    case .cannotOpen(let path, let error): "the capture \(path) cannot be opened: \(error)"
    case .cannotRead(let path, let error): "the capture \(path) cannot be read: \(error)"
    case .cannotWrite(let path, let error): "the capture \(path) cannot be written: \(error)"
    case .notACapture(let path, PcapFormat.nextGenerationMagic):
      "\(path) is a pcapng file, and only the older pcap format is read: convert it with editcap -F pcap"
    case .notACapture(let path, let magic):
      "\(path) is no pcap file: it begins with 0x\(String(magic, radix: 16))"
    case .unknownVersion(let path, let major, let minor):
      "the capture \(path) is of version \(major).\(minor), and only 2.4 is read"
    case .truncatedHeader(let path, let byteCount):
      "the capture \(path) ends after \(byteCount) bytes, within its header of \(PcapFormat.fileHeaderByteCount)"
    case .truncatedPacket(let path, let packet): "the capture \(path) ends within packet \(packet)"
    case .absurdLength(let path, let packet, let byteCount, let limit):
      "packet \(packet) of the capture \(path) claims to have \(byteCount) bytes, where at most \(limit) can be"
    }
  }
}
