/// The six bytes that name a network card.
public struct MACAddress: Hashable, Sendable, CustomStringConvertible {
  /// The bytes in transmission order, the first one in bits 47 to 40.
  private let bits: UInt64

  public init(_ bytes: InlineArray<6, UInt8>) {
    var bits: UInt64 = 0
    for index in bytes.indices { bits = bits << 8 | UInt64(bytes[index]) }
    self.bits = bits
  }

  /// Reads six pairs of hexadecimal digits between colons; nil for anything else.
  public init?(_ text: String) {
    var bits: UInt64 = 0
    var position = 0
    for byte in text.utf8 {
      if position % 3 == 2 {
        guard byte == UInt8(ascii: ":") else { return nil }
      } else {
        guard let digit = Self.digit(byte) else { return nil }
        bits = bits << 4 | digit
      }
      position += 1
      guard position <= 17 else { return nil }
    }
    guard position == 17 else { return nil }
    self.bits = bits
  }

  private static func digit(_ byte: UInt8) -> UInt64? {
    switch byte {
    case UInt8(ascii: "0")...UInt8(ascii: "9"): UInt64(byte - UInt8(ascii: "0"))
    case UInt8(ascii: "a")...UInt8(ascii: "f"): UInt64(byte - UInt8(ascii: "a")) + 10
    case UInt8(ascii: "A")...UInt8(ascii: "F"): UInt64(byte - UInt8(ascii: "A")) + 10
    default: nil
    }
  }

  /// In transmission order.
  public var bytes: InlineArray<6, UInt8> {
    InlineArray { UInt8(truncatingIfNeeded: bits >> (40 - 8 * $0)) }
  }

  /// Whether it names a group of cards (multicast, broadcast).
  public var isGroup: Bool { bits >> 40 & 1 == 1 }

  /// Whether one card can have it: no group's, and not all zero.
  public var namesOneCard: Bool { !isGroup && bits != 0 }

  public var description: String {
    stride(from: 40, through: 0, by: -8).map { shift in
      let byte = UInt8(truncatingIfNeeded: bits >> shift)
      return (byte < 16 ? "0" : "") + String(byte, radix: 16)
    }.joined(separator: ":")
  }
}

extension StoreDirectory {
  /// The key `mac`: a card's own address.
  public func macAddress() throws(DeviceError) -> MACAddress {
    let text = try string("mac")
    guard let address = MACAddress(text), address.namesOneCard else {
      throw .malformedKey(
        path: path(of: "mac"), value: text, expected: "the MAC address of one card, such as 00:16:3e:00:00:01,")
    }
    return address
  }
}
