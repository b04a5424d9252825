/// An IPv4 address.
public struct IPv4Address: Hashable, Sendable, CustomStringConvertible {
  /// In transmission order.
  public var bytes: InlineArray<4, UInt8> { InlineArray { UInt8(truncatingIfNeeded: bits >> (24 - 8 * $0)) } }
  private let bits: UInt32

  public init(_ bytes: InlineArray<4, UInt8>) {
    var bits: UInt32 = 0
    for index in bytes.indices { bits = bits << 8 | UInt32(bytes[index]) }
    self.bits = bits
  }

  /// Reads four decimal numbers between dots; nil for anything else.
  public init?(_ text: String) {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    var bits: UInt32 = 0
    for part in parts {
      guard part.utf8.allSatisfy({ (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }), let byte = UInt8(part)
      else {
        return nil
      }
      bits = bits << 8 | UInt32(byte)
    }
    self.bits = bits
  }

  public var description: String {
    stride(from: 24, through: 0, by: -8).map { "\(bits >> UInt32($0) & 0xFF)" }.joined(separator: ".")
  }
}

extension MACAddress {
  /// The frame with which the card of this address says that it has `address` too, so that switches and neighbours learn
  /// where it is now: an ARP request for its own address, to everybody (RFC 5227, "ARP Announcement").
  public func gratuitousARP(for address: IPv4Address) -> [UInt8] {
    let own = bytes.indices.map { bytes[$0] }
    let ip = address.bytes.indices.map { address.bytes[$0] }
    return [UInt8](repeating: 0xFF, count: 6) + own + [0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1] + own + ip
      + [UInt8](repeating: 0, count: 6) + ip
  }
}
