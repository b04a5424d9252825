import XenPlatform

/// A control request slot (`xen_netif_ctrl_request`): 16 bytes. Raw: nothing in it is checked.
public struct NetIfControlRequest: BitwiseCopyable, Sendable {
  public var id: UInt16
  public var type: UInt16
  public var data: (UInt32, UInt32, UInt32)

  public init(id: UInt16, type: UInt16, data: (UInt32, UInt32, UInt32)) {
    (self.id, self.type, self.data) = (id, type, data)
  }
}

/// A control response slot (`xen_netif_ctrl_response`): 12 bytes. Raw: nothing in it is checked.
public struct NetIfControlResponse: BitwiseCopyable, Sendable {
  public var id: UInt16
  public var type: UInt16
  public var status: UInt32
  public var data: UInt32

  public init(id: UInt16, type: UInt16, status: UInt32, data: UInt32) {
    (self.id, self.type, self.status, self.data) = (id, type, status, data)
  }
}

/// What a control request asks for (`XEN_NETIF_CTRL_TYPE_*`).
public enum NetControlType: UInt16, Sendable {
  case getHashFlags = 1
  case setHashFlags
  case setHashKey
  case getHashMappingSize
  case setHashMappingSize
  case setHashMapping
  case setHashAlgorithm
  case getGrantMappingSize
  case addGrantMapping
  case removeGrantMapping
}

/// How a control request ended (`XEN_NETIF_CTRL_STATUS_*`).
public enum NetControlStatus: UInt32, Sendable {
  case success
  case notSupported
  case invalidParameter
  case bufferOverflow
}

/// By what a packet's hash is computed (`XEN_NETIF_CTRL_HASH_ALGORITHM_*`).
public enum NetHashAlgorithm: UInt32, Sendable {
  /// There is no hash, and the backend sends a packet on whichever queue it likes.
  case none
  case toeplitz
}

/// Over which headers hashes are computed (`XEN_NETIF_CTRL_HASH_TYPE_*`); of those that fit a packet, over the most of them.
public struct NetHashKinds: OptionSet, Hashable, Sendable {
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// The addresses of any IPv4 packet.
  public static let ipv4 = NetHashKinds(.ipv4)
  /// The addresses and ports of TCP over IPv4, but not of fragments.
  public static let ipv4TCP = NetHashKinds(.ipv4TCP)
  public static let ipv6 = NetHashKinds(.ipv6)
  public static let ipv6TCP = NetHashKinds(.ipv6TCP)
  public static let all: NetHashKinds = [.ipv4, .ipv4TCP, .ipv6, .ipv6TCP]

  public init(_ kind: NetExtraInfo.HashKind) { rawValue = 1 << UInt32(kind.rawValue) }
}

/// An entry of a list of grants to be mapped or unmapped (`xen_netif_gref`): 8 bytes. Raw: nothing in it is checked.
public struct NetIfGrantMapping: BitwiseCopyable, Sendable {
  public static let byteCount = 8
  /// `XEN_NETIF_CTRLF_GREF_readonly`.
  public static let readOnlyFlag: UInt16 = 1

  public var gref: UInt32
  public var flags: UInt16
  public var status: UInt16

  public init(gref: GrantReference, flags: UInt16 = 0, status: UInt16 = 0) {
    (self.gref, self.flags, self.status) = (gref.rawValue, flags, status)
  }
}
