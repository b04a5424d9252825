import NetIf
import XenRing

/// The receive ring, and the batch under way: requests that frames have filled, and the copies into their pages.
///
/// Every request that is taken is answered at once, in ring order: so each response stands in the slot of its request. Nothing is
/// shown before the copies are done; where one fails, its frame's responses are put anew.
struct NetBackReceiveRing: ~Copyable {
  /// A frame, or a segment of one, that fills requests of the batch.
  private struct Frame: BitwiseCopyable {
    /// Which of the batch's requests is its first.
    var slot = 0
    let slotCount: UInt8
    let copyCount: UInt8
    let isSegmented: Bool

    /// One request, one copy, and nothing else: as most are.
    static let whole = Frame(slotCount: 1, copyCount: 1, isSegmented: false)
  }

  private var ring: BackRing<NetIfRxRequest, NetIfRxResponse>
  private let grants: any GrantTable
  private let frontend: DomainID
  // In ring order. Of each request the id; and the frames that are not whole in one request, and how many those fill.
  private var ids: PlainArray<UInt16>
  private var otherFrames: PlainArray<Frame>
  private var otherSlotCount = 0
  private var copies: PlainArray<GrantCopy>
  /// What there is to count if all goes well.
  private var givenSegmentedCount: UInt64 = 0

  init(_ ring: consuming BackRing<NetIfRxRequest, NetIfRxResponse>, grants: any GrantTable, frontend: DomainID) {
    // A batch takes no more requests than the ring has. A page has two copies where a segment's headers end in it.
    let slotCount = ring.entryCount
    ids = PlainArray(repeating: 0, count: slotCount)
    otherFrames = PlainArray(capacity: slotCount)
    copies = PlainArray(capacity: 2 * slotCount)
    self.ring = ring
    (self.grants, self.frontend) = (grants, frontend)
  }

  var statistics: RingStatistics { ring.statistics }
  var dump: String { ring.dump() }

  /// How many requests the batch has filled, with how many frames or segments.
  var slotCount: Int { Int(ring.unpushedCount) }
  var frameCount: Int { slotCount - otherSlotCount + otherFrames.count }

  /// How many more requests there are, for a batch that begins.
  mutating func available() throws(DeviceError) -> Int {
    precondition(!ring.hasUnpushed, "what is not pushed is the batch's")
    do throws(RingViolation) { return Int(try ring.available()) } catch { throw violation(error) }
  }

  /// Has the slots of so many requests brought near.
  @inline(__always) func expectRequests(_ count: UInt32) { ring.expectRequests(count) }

  // MARK: Filling requests; the caller has seen that as many are there as the frame takes

  /// Fills a request each with frames of the line that are whole in one, as most are, up to the first that is not.
  ///
  /// - Parameters:
  ///   - first: how many others come before the first of them.
  ///   - limit: how many at most.
  ///   - takesBlankChecksums: whether the guest does.
  /// - Returns: how many they were.
  mutating func giveWhole(
    _ line: borrowing FrameQueue, from first: Int, limit: Int, takesBlankChecksums: Bool
  ) -> Int {
    let (frontend, firstSlot) = (frontend, slotCount)
    var (index, frame) = (first, NetworkFrame(.none))
    let count = ring.answer(upTo: UInt32(clamping: min(line.count &- first, limit))) {
      frame = line[index]
      return frame.isWhole(takesBlankChecksums)
    } _: { request in
      ids[firstSlot &+ index &- first] = request.id
      index &+= 1
      copies.append(
        GrantCopy(
          .toGrant, local: frame.bytes, reference: GrantReference(rawValue: request.gref), of: frontend, offset: 0))
      return NetIfRxResponse(
        id: request.id, flags: NetIf.RxFlag.flags(for: frame.metadata.checksum), status: Int16(frame.bytes.count))
    }
    return Int(count)
  }

  /// Fills requests with a frame: one for each page, behind the headroom in the first one, and one for each extra info (io/netif.h,
  /// "Guest receive": they come behind the first fragment; each takes a request, whose page is not used).
  ///
  /// - Parameters:
  ///   - head: the frame, or its headers.
  ///   - body: what follows where these are all that `head` has.
  mutating func give(_ head: SharedBytes, _ body: SharedBytes, _ metadata: NetPacketMetadata, headroom: Int) {
    let flags = NetIf.RxFlag.flags(for: metadata.checksum)
    let (firstSlot, firstCopy) = (slotCount, copies.count)
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
    otherFrames.append(
      Frame(
        slot: firstSlot, slotCount: UInt8(slotCount - firstSlot), copyCount: UInt8(copies.count - firstCopy),
        isSegmented: segmentation != nil))
    otherSlotCount += slotCount - firstSlot
    if segmentation != nil { givenSegmentedCount &+= 1 }
  }

  @inline(__always) private mutating func next() -> NetIfRxRequest {
    guard let request = ring.next() else { preconditionFailure("as many requests as the frame takes") }
    ids[slotCount] = request.id
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
    ring.put(
      NetIfRxResponse(
        id: request.id, offset: UInt16(offset), flags: rest.head.count > 0 ? flags | NetIf.RxFlag.moreData : flags,
        status: Int16(end - offset)))
  }

  /// - Parameter following: how many extra infos there are from this one on.
  private mutating func fillSlot(with info: NetExtraInfo, _ following: inout Int) {
    _ = next()
    following -= 1
    ring.put(NetIfExtraInfo(info, hasMore: following > 0).receiveSlot)
  }

  // MARK: Ending the batch

  /// Copies the batch out; when one page of a frame could not be reached, each slot of it is an error.
  ///
  /// - Parameters:
  ///   - counts: of frames, grow by the batch's.
  ///   - segmentedCount: so does this by those of them that the guest is to cut.
  /// - Returns: how many requests it had taken.
  mutating func finish(_ counts: inout NetCounts, segmentedCount: inout UInt64) -> Int {
    let grants = grants
    copies.withMutableSpan { grants.copy(&$0) }
    if let byteCount = copiedByteCount {
      counts.packets &+= UInt64(frameCount)
      counts.bytes &+= UInt64(byteCount)
      segmentedCount &+= givenSegmentedCount
    } else {
      answerAnew(&counts, &segmentedCount)
    }
    let taken = slotCount
    otherFrames.removeAll()
    copies.removeAll()
    (otherSlotCount, givenSegmentedCount) = (0, 0)
    return taken
  }

  /// How many bytes were copied; nil when one copy failed.
  private var copiedByteCount: Int? {
    copies.withSpan { copies in
      var count = 0
      for index in copies.indices {
        guard copies[index].status == .okay else { return nil }
        count &+= Int(copies[index].count)
      }
      return count
    }
  }

  /// Frame by frame: those that were copied count, and the others' responses become errors.
  private mutating func answerAnew(_ counts: inout NetCounts, _ segmentedCount: inout UInt64) {
    var (slot, copy, other) = (0, 0, 0)
    while slot < slotCount {
      let isWhole = other == otherFrames.count || otherFrames[other].slot != slot
      let frame = isWhole ? .whole : otherFrames[other]
      let ownCopies = copy..<copy + Int(frame.copyCount)
      if ownCopies.allSatisfy({ copies[$0].status == .okay }) {
        counts.count(packetOf: ownCopies.reduce(0) { $0 + Int(copies[$1].count) })
        if frame.isSegmented { segmentedCount &+= 1 }
      } else {
        counts.errors &+= 1
        for part in 0..<Int(frame.slotCount) {
          ring.replace(
            .error(id: ids[slot + part], hasMore: part + 1 < frame.slotCount), back: UInt32(slotCount - slot - part))
        }
      }
      slot += Int(frame.slotCount)
      copy = ownCopies.upperBound
      if !isWhole { other += 1 }
    }
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

extension NetworkFrame {
  /// Whether it fills one request as it is: it is no longer than a page, no extra info goes with it, and its checksum is not for us to fill in.
  @inline(__always) fileprivate func isWhole(_ takesBlankChecksums: Bool) -> Bool {
    bytes.count <= xenPageSize && metadata == NetPacketMetadata(checksum: metadata.checksum)
      && (metadata.checksum != .blank || takesBlankChecksums)
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
