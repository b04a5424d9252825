import BlkIf
import XenRing

/// One ring, its page pool and its in-flight table.
///
/// A request's number is its place in the table. Its payload lies in pages of a pool that was shared when the device
/// connected, whichever are free: a request needs no grant call.
struct BlkFrontQueue: ~Copyable {
  /// The numbers in the pool of one request's pages, as many as its bytes need.
  typealias Pages = InlineArray<11, UInt16>

  private struct InFlight {
    enum Phase: Equatable {
      case free, asked
      /// And the user has not been told yet.
      case answered(BlkFrontCompletion.Result)
    }

    var phase = Phase.free
    var operation: UInt8 = 0
    /// The ends of its chain of pages; any if it has none.
    var firstPage: UInt16 = 0
    var lastPage: UInt16 = 0
    var pageCount = 0
    var byteCount = 0
    var tag: UInt64 = 0
  }

  private var ring: BlkFrontRing
  private(set) var channel: EventChannel
  private let pool: GrantedPages
  /// The page after each page: those of a request are a chain, and so are the free ones, so that many are as quickly given
  /// back as one.
  private var pageAfter: [UInt16]
  private var firstFreePage: UInt16 = 0
  private var freePageCount: Int
  private var inFlight: [InFlight]
  private var freeSlots: [Int] = []
  /// Answered, and not handed over yet, in the backend's order.
  private var answered: [Int] = []
  private var handedOverCount = 0

  /// - Parameter pool: carries at least one request of the largest size.
  init(ring: consuming BlkFrontRing, channel: EventChannel, pool: consuming GrantedPages) {
    precondition(pool.references.count >= BlkIf.maxSegmentCount, "a pool carries a request")
    let count = ring.entryCount
    self.ring = ring
    self.channel = channel
    freePageCount = pool.references.count
    pageAfter = (0..<freePageCount).map { UInt16(truncatingIfNeeded: $0 + 1) }
    self.pool = pool
    inFlight = Array(repeating: InFlight(), count: count)
    freeSlots.append(contentsOf: (0..<count).reversed())
    answered.reserveCapacity(count)
  }

  var inFlightCount: Int { inFlight.count - freeSlots.count }
  var statistics: RingStatistics { ring.statistics }

  /// Puts a request into the ring. The caller has checked it against the disk.
  ///
  /// - Throws: `.busy` when no slot or too few pages are free.
  @inline(__always) mutating func put(
    operation: UInt8, sector: UInt64, byteCount: Int, tag: UInt64, payload: Span<UInt8>? = nil
  ) throws(BlkFrontError) {
    let pageCount = (byteCount + xenPageSize - 1) / xenPageSize
    guard freePageCount >= pageCount, !freeSlots.isEmpty else { throw .busy }
    let slot = freeSlots.removeLast()
    var request = BlkIfRequest(
      operation: operation, segmentCount: UInt8(pageCount), id: UInt64(slot), sectorNumber: sector)
    let firstPage = firstFreePage
    var lastPage = firstPage
    for index in 0..<pageCount {
      let page = firstFreePage
      let offset = index * xenPageSize
      let count = min(byteCount - offset, xenPageSize)
      if let payload {
        Self.bytes(of: page, in: pool.bytes, count).copy(from: payload.extracting(offset..<offset + count))
      }
      request.segments[index] = BlkIfSegment(
        gref: pool.references[Int(page)], firstSector: 0, lastSector: UInt8(count / BlkIf.sectorByteCount - 1))
      lastPage = page
      firstFreePage = pageAfter[Int(page)]
    }
    freePageCount -= pageCount
    inFlight[slot] = InFlight(
      phase: .asked, operation: operation, firstPage: firstPage, lastPage: lastPage, pageCount: pageCount,
      byteCount: byteCount, tag: tag)
    // As many slots in the ring as in the table.
    ring.put(request)
  }

  mutating func push() { if ring.hasUnpushed, ring.pushAndCheckNotify() { channel.notify() } }

  /// Takes every response that is there in, and asks for an event at the next one.
  mutating func takeResponses() throws(DeviceError) {
    channel.take()
    while try hasResponses() {
      while let response = ring.next() { try take(response) }
    }
    channel.rearm()
  }

  private mutating func hasResponses() throws(DeviceError) -> Bool {
    do throws(RingViolation) { return try ring.finalCheck() } catch { throw .protocolViolation("\(error)") }
  }

  private mutating func take(_ response: BlkIfResponse) throws(DeviceError) {
    guard let slot = Int(exactly: response.id), slot < inFlight.count, inFlight[slot].phase == .asked else {
      throw .protocolViolation("the backend answered request \(response.id), which is not in flight")
    }
    guard response.operation == inFlight[slot].operation else {
      throw .protocolViolation(
        "the backend answered request \(response.id) as operation \(response.operation); "
          + "it is \(inFlight[slot].operation)")
    }
    inFlight[slot].phase =
      switch response.status {
      case BlkIf.Status.okay: .answered(.succeeded)
      case BlkIf.Status.notSupported: .answered(.notSupported)
      default: .answered(.failed)
      }
    answered.append(slot)
  }

  /// The next answered request, to be handed over; nil when there is none. The slot and pages of the one given before are
  /// free from then on.
  mutating func nextCompletion() -> BlkFrontCompletion? {
    if handedOverCount > 0 { free(answered[handedOverCount - 1]) }
    guard handedOverCount < answered.count else {
      answered.removeAll(keepingCapacity: true)
      handedOverCount = 0
      return nil
    }
    let slot = answered[handedOverCount]
    handedOverCount += 1
    let request = inFlight[slot]
    guard case .answered(let result) = request.phase else { preconditionFailure("an answered request") }
    let isRead = request.operation == BlkIf.Operation.read && result == .succeeded
    var pages = Pages(repeating: 0)
    if isRead {
      var page = request.firstPage
      for index in 0..<request.pageCount {
        pages[index] = page
        page = pageAfter[Int(page)]
      }
    }
    return BlkFrontCompletion(
      tag: request.tag, result: result, byteCount: isRead ? request.byteCount : 0, pages: pages,
      pool: pool.bytes)
  }

  @inline(__always) private mutating func free(_ slot: Int) {
    let request = inFlight[slot]
    if request.pageCount > 0 {
      pageAfter[Int(request.lastPage)] = firstFreePage
      firstFreePage = request.firstPage
      freePageCount += request.pageCount
    }
    inFlight[slot].phase = .free
    freeSlots.append(slot)
  }

  /// The tags of what is still in flight, or was not handed over.
  func unansweredTags() -> [UInt64] { inFlight.filter { $0.phase != .free }.map(\.tag) }

  /// The first `count` bytes of one page of the pool.
  static func bytes(of page: UInt16, in pool: SharedBytes, _ count: Int) -> SharedBytes {
    pool.slice(from: Int(page) * xenPageSize, count: count)
  }
}
