import NetFront

/// A host's address and how many of its leading bits its whole network has, as in `10.9.0.2/24`.
public struct IPv4Network: Hashable, Sendable, CustomStringConvertible {
  public let address: IPv4Address
  /// From 1 to 32.
  public let prefixLength: Int

  /// Nil for anything but an address that a host can have, a slash and a number from 1 to 32.
  public init?(_ text: String) {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false)
    guard parts.count == 2, let address = IPv4Address(String(parts[0])), let length = Int(parts[1]),
      "\(length)" == parts[1], (1...32).contains(length)
    else { return nil }
    (self.address, prefixLength) = (address, length)
    guard canBeHost(address) else { return nil }
  }

  public var description: String { "\(address)/\(prefixLength)" }

  public func contains(_ other: IPv4Address) -> Bool { (other.bits ^ address.bits) & mask == 0 }

  /// Whether one host can have the address, as far as this network knows: no group's, none of everybody, none that only
  /// means "this network" or "this host", and none that is reserved (RFC 6890).
  public func canBeHost(_ other: IPv4Address) -> Bool {
    let first = other.bits >> 24
    guard first != 0, first != 127, first < 224 else { return false }
    // A network of two hosts has neither of the next two (RFC 3021).
    guard prefixLength < 31, contains(other) else { return true }
    return other.bits & ~mask != 0 && other.bits & ~mask != ~mask
  }

  private var mask: UInt32 { ~UInt32(0) << (32 - prefixLength) }
}

extension IPv4Address {
  fileprivate var bits: UInt32 { bytes.indices.reduce(0) { $0 << 8 | UInt32(bytes[$1]) } }
}
