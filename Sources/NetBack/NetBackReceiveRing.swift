import NetIf
import XenRing

/// The receive ring, and the batch under way: requests that frames have filled, the copies into their pages, the answers.
///
/// Every request that is taken is answered with its batch, in ring order: so each response stands in the slot of its request.
struct NetBackReceiveRing: ~Copyable {
  /// A request that is filled.
  private struct Slot: BitwiseCopyable {
    let id: UInt16
    /// If all goes well.
    let response: NetIfRxResponse
    // What the frame, or the segment of one, has whose first one this is; in the others nothing.
    var byteCount: UInt16 = 0
    var slotCount: UInt8 = 0
    var copyCount: UInt8 = 0
    var isSegmented = false
  }

  private var ring: BackRing<NetIfRxRequest, NetIfRxResponse>
  private let grants: any GrantTable
  private let frontend: DomainID
  // In ring order.
  private var slots: PlainArray<Slot>
  private var copies: PlainArray<GrantCopy>
  /// How many frames or segments the batch has.
  private(set) var frameCount = 0

  init(_ ring: consuming BackRing<NetIfRxRequest, NetIfRxResponse>, grants: any GrantTable, frontend: DomainID) {
    // A batch takes no more requests than the ring has. A page has two copies where a segment's headers end in it.
    let slotCount = ring.entryCount
    slots = PlainArray(capacity: slotCount)
    copies = PlainArray(capacity: 2 * slotCount)
    self.ring = ring
    (self.grants, self.frontend) = (grants, frontend)
  }

  var statistics: RingStatistics { ring.statistics }
  var dump: String { ring.dump() }

  /// How many requests the batch has filled.
  var slotCount: Int { slots.count }

  /// How many more requests there are.
  mutating func available() throws(DeviceError) -> Int {
    do throws(RingViolation) { return Int(try ring.available()) } catch { throw violation(error) }
  }

  /// Has the slots of so many requests brought near.
  @inline(__always) mutating func expectRequests(_ count: UInt32) { ring.expectRequests(count) }

  // MARK: Filling requests; the caller has seen that as many are there as the frame takes

  /// Fills one request with a frame that is no longer than a page, and nothing else.
  @inline(__always) mutating func give(whole frame: SharedBytes, flags: UInt16) {
    let request = next()
    copies.append(
      GrantCopy(
        .toGrant, local: frame, reference: GrantReference(rawValue: request.gref), of: frontend, offset: 0))
    let byteCount = UInt16(frame.count)
    slots.append(
      Slot(
        id: request.id, response: NetIfRxResponse(id: request.id, flags: flags, status: Int16(byteCount)),
        byteCount: byteCount, slotCount: 1, copyCount: 1))
    frameCount &+= 1
  }

  /// Fills requests with a frame: one for each page, behind the headroom in the first one, and one for each extra info (io/netif.h,
  /// "Guest receive": they come behind the first fragment; each takes a request, whose page is not used).
  ///
  /// - Parameters:
  ///   - head: the frame, or its headers.
  ///   - body: what follows where these are all that `head` has.
  mutating func give(_ head: SharedBytes, _ body: SharedBytes, _ metadata: NetPacketMetadata, headroom: Int) {
    let (firstSlot, firstCopy, byteCount) = (slots.count, copies.count, head.count + body.count)
    let flags = NetIf.RxFlag.flags(for: metadata.checksum)
    let (segmentation, hash) = (metadata.segmentation, metadata.hash)
    var following = (segmentation == nil ? 0 : 1) + (hash == nil ? 0 : 1) + (headroom > 0 ? 1 : 0)
    var rest = (head: head, body: body)
    fillPage(with: &rest, from: headroom, flags: following > 0 ? flags | NetIf.RxFlag.extraInfo : flags)
    // In the order of their types.
    if let segmentation {
      fillSlot(
        with: .segmentation(segmentation.kind, payloadByteCount: segmentation.payloadByteCount), &following)
    }
    if let hash { fillSlot(with: .hash(hash.kind, value: hash.value), &following) }
    if headroom > 0 { fillSlot(with: .headroom(byteCount: UInt16(headroom)), &following) }
    while rest.head.count > 0 { fillPage(with: &rest, from: 0, flags: 0) }
    var first = slots[firstSlot]
    (first.byteCount, first.isSegmented) = (UInt16(byteCount), segmentation != nil)
    (first.slotCount, first.copyCount) = (UInt8(slots.count - firstSlot), UInt8(copies.count - firstCopy))
    slots[firstSlot] = first
    frameCount &+= 1
  }

  @inline(__always) private mutating func next() -> NetIfRxRequest {
    guard let request = ring.next() else { preconditionFailure("as many requests as the frame takes") }
    return request
  }

  private mutating func fillPage(
    with rest: inout (head: SharedBytes, body: SharedBytes), from offset: Int, flags: UInt16
  ) {
    let request = next()
    var end = offset
    while end < xenPageSize, rest.head.count > 0 {
      let count = min(rest.head.count, xenPageSize - end)
      copies.append(
        GrantCopy(
          .toGrant, local: rest.head.slice(from: 0, count: count), reference: GrantReference(rawValue: request.gref),
          of: frontend, offset: UInt16(end)))
      end += count
      if count < rest.head.count {
        rest.head = rest.head.slice(from: count, count: rest.head.count - count)
      } else {
        rest = (rest.body, .none)
      }
    }
    slots.append(
      Slot(
        id: request.id,
        response: NetIfRxResponse(
          id: request.id, offset: UInt16(offset), flags: rest.head.count > 0 ? flags | NetIf.RxFlag.moreData : flags,
          status: Int16(end - offset))))
  }

  /// - Parameter following: how many extra infos there are from this one on.
  private mutating func fillSlot(with info: NetExtraInfo, _ following: inout Int) {
    let request = next()
    following -= 1
    slots.append(Slot(id: request.id, response: NetIfExtraInfo(info, hasMore: following > 0).receiveSlot))
  }

  // MARK: Ending the batch

  /// Copies the batch out and answers it; when one page of a frame could not be reached, each slot of it is an error.
  ///
  /// - Parameters:
  ///   - counts: of frames, grow by the batch's.
  ///   - segmentedCount: so does this by those of them that the guest is to cut.
  /// - Returns: how many requests it had taken.
  mutating func finish(_ counts: inout NetCounts, segmentedCount: inout UInt64) -> Int {
    if !copies.isEmpty {
      let grants = grants
      copies.withMutableSpan { grants.copy(&$0) }
    }
    let okay = GrantStatus.okay
    var (slot, copy) = (0, 0)
    while slot < slots.count {
      let first = slots[slot]
      // A frame of one slot, as most are: none that is to be cut.
      if first.slotCount == 1, first.copyCount == 1, copies[copy].status == okay {
        counts.count(packetOf: Int(first.byteCount))
        ring.put(first.response)
        slot &+= 1
        copy &+= 1
        continue
      }
      var succeeded = true
      for _ in 0..<first.copyCount {
        if copies[copy].status != okay { succeeded = false }
        copy &+= 1
      }
      if succeeded {
        counts.count(packetOf: Int(first.byteCount))
        if first.isSegmented { segmentedCount &+= 1 }
        ring.put(first.response)
        for index in 1..<Int(first.slotCount) { ring.put(slots[slot &+ index].response) }
      } else {
        counts.errors &+= 1
        for index in 0..<Int(first.slotCount) {
          ring.put(.error(id: slots[slot &+ index].id, hasMore: index &+ 1 < first.slotCount))
        }
      }
      slot &+= Int(first.slotCount)
    }
    slots.removeAll()
    copies.removeAll()
    frameCount = 0
    return slot
  }

  mutating func pushAndCheckNotify() -> Bool { ring.hasUnpushed && ring.pushAndCheckNotify() }

  /// Whether there are so many more requests, or the guest says so.
  func hasRequests(_ count: Int) -> Bool { ring.hasUnconsumed(UInt32(count)) }

  /// Asks for an event when there are so many more requests, and says whether there are already.
  mutating func wake(after count: Int) throws(DeviceError) -> Bool {
    do throws(RingViolation) { return try ring.wake(after: UInt32(count)) } catch { throw violation(error) }
  }

  private func violation(_ fault: RingViolation) -> DeviceError {
    .protocolViolation("\(NetRingViolation(.rx, fault))")
  }
}

extension NetIfRxResponse {
  /// To a slot of a frame that could not be copied.
  fileprivate static func error(id: UInt16, hasMore: Bool) -> NetIfRxResponse {
    NetIfRxResponse(id: id, flags: hasMore ? NetIf.RxFlag.moreData : 0, status: NetIf.Status.error)
  }
}

extension NetIf.RxFlag {
  /// Of the first slot of a frame. A blank checksum is a sign that nothing could change a bit on its way, too.
  static func flags(for checksum: NetPacketMetadata.Checksum) -> UInt16 {
    switch checksum {
    case .present: 0
    case .validated: dataValidated
    case .blank: checksumBlank | dataValidated
    }
  }
}
