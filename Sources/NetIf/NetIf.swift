@_exported import XenBus
@_exported import XenPlatform

/// The numbers of io/netif.h. TX and RX are the frontend's, everywhere.
public enum NetIf {
  /// The smallest frame: an Ethernet header.
  public static let headerByteCount = 14
  /// What one VLAN tag adds to a frame.
  public static let vlanTagByteCount = 4
  /// The MTU of a card whose directory names none (`mtu`).
  public static let defaultMTU = 1500
  /// The smallest MTU that IPv4 allows (RFC 791), and the largest whose frame a 16-bit length still holds.
  public static let mtuRange = 68...(0xFFFF - headerByteCount - vlanTagByteCount)

  /// The longest frame: a packet's size is 16 bits wide (`XEN_NETIF_MAX_TX_SIZE`).
  public static let maxFrameByteCount = 0xFFFF
  /// How many slots with data a packet may have that both ends can count on (`XEN_NETIF_NR_SLOTS_MIN`).
  public static let maxFragmentCount = 18
  /// How many slots with data a packet may have before its sender counts as broken. Linux's network backend allows by
  /// default as many behind the first one, so one more.
  public static let fatalFragmentCount = 20

  /// How many pages, and so slots, so many bytes take from the start of the first one on.
  @inlinable public static func pageCount(of byteCount: Int) -> Int { (byteCount + xenPageSize - 1) / xenPageSize }

  /// `NETTXF_*`.
  public enum TxFlag {
    public static let checksumBlank: UInt16 = 1
    public static let dataValidated: UInt16 = 2
    public static let moreData: UInt16 = 4
    public static let extraInfo: UInt16 = 8
  }

  /// `NETRXF_*`.
  public enum RxFlag {
    public static let dataValidated: UInt16 = 1
    public static let checksumBlank: UInt16 = 2
    public static let moreData: UInt16 = 4
    public static let extraInfo: UInt16 = 8
    public static let gsoPrefix: UInt16 = 16
  }

  /// `XEN_NETIF_EXTRA_TYPE_*`.
  public enum ExtraType {
    public static let segmentation: UInt8 = 1
    public static let addMulticast: UInt8 = 2
    public static let removeMulticast: UInt8 = 3
    public static let hash: UInt8 = 4
    /// Only in Linux's copy of the header.
    public static let headroom: UInt8 = 5
    /// How many there are; a packet has each once at most.
    public static let count = 5
  }

  /// `XEN_NETIF_EXTRA_FLAG_MORE`: another extra info follows.
  public static let extraFlagMore: UInt8 = 1

  /// `NETIF_RSP_*`.
  public enum Status {
    public static let okay: Int16 = 0
    public static let error: Int16 = -1
    public static let dropped: Int16 = -2
    /// Answers a slot that was no request of its own (`netif_extra_info`).
    public static let null: Int16 = 1
  }
}

/// A transmit request slot (`netif_tx_request`): 12 bytes. Raw: nothing in it is checked.
public struct NetIfTxRequest: BitwiseCopyable, Sendable {
  public var gref: UInt32
  public var offset: UInt16
  public var flags: UInt16
  public var id: UInt16
  /// Of the whole packet in its first slot, of the fragment in every other.
  public var size: UInt16

  public init(gref: GrantReference, offset: UInt16 = 0, flags: UInt16 = 0, id: UInt16, size: UInt16) {
    self.gref = gref.rawValue
    self.offset = offset
    self.flags = flags
    self.id = id
    self.size = size
  }
}

/// A transmit response slot (`netif_tx_response`): 4 bytes. Raw: nothing in it is checked.
public struct NetIfTxResponse: BitwiseCopyable, Sendable {
  public var id: UInt16
  public var status: Int16

  public init(id: UInt16, status: Int16) {
    self.id = id
    self.status = status
  }
}

/// A receive request slot (`netif_rx_request`): 8 bytes. Raw: nothing in it is checked.
public struct NetIfRxRequest: BitwiseCopyable, Sendable {
  public var id: UInt16
  var padding: UInt16 = 0
  public var gref: UInt32

  public init(id: UInt16, gref: GrantReference) {
    self.id = id
    self.gref = gref.rawValue
  }
}

/// A receive response slot (`netif_rx_response`): 8 bytes. Raw: nothing in it is checked.
public struct NetIfRxResponse: BitwiseCopyable, Sendable {
  public var id: UInt16
  public var offset: UInt16
  public var flags: UInt16
  /// The fragment's byte count, or a negative `NETIF_RSP_*`.
  public var status: Int16

  public init(id: UInt16, offset: UInt16 = 0, flags: UInt16 = 0, status: Int16) {
    self.id = id
    self.offset = offset
    self.flags = flags
    self.status = status
  }
}
