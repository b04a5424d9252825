/// An extra info slot (`netif_extra_info`), in the place of a transmit request or a receive response: 8 bytes. Raw: nothing
/// in it is checked.
public struct NetIfExtraInfo: BitwiseCopyable, Sendable {
  public var type: UInt8
  public var flags: UInt8
  /// The six bytes that mean something else in each type, two by two, the first one lowest.
  public var words: (UInt16, UInt16, UInt16)

  public init(type: UInt8, flags: UInt8 = 0, words: (UInt16, UInt16, UInt16)) {
    self.type = type
    self.flags = flags
    self.words = words
  }

  /// A slot that turns out to be an extra info, read as one.
  public init(_ slot: NetIfTxRequest) {
    type = UInt8(truncatingIfNeeded: slot.gref)
    flags = UInt8(truncatingIfNeeded: slot.gref >> 8)
    words = (UInt16(truncatingIfNeeded: slot.gref >> 16), slot.offset, slot.flags)
  }

  /// A slot that turns out to be an extra info, read as one.
  public init(_ slot: NetIfRxResponse) {
    type = UInt8(truncatingIfNeeded: slot.id)
    flags = UInt8(truncatingIfNeeded: slot.id >> 8)
    words = (slot.offset, slot.flags, UInt16(bitPattern: slot.status))
  }

  /// The slot that carries it to a backend.
  public var transmitSlot: NetIfTxRequest {
    NetIfTxRequest(
      gref: GrantReference(rawValue: UInt32(type) | UInt32(flags) << 8 | UInt32(words.0) << 16), offset: words.1,
      flags: words.2, id: 0, size: 0)
  }

  /// Whether another extra info follows.
  public var hasMore: Bool { flags & NetIf.extraFlagMore != 0 }
}

/// What goes with a packet besides its bytes, that has passed the gate (io/netif.h, "Extra Info").
public enum NetExtraInfo: Hashable, Sendable {
  /// Over which headers of a packet its hash was computed (`_XEN_NETIF_CTRL_HASH_TYPE_*`).
  @frozen public enum HashKind: UInt8, BitwiseCopyable, Sendable { case ipv4, ipv4TCP, ipv6, ipv6TCP }
  /// Which segments a large packet is to be cut into (`XEN_NETIF_GSO_TYPE_*`).
  @frozen public enum SegmentKind: UInt8, BitwiseCopyable, Sendable {
    case tcpv4 = 1
    case tcpv6 = 2
  }

  /// The packet is to be cut into segments with so many bytes of payload each, at least one (GSO).
  case segmentation(SegmentKind, payloadByteCount: UInt16)
  /// From now on the frontend wants what is sent to this group.
  case addMulticast(MACAddress)
  case removeMulticast(MACAddress)
  /// The packet's Toeplitz hash.
  case hash(HashKind, value: UInt32)
  /// So many bytes before the packet are free, for an XDP program to use; at most ``maxHeadroomByteCount``.
  case headroom(byteCount: UInt16)

  /// `XEN_NETIF_MAX_XDP_HEADROOM` of Linux's header.
  public static let maxHeadroomByteCount: UInt16 = 0x7FFF

  /// Checks a copied slot: the one gate for extra infos.
  public init(parsing raw: NetIfExtraInfo) throws(NetExtraInfoFault) {
    let low = UInt8(truncatingIfNeeded: raw.words.0)
    switch raw.type {
    case NetIf.ExtraType.segmentation:
      // No extra features are defined; what is not understood is not done by halves.
      guard let kind = SegmentKind(rawValue: UInt8(truncatingIfNeeded: raw.words.1)), raw.words.2 == 0 else {
        throw .segmentation(type: UInt8(truncatingIfNeeded: raw.words.1), features: raw.words.2)
      }
      guard raw.words.0 > 0 else { throw .emptySegments }
      self = .segmentation(kind, payloadByteCount: raw.words.0)
    case NetIf.ExtraType.addMulticast, NetIf.ExtraType.removeMulticast:
      let address = MACAddress(words: raw.words)
      guard address.isGroup else { throw .noGroup(address) }
      self = raw.type == NetIf.ExtraType.addMulticast ? .addMulticast(address) : .removeMulticast(address)
    case NetIf.ExtraType.hash:
      let algorithm = UInt8(truncatingIfNeeded: raw.words.0 >> 8)
      guard let kind = HashKind(rawValue: low), algorithm == Self.toeplitz else {
        throw .hash(type: low, algorithm: algorithm)
      }
      self = .hash(kind, value: UInt32(raw.words.1) | UInt32(raw.words.2) << 16)
    case NetIf.ExtraType.headroom:
      guard raw.words.0 <= Self.maxHeadroomByteCount else { throw .headroom(byteCount: raw.words.0) }
      self = .headroom(byteCount: raw.words.0)
    default: throw .unknownType(raw.type)
    }
  }

  /// `XEN_NETIF_CTRL_HASH_ALGORITHM_TOEPLITZ`.
  private static let toeplitz: UInt8 = 1
}

/// Why an extra info means nothing. It concerns its packet and nothing else.
@nonexhaustive public enum NetExtraInfoFault: Error, Hashable, Sendable, CustomStringConvertible {
  case unknownType(UInt8)
  case segmentation(type: UInt8, features: UInt16)
  case emptySegments
  case noGroup(MACAddress)
  case hash(type: UInt8, algorithm: UInt8)
  case headroom(byteCount: UInt16)

  public var description: String {
    switch self {
    case .unknownType(let type): "an extra info has the type \(type), which is not known"
    case .segmentation(let type, let features):
      "segments of type \(type) with features \(features) are asked for, and only TCP without features is known"
    case .emptySegments: "segments without payload are asked for"
    case .noGroup(let address): "\(address) is named as a multicast group, and is the address of one card"
    case .hash(let type, let algorithm): "a hash of type \(type) by algorithm \(algorithm) is not known"
    case .headroom(let byteCount): "a headroom of \(byteCount) bytes is more than a packet can have"
    }
  }
}

extension MACAddress {
  /// The bytes in transmission order, two by two, the first one lowest.
  fileprivate init(words: (UInt16, UInt16, UInt16)) {
    self.init([
      UInt8(truncatingIfNeeded: words.0), UInt8(truncatingIfNeeded: words.0 >> 8), UInt8(truncatingIfNeeded: words.1),
      UInt8(truncatingIfNeeded: words.1 >> 8), UInt8(truncatingIfNeeded: words.2),
      UInt8(truncatingIfNeeded: words.2 >> 8),
    ])
  }
}
