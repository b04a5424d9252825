import XenPlatform

/// A packet to send, as far as the wire describes it, that has passed the gate: it lies within its page.
///
/// What the grant reference names is for the hypervisor to judge.
public struct NetTxRequest: BitwiseCopyable, Sendable {
  public let reference: GrantReference
  /// Bytes from the start of the granted page, and how many: within the page, at least an Ethernet header.
  public let offset: UInt16
  public let byteCount: UInt16
  /// For the response.
  public let id: UInt16

  /// Checks a copied slot that begins a packet: the one gate for transmit requests (io/netif.h, `netif_tx_request`).
  public init(parsing raw: NetIfTxRequest) throws(NetTxRequestFault) {
    guard raw.flags & (NetIf.TxFlag.moreData | NetIf.TxFlag.extraInfo | NetIf.TxFlag.checksumBlank) == 0 else {
      throw .notNegotiated(flags: raw.flags)
    }
    guard raw.size >= NetIf.headerByteCount else { throw .tooShort(byteCount: raw.size) }
    // Both are 16 bits wide, and the sum is not.
    guard UInt32(raw.offset) + UInt32(raw.size) <= xenPageSize else {
      throw .outsidePage(offset: raw.offset, byteCount: raw.size)
    }
    reference = GrantReference(rawValue: raw.gref)
    offset = raw.offset
    byteCount = raw.size
    id = raw.id
  }
}

/// Why a packet is answered with an error. It concerns that packet and nothing else.
@nonexhaustive public enum NetTxRequestFault: Error, Hashable, Sendable, CustomStringConvertible {
  /// It uses what the backend did not offer: several slots, extra information or a blank checksum.
  case notNegotiated(flags: UInt16)
  case tooShort(byteCount: UInt16)
  case outsidePage(offset: UInt16, byteCount: UInt16)

  public var description: String {
    switch self {
    case .notNegotiated(let flags):
      "a packet with flags \(flags) has several slots, extra information or a blank checksum, none of which is offered"
    case .tooShort(let byteCount): "\(byteCount) bytes are less than an Ethernet header"
    case .outsidePage(let offset, let byteCount): "\(byteCount) bytes from \(offset) on leave the page"
    }
  }
}

/// Which slots of the transmit ring belong to a packet that has been refused, so that none of them is taken for a packet:
/// its extra infos and then its further fragments (io/netif.h, "Guest transmit"). They may come long after its first one.
public struct NetTxRefusal: BitwiseCopyable, Sendable {
  private var extraFollows = false
  private var fragmentFollows = false

  /// Nothing is left of any refused packet.
  public init() {}

  /// A packet that begins with this slot is refused.
  public mutating func begin(_ raw: NetIfTxRequest) {
    extraFollows = raw.flags & NetIf.TxFlag.extraInfo != 0
    fragmentFollows = raw.flags & NetIf.TxFlag.moreData != 0
  }

  /// The response that this slot gets if it belongs to the refused packet; nil when it begins a packet of its own.
  public mutating func response(to raw: NetIfTxRequest) -> NetIfTxResponse? {
    if extraFollows {
      extraFollows = raw.isExtraInfoWithMore
      return NetIfTxResponse(id: 0, status: NetIf.Status.null)
    }
    guard fragmentFollows else { return nil }
    fragmentFollows = raw.flags & NetIf.TxFlag.moreData != 0
    return NetIfTxResponse(id: raw.id, status: NetIf.Status.error)
  }
}
