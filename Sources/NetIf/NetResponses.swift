import XenPlatform

/// How a packet that we asked a backend to send ended: a transmit response that has passed the gate.
public enum NetTxResult: Hashable, Sendable {
  case sent
  case failed
  case dropped

  /// Checks a copied response but for its id (io/netif.h, `netif_tx_response`).
  public init(parsing raw: NetIfTxResponse) throws(NetResponseViolation) {
    switch raw.status {
    case NetIf.Status.okay: self = .sent
    case NetIf.Status.dropped: self = .dropped
    case Int16.min..<0: self = .failed
    // Null answers extra information, which is never sent.
    default: throw .txStatus(id: raw.id, status: raw.status)
    }
  }
}

/// What a backend did with a page of ours: a receive response that has passed the gate.
public struct NetRxFragment: Hashable, Sendable {
  /// Where in the page a part of a frame lies, and how many bytes: within the page. Zero where the backend has failed.
  public let offset: Int
  public let byteCount: Int
  /// Whether the frame goes on in the next response.
  public let hasMore: Bool
  /// Whether the fragment, and with it its frame, is lost: the backend says so, or left a checksum for hardware that we
  /// said we are not.
  public let isFailed: Bool

  /// Checks a copied response (io/netif.h, `netif_rx_response`).
  ///
  /// - Parameters:
  ///   - slot: where in the ring it stood, which is its request's id too: responses stay in the slot of their request.
  ///   - scatterGather: whether frames of several slots have been agreed on.
  public init(parsing raw: NetIfRxResponse, in slot: UInt16, scatterGather: Bool) throws(NetResponseViolation) {
    let refused = NetIf.RxFlag.extraInfo | NetIf.RxFlag.gsoPrefix | (scatterGather ? 0 : NetIf.RxFlag.moreData)
    guard raw.flags & refused == 0 else { throw .rxNotNegotiated(slot: slot, flags: raw.flags) }
    guard raw.id == slot else { throw .rxOutOfSlot(slot: slot, id: raw.id) }
    hasMore = raw.flags & NetIf.RxFlag.moreData != 0
    guard raw.status >= 0 else {
      (offset, byteCount, isFailed) = (0, 0, true)
      return
    }
    // Both are 16 bits wide, and the sum is not.
    guard Int(raw.offset) + Int(raw.status) <= xenPageSize else {
      throw .rxOutsidePage(slot: slot, offset: raw.offset, byteCount: raw.status)
    }
    offset = Int(raw.offset)
    byteCount = Int(raw.status)
    isFailed = raw.flags & NetIf.RxFlag.checksumBlank != 0
  }
}

/// A response that no backend may give: nothing that follows it can be trusted.
@nonexhaustive public enum NetResponseViolation: Error, Hashable, Sendable, CustomStringConvertible {
  case txNotInFlight(id: UInt16)
  case txStatus(id: UInt16, status: Int16)
  case rxOutOfSlot(slot: UInt16, id: UInt16)
  case rxNotNegotiated(slot: UInt16, flags: UInt16)
  case rxOutsidePage(slot: UInt16, offset: UInt16, byteCount: Int16)

  public var description: String {
    switch self {
    case .txNotInFlight(let id): "the backend answered tx request \(id), which is not in flight"
    case .txStatus(let id, let status):
      "the backend answered tx request \(id) with status \(status), which means nothing"
    case .rxOutOfSlot(let slot, let id):
      "the backend answered rx request \(id) in the slot of request \(slot)"
    case .rxNotNegotiated(let slot, let flags):
      "the backend answered rx request \(slot) with flags \(flags): several slots or extra information, never agreed on"
    case .rxOutsidePage(let slot, let offset, let byteCount):
      "the backend answered rx request \(slot) with \(byteCount) bytes from \(offset) on, which leave the page"
    }
  }
}
