import XenPlatform

/// One slot's part of a packet to send, that has passed the gate: it lies within its page.
///
/// What the grant reference names is for the hypervisor to judge.
public struct NetTxFragment: BitwiseCopyable, Hashable, Sendable {
  public let reference: GrantReference
  /// Bytes from the start of the granted page, and how many: within the page. A further fragment may have none.
  public let offset: UInt16
  /// For the response.
  public let id: UInt16
  @inlinable public var byteCount: UInt16 { storedByteCount }
  // Not beside the offset, with which it would be read as one while it has just been written by itself: such a read waits.
  @usableFromInline var storedByteCount: UInt16

  @inlinable init(_ raw: NetIfTxRequest) {
    reference = GrantReference(rawValue: raw.gref)
    offset = raw.offset
    storedByteCount = raw.size
    id = raw.id
  }

  fileprivate static var none: NetTxFragment {
    NetTxFragment(NetIfTxRequest(gref: GrantReference(rawValue: 0), id: 0, size: 0))
  }
}

/// What has been agreed on with a frontend, as far as it concerns what it sends.
public struct NetTxAgreement: BitwiseCopyable, Hashable, Sendable {
  /// Packets of several slots.
  public var scatterGather: Bool
  /// Packets to be cut, of these kinds. Whose checksum is blank is not asked here: a frontend may leave it so before it has
  /// read what the backend offers.
  public var offloads: NetOffloads
  /// Words about groups.
  public var multicastControl: Bool
  /// Hashes.
  public var hashes: Bool

  public init(
    scatterGather: Bool, offloads: NetOffloads = [], multicastControl: Bool = false, hashes: Bool = false
  ) {
    self.scatterGather = scatterGather
    self.offloads = offloads
    self.multicastControl = multicastControl
    self.hashes = hashes
  }
}

extension NetOffloads {
  /// Whether packets that are to be cut so are among them.
  public func contains(_ kind: NetExtraInfo.SegmentKind) -> Bool {
    switch kind {
    case .tcpv4: contains(.tcpv4Segmentation)
    case .tcpv6: contains(.tcpv6Segmentation)
    }
  }
}

extension NetPacketMetadata.Checksum {
  /// Of the first slot of a packet. Blank weighs more: what is blank cannot be right.
  @inlinable init(txFlags flags: UInt16) {
    if flags & NetIf.TxFlag.checksumBlank != 0 {
      self = .blank
    } else {
      self = flags & NetIf.TxFlag.dataValidated != 0 ? .validated : .present
    }
  }
}

/// Makes packets of transmit slots: the one gate for transmit requests (io/netif.h, "Guest transmit").
///
/// It is shown one copied slot after the other, and keeps its place when a packet's slots have not all arrived. What is
/// wrong with a packet is known at its last slot, so that none of its slots is taken for another packet. It holds at most
/// ``NetIf/NetIf/fatalFragmentCount`` slots.
public struct NetTxAssembly: ~Copyable, Sendable {
  /// What the packet came to at one slot.
  public enum Progress: Hashable, Sendable {
    /// More of its slots follow.
    case incomplete
    /// It is complete and valid: ``NetTxAssembly/byteCount`` bytes in all, and ``NetTxAssembly/metadata``.
    case packet
    /// It is complete, and no packet but a word to the backend: to send a group's packets from now on, or no longer
    /// (``NetExtraInfo/addMulticast(_:)``, ``NetExtraInfo/removeMulticast(_:)``). Its bytes, if it has any, are nothing.
    case word(NetExtraInfo)
    /// It is complete, and its slots are to be answered with an error.
    case refused(NetTxPacketFault)
  }

  private let agreement: NetTxAgreement
  /// Whether an extra info is the next slot, and whether a fragment is, when no extra info is.
  @usableFromInline private(set) var extraInfoFollows = false
  @usableFromInline private(set) var fragmentFollows = false
  private var fault: NetTxPacketFault?
  /// Of all fragments but the first.
  private var furtherByteCount: UInt32 = 0
  /// Of the packet that was shown last, until the next one begins.
  public private(set) var byteCount: UInt16 = 0
  public private(set) var fragmentCount = 0
  /// Its first fragment, and the others in order; most packets have but one.
  public private(set) var first = NetTxFragment.none
  public private(set) var others: [NetTxFragment] = []
  /// What goes with it. The checksum of one that is to be cut is blank.
  public private(set) var metadata = NetPacketMetadata()
  /// Whether that was not so, and has been made so: it was to be cut, and its checksum was not said to be blank.
  public private(set) var isChecksumFixedUp = false
  private var word: NetExtraInfo?
  private var hasHeadroom = false
  /// How many of its slots were extra infos; they came behind the first one, and each gets `NETIF_RSP_NULL`.
  public private(set) var extraInfoCount = 0

  public init(_ agreement: NetTxAgreement) {
    self.agreement = agreement
    others.reserveCapacity(NetIf.fatalFragmentCount)
  }

  /// Shows the next slot, if it is a whole packet and a valid one, as most are: there is nothing to be put together.
  ///
  /// - Returns: nil for any other, which is then for ``take(_:)``.
  @inlinable @inline(__always) public func whole(
    _ raw: NetIfTxRequest
  ) -> (fragment: NetTxFragment, checksum: NetPacketMetadata.Checksum)? {
    guard !extraInfoFollows, !fragmentFollows, raw.flags & (NetIf.TxFlag.extraInfo | NetIf.TxFlag.moreData) == 0,
      raw.size >= UInt16(NetIf.headerByteCount), !leavesPage(raw.offset, UInt32(raw.size))
    else { return nil }
    return (NetTxFragment(raw), NetPacketMetadata.Checksum(txFlags: raw.flags))
  }

  /// Shows the next slot.
  ///
  /// - Throws: when the packet has more slots than any may have; the ring is then unusable.
  public mutating func take(_ raw: NetIfTxRequest) throws(NetTxViolation) -> Progress {
    if extraInfoFollows {
      try addExtraInfo(NetIfExtraInfo(raw))
    } else if fragmentFollows {
      try addFragment(raw)
    } else {
      begin(raw)
    }
    return extraInfoFollows || fragmentFollows ? .incomplete : finish()
  }

  @inline(__always) private mutating func begin(_ raw: NetIfTxRequest) {
    (byteCount, furtherByteCount, extraInfoCount, fault) = (raw.size, 0, 0, nil)
    first = NetTxFragment(raw)
    if fragmentCount > 1 { others.removeAll(keepingCapacity: true) }
    fragmentCount = 1
    extraInfoFollows = raw.flags & NetIf.TxFlag.extraInfo != 0
    fragmentFollows = raw.flags & NetIf.TxFlag.moreData != 0
    metadata = NetPacketMetadata(checksum: NetPacketMetadata.Checksum(txFlags: raw.flags))
    (isChecksumFixedUp, word, hasHeadroom) = (false, nil, false)
    if fragmentFollows, !agreement.scatterGather { fault = .severalSlots }
  }

  private mutating func addFragment(_ raw: NetIfTxRequest) throws(NetTxViolation) {
    guard fragmentCount < NetIf.fatalFragmentCount else { throw .tooManyFragments }
    // The flags of a further fragment say nothing else.
    fragmentFollows = raw.flags & NetIf.TxFlag.moreData != 0
    others.append(NetTxFragment(raw))
    fragmentCount += 1
    // Twenty times 16 bits do not fill 32.
    furtherByteCount += UInt32(raw.size)
    guard fault == nil else { return }
    if fragmentCount > NetIf.maxFragmentCount {
      fault = .tooManyFragments
    } else if leavesPage(raw.offset, UInt32(raw.size)) {
      fault = .outsidePage(offset: raw.offset, byteCount: raw.size)
    }
  }

  private mutating func addExtraInfo(_ raw: NetIfExtraInfo) throws(NetTxViolation) {
    guard extraInfoCount < NetIf.ExtraType.count else { throw .tooManyExtraInfos }
    extraInfoCount += 1
    extraInfoFollows = raw.hasMore
    guard fault == nil else { return }
    do throws(NetExtraInfoFault) { fault = add(try NetExtraInfo(parsing: raw)) } catch { fault = .extraInfo(error) }
  }

  /// - Returns: why it may not be there.
  private mutating func add(_ info: NetExtraInfo) -> NetTxPacketFault? {
    switch info {
    case .segmentation(let kind, let payloadByteCount):
      guard agreement.offloads.contains(kind) else { return .unagreed(info) }
      guard metadata.segmentation == nil else { return .repeated(info) }
      metadata.segmentation = NetPacketMetadata.Segmentation(kind, payloadByteCount: payloadByteCount)
    case .addMulticast, .removeMulticast:
      guard agreement.multicastControl else { return .unagreed(info) }
      guard word == nil else { return .repeated(info) }
      word = info
    case .hash(let kind, let value):
      guard agreement.hashes else { return .unagreed(info) }
      guard metadata.hash == nil else { return .repeated(info) }
      metadata.hash = NetPacketMetadata.Hash(kind, value: value)
    // It has its use in the frontend, and the packet's offset is what counts here.
    case .headroom:
      guard !hasHeadroom else { return .repeated(info) }
      hasHeadroom = true
    }
    return nil
  }

  @inline(__always) private mutating func finish() -> Progress {
    if let fault { return .refused(fault) }
    if let word { return .word(word) }
    guard byteCount >= NetIf.headerByteCount else { return .refused(.tooShort(byteCount: byteCount)) }
    // The first slot's size is the whole packet's, and the first fragment's is what the others leave of it.
    guard furtherByteCount < UInt32(byteCount) else {
      return .refused(.sizes(byteCount: byteCount, furtherByteCount: furtherByteCount))
    }
    let firstByteCount = UInt16(UInt32(byteCount) - furtherByteCount)
    guard !leavesPage(first.offset, UInt32(firstByteCount)) else {
      return .refused(.outsidePage(offset: first.offset, byteCount: firstByteCount))
    }
    first.storedByteCount = firstByteCount
    if metadata.segmentation != nil, metadata.checksum != .blank {
      metadata.checksum = .blank
      isChecksumFixedUp = true
    }
    return .packet
  }

  /// The offset is 16 bits wide and the byte count no more, and their sum is not.
  @inlinable func leavesPage(_ offset: UInt16, _ byteCount: UInt32) -> Bool {
    UInt32(offset) &+ byteCount > UInt32(xenPageSize)
  }
}

/// Why a packet is answered with an error. It concerns that packet and nothing else.
@nonexhaustive public enum NetTxPacketFault: Error, Hashable, Sendable, CustomStringConvertible {
  case severalSlots
  case unagreed(NetExtraInfo)
  /// An earlier extra info of the packet has said the same, or something else of the kind.
  case repeated(NetExtraInfo)
  case extraInfo(NetExtraInfoFault)
  case tooShort(byteCount: UInt16)
  case outsidePage(offset: UInt16, byteCount: UInt16)
  /// The further fragments alone are as long as the whole packet, or longer.
  case sizes(byteCount: UInt16, furtherByteCount: UInt32)
  case tooManyFragments
  /// What a grant reference of its slots names cannot be read.
  case unreadable(GrantReference, GrantStatus)
  /// Its checksum was left to us, and it has no place for one.
  case checksum(NetHeaderFault)
  /// It is to be cut as something that it is not.
  case otherPacket(NetExtraInfo.SegmentKind)
  /// It asks for one group more than a frontend may listen to.
  case tooManyGroups(MACAddress)

  public var description: String {
    switch self {
    case .severalSlots: "it has several slots, which was not agreed on (feature-sg)"
    case .unagreed(let info): "it carries what was not agreed on: \(info)"
    case .repeated(let info): "it carries more than one extra info of a kind: \(info)"
    case .extraInfo(let fault): "\(fault)"
    case .tooShort(let byteCount): "\(byteCount) bytes are less than an Ethernet header"
    case .outsidePage(let offset, let byteCount): "\(byteCount) bytes from \(offset) on leave the page"
    case .sizes(let byteCount, let furtherByteCount):
      "it says that it has \(byteCount) bytes, and its further slots alone have \(furtherByteCount)"
    case .tooManyFragments: "it has more than \(NetIf.maxFragmentCount) slots"
    case .unreadable(let reference, let status): "\(reference) cannot be read: \(status)"
    case .checksum(let fault): "its checksum was left blank and cannot be filled in: \(fault)"
    case .otherPacket(let kind): "it is to be cut as \(kind), which it is not"
    case .tooManyGroups(let group): "the group \(group) is one more than a frontend may listen to"
    }
  }
}

/// A packet that no frontend may send: what follows it on the ring means nothing.
@nonexhaustive public enum NetTxViolation: Error, Hashable, Sendable, CustomStringConvertible {
  case tooManyFragments
  case tooManyExtraInfos

  public var description: String {
    switch self {
    case .tooManyFragments: "the frontend sent a packet of more than \(NetIf.fatalFragmentCount) slots"
    case .tooManyExtraInfos: "the frontend sent a packet with more than \(NetIf.ExtraType.count) extra infos"
    }
  }
}
