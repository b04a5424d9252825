/// What goes with a packet besides its bytes: who looks after its checksum, how it is to be cut, its hash (io/netif.h, flags
/// and "Extra Info").
public struct NetPacketMetadata: BitwiseCopyable, Hashable, Sendable {
  /// Of its TCP or UDP part.
  public enum Checksum: UInt8, BitwiseCopyable, Sendable {
    /// It stands in its field, and nobody has said that it is right.
    case present
    /// Whoever brought the packet says that it is right, or that there was nothing on its way that could change a bit
    /// (`NETTXF_data_validated`, `NETRXF_data_validated`).
    case validated
    /// Its field holds the sum of the pseudo-header at most; whoever sends the packet over a wire fills it in
    /// (`NETTXF_csum_blank`, `NETRXF_csum_blank`).
    case blank
  }

  public var checksum = Checksum.present
  /// Into which segments it is to be cut; nil for a packet that goes as it is.
  public var segmentation: Segmentation?
  /// Its Toeplitz hash, where the other end has computed one.
  public var hash: Hash?

  /// `XEN_NETIF_EXTRA_TYPE_GSO`.
  public struct Segmentation: BitwiseCopyable, Hashable, Sendable {
    public var kind: NetExtraInfo.SegmentKind
    /// Of each segment but the last: at least one.
    public var payloadByteCount: UInt16

    public init(_ kind: NetExtraInfo.SegmentKind, payloadByteCount: UInt16) {
      (self.kind, self.payloadByteCount) = (kind, payloadByteCount)
    }
  }

  /// `XEN_NETIF_EXTRA_TYPE_HASH`.
  public struct Hash: BitwiseCopyable, Hashable, Sendable {
    public var kind: NetExtraInfo.HashKind
    public var value: UInt32

    public init(_ kind: NetExtraInfo.HashKind, value: UInt32) { (self.kind, self.value) = (kind, value) }
  }

  /// Nothing but its bytes.
  public init() {}

  public init(checksum: Checksum, segmentation: Segmentation? = nil, hash: Hash? = nil) {
    (self.checksum, self.segmentation, self.hash) = (checksum, segmentation, hash)
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
