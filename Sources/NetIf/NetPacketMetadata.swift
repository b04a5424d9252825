/// What goes with a packet besides its bytes: who looks after its checksum, how it is to be cut, its hash (io/netif.h, flags
/// and "Extra Info").
///
/// All of it is one word, which goes from packet to packet in a register.
@frozen public struct NetPacketMetadata: BitwiseCopyable, Hashable, Sendable {
  /// The checksum in the two lowest bits; then the kind of segments, zero for none, and whether there is a hash, and its kind;
  /// in the two bytes from bit 16 on how long a segment's payload is; in the four highest bytes the hash.
  @usableFromInline var bits: UInt64

  /// Of its TCP or UDP part.
  @frozen public enum Checksum: UInt8, BitwiseCopyable, Sendable {
    /// It stands in its field, and nobody has said that it is right.
    case present
    /// Whoever brought the packet says that it is right, or that there was nothing on its way that could change a bit
    /// (`NETTXF_data_validated`, `NETRXF_data_validated`).
    case validated
    /// Its field holds the sum of the pseudo-header at most; whoever sends the packet over a wire fills it in
    /// (`NETTXF_csum_blank`, `NETRXF_csum_blank`).
    case blank
  }

  @inlinable public var checksum: Checksum {
    get {
      switch bits & 3 {
      case 0: .present
      case 1: .validated
      default: .blank
      }
    }
    set { bits = bits & ~3 | UInt64(newValue.rawValue) }
  }

  /// Into which segments it is to be cut; nil for a packet that goes as it is.
  @inlinable public var segmentation: Segmentation? {
    get {
      guard let kind = NetExtraInfo.SegmentKind(rawValue: UInt8(truncatingIfNeeded: bits &>> 2 & 3)) else { return nil }
      return Segmentation(kind, payloadByteCount: UInt16(truncatingIfNeeded: bits &>> 16))
    }
    set {
      bits &= ~0xFFFF_000C
      if let newValue { bits |= UInt64(newValue.kind.rawValue) &<< 2 | UInt64(newValue.payloadByteCount) &<< 16 }
    }
  }

  /// Its Toeplitz hash, where the other end has computed one.
  @inlinable public var hash: Hash? {
    get {
      guard bits & 0x10 != 0, let kind = NetExtraInfo.HashKind(rawValue: UInt8(truncatingIfNeeded: bits &>> 5 & 3))
      else { return nil }
      return Hash(kind, value: UInt32(truncatingIfNeeded: bits &>> 32))
    }
    set {
      bits &= 0xFFFF_FF8F
      if let newValue { bits |= 0x10 | UInt64(newValue.kind.rawValue) &<< 5 | UInt64(newValue.value) &<< 32 }
    }
  }

  /// `XEN_NETIF_EXTRA_TYPE_GSO`.
  @frozen public struct Segmentation: BitwiseCopyable, Hashable, Sendable {
    public var kind: NetExtraInfo.SegmentKind
    /// Of each segment but the last: at least one.
    public var payloadByteCount: UInt16

    @inlinable public init(_ kind: NetExtraInfo.SegmentKind, payloadByteCount: UInt16) {
      (self.kind, self.payloadByteCount) = (kind, payloadByteCount)
    }
  }

  /// `XEN_NETIF_EXTRA_TYPE_HASH`.
  @frozen public struct Hash: BitwiseCopyable, Hashable, Sendable {
    public var kind: NetExtraInfo.HashKind
    public var value: UInt32

    @inlinable public init(_ kind: NetExtraInfo.HashKind, value: UInt32) { (self.kind, self.value) = (kind, value) }
  }

  /// Nothing but its bytes.
  @inlinable public init() { bits = 0 }

  @inlinable public init(checksum: Checksum, segmentation: Segmentation? = nil, hash: Hash? = nil) {
    bits = UInt64(checksum.rawValue)
    if let segmentation { self.segmentation = segmentation }
    if let hash { self.hash = hash }
  }
}

/// What an end takes unfinished, since it, or what is behind it, finishes it: checksums left blank, and packets to be cut
/// (`feature-*csum-offload`, `feature-gso-tcpv4`, `feature-gso-tcpv6`).
public struct NetOffloads: OptionSet, BitwiseCopyable, Hashable, Sendable {
  public let rawValue: UInt8

  @inlinable public init(rawValue: UInt8) { self.rawValue = rawValue }

  /// TCP and UDP over IPv4 with a blank checksum.
  @inlinable public static var ipv4Checksum: NetOffloads { NetOffloads(rawValue: 1) }
  /// TCP and UDP over IPv6 with a blank checksum.
  @inlinable public static var ipv6Checksum: NetOffloads { NetOffloads(rawValue: 2) }
  /// TCP over IPv4 to be cut; its checksum is blank, too.
  @inlinable public static var tcpv4Segmentation: NetOffloads { NetOffloads(rawValue: 4) }
  /// TCP over IPv6 to be cut; its checksum is blank, too.
  @inlinable public static var tcpv6Segmentation: NetOffloads { NetOffloads(rawValue: 8) }

  @inlinable public static var all: NetOffloads { NetOffloads(rawValue: 15) }
}
