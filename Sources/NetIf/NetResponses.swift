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
public enum NetRxResult: Hashable, Sendable {
  /// A frame lies in the page, from `offset` on: within the page, at least an Ethernet header.
  case frame(offset: Int, byteCount: Int)
  /// There is no frame in the page, or one that cannot be used.
  case failed

  /// Checks a copied response (io/netif.h, `netif_rx_response`).
  ///
  /// - Parameter slot: where in the ring it stood, which is its request's id too: responses stay in the slot of their
  ///   request.
  public init(parsing raw: NetIfRxResponse, in slot: UInt16) throws(NetResponseViolation) {
    guard raw.flags & (NetIf.RxFlag.moreData | NetIf.RxFlag.extraInfo | NetIf.RxFlag.gsoPrefix) == 0 else {
      throw .rxNotNegotiated(slot: slot, flags: raw.flags)
    }
    guard raw.id == slot else { throw .rxOutOfSlot(slot: slot, id: raw.id) }
    guard raw.status >= 0 else {
      self = .failed
      return
    }
    // Both are 16 bits wide, and the sum is not.
    guard Int(raw.offset) + Int(raw.status) <= xenPageSize else {
      throw .rxOutsidePage(slot: slot, offset: raw.offset, byteCount: raw.status)
    }
    // Its checksum was left for hardware that we said we are not.
    guard raw.status >= NetIf.headerByteCount, raw.flags & NetIf.RxFlag.checksumBlank == 0 else {
      self = .failed
      return
    }
    self = .frame(offset: Int(raw.offset), byteCount: Int(raw.status))
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
