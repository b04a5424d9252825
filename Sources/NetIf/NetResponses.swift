import XenPlatform

/// How a packet that we asked a backend to send ended: a transmit response that has passed the gate.
public enum NetTxResult: BitwiseCopyable, Hashable, Sendable {
  case sent
  case failed
  case dropped
  /// It answers an extra info, and its id means nothing: Linux's backend leaves there what the slot held before.
  case extraInfo

  /// Checks a copied response but for its id (io/netif.h, `netif_tx_response`).
  public init(parsing raw: NetIfTxResponse) throws(NetResponseViolation) {
    switch raw.status {
    case NetIf.Status.okay: self = .sent
    case NetIf.Status.dropped: self = .dropped
    case NetIf.Status.null: self = .extraInfo
    case Int16.min..<0: self = .failed
    default: throw .txStatus(id: raw.id, status: raw.status)
    }
  }
}

/// What a frontend has said that it takes, as far as it concerns receive responses.
public struct NetRxAgreement: BitwiseCopyable, Hashable, Sendable {
  /// Frames of several slots.
  public var scatterGather: Bool
  /// Frames with a blank checksum, and such that are to be cut.
  public var offloads: NetOffloads
  /// Hashes, which come when a control ring has asked for them.
  public var hashes: Bool
  /// Room before a frame (`xdp-headroom`).
  public var headroom: Bool

  public init(scatterGather: Bool, offloads: NetOffloads = [], hashes: Bool = false, headroom: Bool = false) {
    (self.scatterGather, self.offloads, self.hashes, self.headroom) = (scatterGather, offloads, hashes, headroom)
  }

  @inlinable var takesExtraInfos: Bool {
    hashes || headroom || !offloads.isDisjoint(with: [.tcpv4Segmentation, .tcpv6Segmentation])
  }

  @inlinable var takesBlankChecksums: Bool { !offloads.isDisjoint(with: [.ipv4Checksum, .ipv6Checksum]) }

  /// Shows a copied response to a frame's first slot, if it is a whole frame and a valid one, as most are: there is nothing to be
  /// put together.
  ///
  /// - Parameter slot: as for ``NetRxFragment/init(parsing:in:under:)``, which is for any other response.
  @inlinable @inline(__always) public func whole(_ raw: NetIfRxResponse, in slot: UInt16) -> NetRxFragment? {
    let flags =
      takesBlankChecksums ? NetIf.RxFlag.checksumBlank | NetIf.RxFlag.dataValidated : NetIf.RxFlag.dataValidated
    // Both are 16 bits wide, and the sum is not.
    guard raw.flags & ~flags == 0, raw.id == slot, raw.status >= Int16(NetIf.headerByteCount),
      Int(raw.offset) + Int(raw.status) <= xenPageSize
    else { return nil }
    return NetRxFragment(wholeFrame: raw)
  }
}

/// What a backend did with a page of ours: a receive response that has passed the gate.
public struct NetRxFragment: BitwiseCopyable, Hashable, Sendable {
  /// Where in the page a part of a frame lies, and how many bytes: within the page. Zero where the backend has failed.
  public let offset: Int
  public let byteCount: Int
  /// Whether the frame goes on in the next response, or behind its extra infos.
  public let hasMore: Bool
  /// Whether the next response is an extra info. That of a frame's first slot counts.
  public let hasExtraInfo: Bool
  /// Who looks after the frame's checksum. That of a frame's first slot counts.
  public let checksum: NetPacketMetadata.Checksum
  /// Whether the fragment, and with it its frame, is lost: the backend says so, or left a checksum blank, which we said that
  /// we do not take.
  public let isFailed: Bool

  /// A response that ``NetRxAgreement/whole(_:in:)`` has checked.
  @inlinable init(wholeFrame raw: NetIfRxResponse) {
    (offset, byteCount) = (Int(raw.offset), Int(raw.status))
    (hasMore, hasExtraInfo, isFailed) = (false, false, false)
    checksum = NetPacketMetadata.Checksum(rxFlags: raw.flags)
  }

  /// Checks a copied response (io/netif.h, `netif_rx_response`).
  ///
  /// - Parameters:
  ///   - slot: where in the ring it stood, which is its request's id too: responses stay in the slot of their request.
  ///   - agreement: what we have said that we take.
  @inlinable public init(
    parsing raw: NetIfRxResponse, in slot: UInt16, under agreement: NetRxAgreement
  ) throws(NetResponseViolation) {
    let refused =
      NetIf.RxFlag.gsoPrefix | (agreement.scatterGather ? 0 : NetIf.RxFlag.moreData)
      | (agreement.takesExtraInfos ? 0 : NetIf.RxFlag.extraInfo)
    guard raw.flags & refused == 0 else { throw .rxNotNegotiated(slot: slot, flags: raw.flags) }
    guard raw.id == slot else { throw .rxOutOfSlot(slot: slot, id: raw.id) }
    hasMore = raw.flags & NetIf.RxFlag.moreData != 0
    hasExtraInfo = raw.flags & NetIf.RxFlag.extraInfo != 0
    checksum = NetPacketMetadata.Checksum(rxFlags: raw.flags)
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
    isFailed = checksum == .blank && !agreement.takesBlankChecksums
  }
}

extension NetPacketMetadata.Checksum {
  /// As the first slot of a frame has it.
  @inlinable init(rxFlags flags: UInt16) {
    self =
      flags & NetIf.RxFlag.checksumBlank != 0
      ? .blank : flags & NetIf.RxFlag.dataValidated != 0 ? .validated : .present
  }
}

/// What the extra infos of a frame that arrives say, as they come; an extra info stands in the slot of a request, whose page
/// is not used.
public struct NetRxExtraInfos: BitwiseCopyable, Sendable {
  /// How many there were.
  public private(set) var count = 0
  public private(set) var segmentation: NetPacketMetadata.Segmentation?
  public private(set) var hash: NetPacketMetadata.Hash?
  /// How many bytes are free before each fragment.
  public private(set) var headroomByteCount = 0
  private var hasHeadroom = false
  /// Whether they mean something that was not agreed on, or nothing: their frame is lost.
  public private(set) var isFaulty = false

  public init() {}

  /// Takes the next one in.
  ///
  /// - Returns: whether another one follows.
  /// - Throws: when there are more than a frame can have.
  public mutating func take(
    _ raw: NetIfExtraInfo, under agreement: NetRxAgreement
  ) throws(NetResponseViolation) -> Bool {
    guard count < NetIf.ExtraType.count else { throw .rxTooManyExtraInfos }
    count += 1
    do throws(NetExtraInfoFault) {
      if try !takes(NetExtraInfo(parsing: raw), under: agreement) { isFaulty = true }
    } catch { isFaulty = true }
    return raw.hasMore
  }

  /// - Returns: whether it was agreed on, and is the first of its type.
  private mutating func takes(_ info: NetExtraInfo, under agreement: NetRxAgreement) -> Bool {
    switch info {
    case .segmentation(let kind, let payloadByteCount):
      guard segmentation == nil, agreement.offloads.contains(NetOffloads(cutting: kind)) else { return false }
      segmentation = NetPacketMetadata.Segmentation(kind, payloadByteCount: payloadByteCount)
    case .hash(let kind, let value):
      guard hash == nil, agreement.hashes else { return false }
      hash = NetPacketMetadata.Hash(kind, value: value)
    case .headroom(let byteCount):
      guard !hasHeadroom, agreement.headroom else { return false }
      (headroomByteCount, hasHeadroom) = (Int(byteCount), true)
    case .addMulticast, .removeMulticast: return false
    }
    return true
  }
}

extension NetOffloads {
  /// That packets to be cut into segments of this kind are taken.
  public init(cutting kind: NetExtraInfo.SegmentKind) {
    switch kind {
    case .tcpv4: self = .tcpv4Segmentation
    case .tcpv6: self = .tcpv6Segmentation
    }
  }
}

/// A response that no backend may give: nothing that follows it can be trusted.
@nonexhaustive public enum NetResponseViolation: Error, Hashable, Sendable, CustomStringConvertible {
  case txNotInFlight(id: UInt16)
  case txStatus(id: UInt16, status: Int16)
  case txExtraInfo
  case rxOutOfSlot(slot: UInt16, id: UInt16)
  case rxNotNegotiated(slot: UInt16, flags: UInt16)
  case rxOutsidePage(slot: UInt16, offset: UInt16, byteCount: Int16)
  case rxTooManyExtraInfos

  public var description: String {
    switch self {
    case .txNotInFlight(let id): "the backend answered tx request \(id), which is not in flight"
    case .txStatus(let id, let status):
      "the backend answered tx request \(id) with status \(status), which means nothing"
    case .txExtraInfo: "the backend answered more tx extra infos than there are in flight"
    case .rxOutOfSlot(let slot, let id):
      "the backend answered rx request \(id) in the slot of request \(slot)"
    case .rxNotNegotiated(let slot, let flags):
      "the backend answered rx request \(slot) with flags \(flags): several slots or extra information, never agreed on"
    case .rxOutsidePage(let slot, let offset, let byteCount):
      "the backend answered rx request \(slot) with \(byteCount) bytes from \(offset) on, which leave the page"
    case .rxTooManyExtraInfos:
      "the backend gave a frame with more than \(NetIf.ExtraType.count) extra infos"
    }
  }
}
