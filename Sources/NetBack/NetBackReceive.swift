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

  private var ring: BackRing<NetIfRxRequest, NetIfRxResponse>
  private let grants: any GrantTable
  private let frontend: DomainID
  private let frontendNotifies: Bool
  /// Frames for the guest.
  var waiting: FrameQueue
  /// Of the batch under way: the ids of the requests that it fills, in ring order, and their copies.
  private var ids: [UInt16] = []
  private var copies: [GrantCopy] = []
  private var givenCounts = NetCounts()

  /// - Parameter scatterGather: whether the guest takes frames of several pages.
  init(
    ring: consuming BackRing<NetIfRxRequest, NetIfRxResponse>, grants: any GrantTable, frontend: DomainID,
    frontendNotifies: Bool, scatterGather: Bool
  ) {
    self.ring = ring
    self.grants = grants
    self.frontend = frontend
    self.frontendNotifies = frontendNotifies
    waiting = FrameQueue(
      capacity: Self.waitingCount, byteCapacity: Self.waitingByteCount,
      maxFrameByteCount: scatterGather ? NetIf.maxFrameByteCount : xenPageSize)
    ids.reserveCapacity(Self.waitingCount)
    copies.reserveCapacity(Self.waitingCount)
  }

  var ringStatistics: RingStatistics { ring.statistics }
  var ringDump: String { ring.dump() }

  /// What has been done; frames that wait count as dropped when asked for at the end.
  var counts: NetCounts {
    var counts = givenCounts
    counts.drops = waiting.dropCount + UInt64(waiting.count)
    return counts
  }

  /// Frames that wait, as many as the guest has pages for, are copied out. Every request that is taken is answered before
  /// the next batch, in ring order: so each response stands in the slot of its request.
  ///
  /// - Parameter limit: of requests; the first frame may take more.
  /// - Returns: how many requests were taken.
  mutating func give(limit: Int) throws(DeviceError) -> Int {
    guard !waiting.isEmpty else { return 0 }
    var available: Int
    do throws(RingViolation) { available = Int(try ring.available()) } catch {
      throw .protocolViolation("\(NetRingViolation(.rx, error))")
    }
    var frameCount = 0
    while frameCount < waiting.count, ids.count < limit {
      let frame = waiting[frameCount].bytes
      let count = NetIf.pageCount(of: frame.count)
      guard count <= available else { break }
      available -= count
      addCopies(of: frame)
      frameCount += 1
    }
    guard frameCount > 0 else { return 0 }
    runCopies()
    answer(frameCount)
    waiting.removeFirst(frameCount)
    let taken = ids.count
    ids.removeAll(keepingCapacity: true)
    copies.removeAll(keepingCapacity: true)
    return taken
  }

  /// The caller has seen that as many requests are there.
  private mutating func addCopies(of frame: SharedBytes) {
    var rest = frame
    while rest.count > 0, let request = ring.next() {
      let page = rest.count > xenPageSize ? rest.slice(from: 0, count: xenPageSize) : rest
      copies.append(
        GrantCopy(
          .toGrant, local: page, reference: GrantReference(rawValue: request.gref), of: frontend, offset: 0))
      ids.append(request.id)
      rest = rest.count > page.count ? rest.slice(from: page.count, count: rest.count - page.count) : .none
    }
  }

  private mutating func runCopies() {
    let grants = grants
    var span = copies.mutableSpan
    grants.copy(&span)
  }

  /// The responses of the first frames; when one page of a frame could not be reached, each of its is an error.
  private mutating func answer(_ frameCount: Int) {
    let okay = GrantStatus.okay
    var next = 0
    for frame in 0..<frameCount {
      let byteCount = waiting.byteCount(at: frame)
      let end = next + NetIf.pageCount(of: byteCount)
      var succeeded = true
      for index in next..<end where copies[index].status != okay { succeeded = false }
      if succeeded { givenCounts.count(packetOf: byteCount) } else { givenCounts.errors &+= 1 }
      while next < end {
        let status = succeeded ? Int16(copies[next].count) : NetIf.Status.error
        let flags = next + 1 < end ? NetIf.RxFlag.moreData : 0
        ring.put(NetIfRxResponse(id: ids[next], flags: flags, status: status))
        next += 1
      }
    }
  }

  mutating func pushAndCheckNotify() -> Bool { ring.hasUnpushed && ring.pushAndCheckNotify() }

  /// Drops what has waited for too long.
  ///
  /// - Returns: whether there was any.
  mutating func dropExpired(now: Uptime) -> Bool {
    guard let arrival = waiting.firstArrival, now >= Self.expiry(of: arrival) else { return false }
    waiting.drop(arrivedBy: Uptime(nanoseconds: now.nanoseconds - Self.drainNanoseconds))
    return true
  }

  private static func expiry(of arrival: Uptime) -> Uptime {
    Uptime(nanoseconds: arrival.nanoseconds + drainNanoseconds)
  }

  /// Looks for the last time before sleeping, and asks for an event when the first frame has as many pages as it needs:
  /// requests are news only while frames wait for them.
  mutating func hasMore() throws(DeviceError) -> Bool {
    guard !waiting.isEmpty else { return false }
    do throws(RingViolation) {
      return try ring.wake(after: UInt32(NetIf.pageCount(of: waiting.byteCount(at: 0))))
    } catch {
      throw .protocolViolation("\(NetRingViolation(.rx, error))")
    }
  }

  /// When to look again although no event has come; nil when no frame waits.
  func nextLook(after now: Uptime) -> Uptime? {
    waiting.firstArrival.map { arrival in
      let retry = Uptime(nanoseconds: now.nanoseconds + Self.retryNanoseconds)
      return frontendNotifies ? Self.expiry(of: arrival) : min(retry, Self.expiry(of: arrival))
    }
  }
}
