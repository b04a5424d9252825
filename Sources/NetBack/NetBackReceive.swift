import NetIf
import XenRing

/// What the guest receives: the receive ring, and the bounded line of frames that wait for pages of the guest's.
///
/// A frame takes as many requests as it has pages, and waits until they are there. What has waited for too long is
/// dropped: a guest that gives no more pages costs its backend no more than the line (XSA-392).
struct NetBackReceive: ~Copyable {
  /// How many frames may wait, and how many bytes of them.
  private static let waitingCount = 256
  private static let waitingByteCount = 512 * 1024
  /// How long a frame waits: as long as Linux's network backend lets it by default.
  static let drainNanoseconds: UInt64 = 10_000_000_000
  /// How long frames wait at most until the next look, when the guest does not say that it has given pages
  /// (`feature-rx-notify`).
  private static let retryNanoseconds: UInt64 = 30_000_000

  private var ring: NetBackReceiveRing
  private let takes: NetGuestAgreement
  /// Frames for the guest.
  var waiting: FrameQueue
  /// Bytes left free before each frame of the batch.
  private var headroom = 0
  private let headroomSetting: NetBackHeadroom
  private let groups: NetBackGroups
  private var groupList: [MACAddress] = []
  private var groupListVersion = 0
  private var givenCounts = NetCounts()
  private var dropCount: UInt64 = 0
  /// Of the first frame that waits, when the guest does not take it whole: cut here, as far as there are requests.
  private var segmenter: NetSegmenter?
  private var nextSegment = 0
  /// The headers of the batch's segments, by their places among its frames; their payload lies where the frame's does.
  private let headers = PrivatePages(pageCount: (segmentCount * NetSegmenter.maxHeaderByteCount) / xenPageSize)
  /// How many segments a batch has at most.
  private static let segmentCount = 64
  /// Frames that went to the guest to be cut; those whose checksum was filled in since it does not take blank ones; and those
  /// of groups that it does not listen to.
  private(set) var segmentedCount: UInt64 = 0
  private(set) var checksumsFilled: UInt64 = 0
  private(set) var filteredCount: UInt64 = 0

  init(ring: consuming BackRing<NetIfRxRequest, NetIfRxResponse>, connection: NetBackConnection) {
    self.ring = NetBackReceiveRing(ring, grants: connection.grants, frontend: connection.frontend)
    takes = connection.takes
    groups = connection.groups
    headroomSetting = connection.headroom
    waiting = Self.makeLine(for: connection.takes)
  }

  /// A line for the frames of such a guest.
  static func makeLine(for takes: NetGuestAgreement) -> FrameQueue {
    FrameQueue(
      capacity: waitingCount, byteCapacity: waitingByteCount,
      maxFrameByteCount: takes.scatterGather ? NetIf.maxFrameByteCount : xenPageSize)
  }

  var ringStatistics: RingStatistics { ring.statistics }
  var ringDump: String { ring.dump }

  /// What has been done; frames that wait count as dropped when asked for at the end.
  var counts: NetCounts {
    var counts = givenCounts
    counts.drops = dropCount + waiting.dropCount + UInt64(waiting.count)
    return counts
  }

  /// Frames that wait, as many as the guest has pages for, are copied out and answered.
  ///
  /// - Parameter limit: of requests; the first frame may take more.
  /// - Returns: how many requests were taken.
  mutating func give(limit: Int) throws(DeviceError) -> Int {
    guard !waiting.isEmpty else { return 0 }
    headroom = headroomSetting.byteCount
    var available = try ring.available()
    ring.expectRequests(UInt32(clamping: limit))
    var frameCount = 0
    // The guest takes all groups, and wants no headroom.
    let isPlain = headroom == 0 && !groups.isFiltering
    while frameCount < waiting.count, ring.slotCount < limit {
      if isPlain {
        let count = ring.giveWhole(
          waiting, from: frameCount, limit: min(available, limit &- ring.slotCount),
          takesBlankChecksums: takes.offloads.takesEveryBlankChecksum)
        frameCount &+= count
        available &-= count
        if count > 0 { continue }
      }
      guard add(waiting[frameCount], &available, limit) else { break }
      frameCount &+= 1
    }
    guard frameCount > 0 || ring.frameCount > 0 else { return 0 }
    let taken = ring.finish(&givenCounts, segmentedCount: &segmentedCount)
    waiting.removeFirst(frameCount)
    return taken
  }

  /// Puts a frame into requests, or drops it.
  ///
  /// - Parameters:
  ///   - available: how many requests there are.
  ///   - limit: how many the batch takes; a frame that is not cut may take more.
  /// - Returns: false when they do not suffice.
  private mutating func add(_ frame: NetworkFrame, _ available: inout Int, _ limit: Int) -> Bool {
    if groups.isFiltering, segmenter == nil, !listens(to: frame) {
      filteredCount &+= 1
      return true
    }
    if let segmentation = frame.metadata.segmentation, !takes.offloads.contains(segmentation.kind) {
      return addSegments(of: frame, segmentation, &available, limit)
    }
    let slotCount = slotCount(of: frame)
    guard slotCount <= available else { return false }
    guard takes.scatterGather || dataSlotCount(of: frame.bytes.count) == 1 else {
      dropCount &+= 1
      return true
    }
    var metadata = frame.metadata
    guard finish(frame, &metadata) else {
      givenCounts.errors &+= 1
      return true
    }
    if !takes.hashes { metadata.hash = nil }
    available -= slotCount
    ring.give(frame.bytes, .none, metadata, headroom: headroom)
    return true
  }

  /// Puts the next segments of the first frame into requests: the same as ``add(_:_:_:)`` for each of them.
  private mutating func addSegments(
    of frame: NetworkFrame, _ segmentation: NetPacketMetadata.Segmentation, _ available: inout Int, _ limit: Int
  ) -> Bool {
    if segmenter == nil {
      do throws(NetSegmentationFault) {
        segmenter = try frame.withSpan { (span) throws(NetSegmentationFault) in try NetSegmenter(span, segmentation) }
        nextSegment = 0
      } catch {
        givenCounts.errors &+= 1
        return true
      }
    }
    while let segmenter, nextSegment < segmenter.frameCount {
      let byteCount = segmenter.byteCount(of: nextSegment)
      let slotCount = dataSlotCount(of: byteCount) + (headroom > 0 ? 1 : 0)
      guard slotCount <= available, ring.slotCount < limit, ring.frameCount < Self.segmentCount else { return false }
      guard takes.scatterGather || dataSlotCount(of: byteCount) == 1 else {
        dropCount &+= 1
        break
      }
      available -= slotCount
      let head = headers.bytes.slice(
        from: ring.frameCount * NetSegmenter.maxHeaderByteCount, count: segmenter.headerByteCount)
      frame.writeHeaders(of: nextSegment, by: segmenter, to: head)
      let payload = segmenter.payload(of: nextSegment)
      let body = frame.bytes.slice(from: payload.lowerBound, count: payload.count)
      ring.give(head, body, NetPacketMetadata(checksum: .validated), headroom: headroom)
      nextSegment += 1
    }
    segmenter = nil
    return true
  }

  /// Whether the guest wants what is sent to this receiver, when it does not want all: broadcasts, and what is for one card,
  /// always.
  private mutating func listens(to frame: NetworkFrame) -> Bool {
    let receiver = frame.withSpan { MACAddress([$0[0], $0[1], $0[2], $0[3], $0[4], $0[5]]) }
    guard receiver.isGroup, receiver != .broadcast else { return true }
    groups.refresh(&groupList, &groupListVersion)
    return groupList.contains(receiver)
  }

  /// What the frame lacks, and the guest does not take so, is done.
  ///
  /// - Returns: false when it cannot be done.
  private mutating func finish(_ frame: NetworkFrame, _ metadata: inout NetPacketMetadata) -> Bool {
    guard metadata.checksum == .blank, metadata.segmentation == nil, !takes.offloads.takesEveryBlankChecksum else {
      return true
    }
    do throws(NetHeaderFault) {
      if try frame.fillChecksum(unlessTaken: takes.offloads) {
        metadata.checksum = .validated
        checksumsFilled &+= 1
      }
      return true
    } catch { return false }
  }

  /// How many requests a frame takes: one for each page, behind the headroom in the first one, and one for each extra info.
  /// Of one that is cut here, its next segment.
  // Inlined, since a call from what changes us would copy all of us first.
  @inline(__always) private func slotCount(of frame: NetworkFrame) -> Int {
    let metadata = frame.metadata
    if let segmentation = metadata.segmentation, !takes.offloads.contains(segmentation.kind) {
      return dataSlotCount(of: segmenter?.byteCount(of: nextSegment) ?? 1) + (headroom > 0 ? 1 : 0)
    }
    return dataSlotCount(of: frame.bytes.count) + (metadata.segmentation == nil ? 0 : 1)
      + (takes.hashes && metadata.hash != nil ? 1 : 0) + (headroom > 0 ? 1 : 0)
  }

  private func dataSlotCount(of byteCount: Int) -> Int { NetIf.pageCount(of: headroom + byteCount) }

  mutating func pushAndCheckNotify() -> Bool { ring.pushAndCheckNotify() }

  /// Drops what has waited for too long.
  mutating func dropExpired(now: Uptime) {
    guard let arrival = waiting.firstArrival, now >= Self.expiry(of: arrival) else { return }
    waiting.drop(arrivedBy: Uptime(nanoseconds: now.nanoseconds - Self.drainNanoseconds))
    // Its frame was the first.
    segmenter = nil
  }

  private static func expiry(of arrival: Uptime) -> Uptime {
    Uptime(nanoseconds: arrival.nanoseconds + drainNanoseconds)
  }

  /// Whether there are as many requests as the first frame takes.
  var hasWork: Bool { !waiting.isEmpty && ring.hasRequests(slotCount(of: waiting[0])) }

  /// Looks for the last time before sleeping, and asks for an event when the first frame has as many pages as it needs:
  /// requests are news only while frames wait for them.
  mutating func hasMore() throws(DeviceError) -> Bool {
    guard !waiting.isEmpty else { return false }
    return try ring.wake(after: slotCount(of: waiting[0]))
  }

  /// When to look again although no event has come; nil when no frame waits.
  func nextLook(after now: Uptime) -> Uptime? {
    waiting.firstArrival.map { arrival in
      let retry = Uptime(nanoseconds: now.nanoseconds + Self.retryNanoseconds)
      return takes.notifies ? Self.expiry(of: arrival) : min(retry, Self.expiry(of: arrival))
    }
  }
}

extension MACAddress {
  fileprivate static let broadcast = MACAddress(InlineArray(repeating: 0xFF))
}
