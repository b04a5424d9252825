import BlkIf
import XenRing

/// One ring, its page pool and its in-flight table.
///
/// A request's number is its place in the table. Its payload lies in pages of a pool that was shared when the device
/// connected, whichever are free: a request needs no grant call. An indirect request takes the pages that describe its segments
/// from the same pool.
struct BlkFrontQueue: ~Copyable {
  private struct InFlight {
    enum Phase: Equatable {
      case free, asked
      /// And the user has not been told yet.
      case answered(BlkFrontCompletion.Result)
    }

    var phase = Phase.free
    var request = BlkFrontRequest(operation: 0, tag: 0)
    /// The ends of its chain of pages; any if it has none.
    var firstPage: UInt16 = 0
    var lastPage: UInt16 = 0
    /// With those at the chain's start that describe segments.
    var pageCount = 0
    var descriptorPageCount = 0
  }

  private var ring: BlkFrontRing
  private let pool: GrantedPages
  /// Whether an event is asked for when half of what is in flight is answered; else at the next answer.
  private let holdsOffEvents: Bool
  private var limits = BlkFrontLimits()
  /// The page after each page: those of a request are a chain, and so are the free ones, so that many are as quickly given
  /// back as one. What was given back last is taken first: a backend that keeps pages mapped (`feature-persistent`) most likely
  /// has those.
  private var pageAfter: [UInt16]
  private var firstFreePage: UInt16 = 0
  private var freePageCount: Int
  private var inFlight: [InFlight]
  private var freeSlots: [Int] = []
  /// The first so many are answered, in the backend's order, and the first so many of these handed over.
  private var answered: [Int]
  private var answeredCount = 0
  private var handedOverCount = 0
  private var barrierCount = 0
  /// The payload of what is being handed over, and then of what is being filled in.
  private var pieces: SharedPieceTable
  /// The segments of the indirect request that is being put.
  private var descriptors: [BlkIfSegment] = []

  /// - Parameter pool: carries at least one direct request of the largest size.
  init(ring: consuming BlkFrontRing, pool: consuming GrantedPages, holdsOffEvents: Bool) {
    precondition(pool.references.count >= BlkIf.maxSegmentCount, "a pool carries a request")
    let count = ring.entryCount
    self.ring = ring
    self.holdsOffEvents = holdsOffEvents
    freePageCount = pool.references.count
    pageAfter = (0..<freePageCount).map { UInt16(truncatingIfNeeded: $0 + 1) }
    self.pool = pool
    inFlight = Array(repeating: InFlight(), count: count)
    freeSlots.append(contentsOf: (0..<count).reversed())
    answered = Array(repeating: 0, count: count)
    pieces = SharedPieceTable(capacity: 2 * BlkIf.maxSegmentCount)
  }

  /// The backend has connected: how requests are to be from now on.
  mutating func begin(_ limits: BlkFrontLimits) {
    self.limits = limits
    pieces = SharedPieceTable(capacity: 2 * limits.maxSegmentCount)
    descriptors = Array(repeating: BlkIfSegment(), count: limits.maxSegmentCount)
  }

  /// The most pages of payload that a request can have which so many pages carry together with their descriptors.
  static func maxSegmentCount(poolPageCount: Int) -> Int {
    // Each page of descriptors describes as many, so that of one more than those all but one are payload.
    poolPageCount - (poolPageCount + BlkIf.segmentsPerIndirectPage) / (BlkIf.segmentsPerIndirectPage + 1)
  }

  var inFlightCount: Int { inFlight.count - freeSlots.count }
  var hasBarrier: Bool { barrierCount > 0 }
  var statistics: RingStatistics { ring.statistics }

  private static func pageCount(_ byteCount: Int) -> Int { (byteCount + xenPageSize - 1) / xenPageSize }

  private static func descriptorPageCount(_ pageCount: Int) -> Int {
    pageCount <= BlkIf.maxSegmentCount
      ? 0 : (pageCount + BlkIf.segmentsPerIndirectPage - 1) / BlkIf.segmentsPerIndirectPage
  }

  /// Whether a request with so much payload can be put now.
  func hasRoom(for byteCount: Int) -> Bool {
    let pageCount = Self.pageCount(byteCount)
    return !freeSlots.isEmpty && freePageCount >= pageCount + Self.descriptorPageCount(pageCount)
  }

  // MARK: Requests

  /// Puts a request into the ring. The caller has checked it against the disk and its limits.
  ///
  /// - Parameter payload: of a write.
  /// - Throws: `.busy` when no slot or too few pages are free.
  @inline(__always) mutating func put(
    _ request: BlkFrontRequest, payload: Span<UInt8>? = nil
  ) throws(BlkFrontError) {
    // As many slots in the ring as in the table.
    ring.put(try prepare(request, payload))
  }

  /// The same, with the payload written in place.
  mutating func put(_ request: BlkFrontRequest, fill: (SharedPieces) -> Void) throws(BlkFrontError) {
    let slot = try prepare(request, nil)
    fill(payload(of: Int(slot.id), at: limits.maxSegmentCount))
    ring.put(slot)
  }

  /// Takes a place in the table and pages, and copies the payload into those.
  @inline(__always) private mutating func prepare(
    _ request: BlkFrontRequest, _ payload: Span<UInt8>?
  ) throws(BlkFrontError) -> BlkIfRequest {
    let pageCount = Self.pageCount(request.byteCount)
    if pageCount > BlkIf.maxSegmentCount { return try prepareIndirect(request, pageCount, payload) }
    guard freePageCount >= pageCount, !freeSlots.isEmpty else { throw .busy }
    let slot = freeSlots.removeLast()
    let firstPage = firstFreePage
    var lastPage = firstPage
    var raw = BlkIfRequest(
      operation: request.operation, segmentCount: UInt8(pageCount), id: UInt64(slot),
      sectorNumber: request.sector >> limits.numberShift)
    for index in 0..<pageCount { raw.segments[index] = takePage(index, request.byteCount, payload, &lastPage) }
    freePageCount -= pageCount
    inFlight[slot] = InFlight(
      phase: .asked, request: request, firstPage: firstPage, lastPage: lastPage, pageCount: pageCount)
    if request.operation >= BlkIf.Operation.writeBarrier {
      if request.operation == BlkIf.Operation.writeBarrier { barrierCount += 1 }
      if request.operation == BlkIf.Operation.discard { raw = discard(request, slot) }
    }
    return raw
  }

  /// Takes the next free page for page `index` of a payload, puts its part of that into it, and describes it.
  @inline(__always) private mutating func takePage(
    _ index: Int, _ byteCount: Int, _ payload: Span<UInt8>?, _ lastPage: inout UInt16
  ) -> BlkIfSegment {
    let page = firstFreePage
    let offset = index * xenPageSize
    let count = min(byteCount - offset, xenPageSize)
    if limits.isUntrusted { zero(page, from: payload == nil ? 0 : count) }
    if let payload { bytes(of: page, count).copy(from: payload.extracting(offset..<offset + count)) }
    lastPage = page
    firstFreePage = pageAfter[Int(page)]
    return BlkIfSegment(
      gref: pool.references[Int(page)], firstSector: 0, lastSector: UInt8(count >> limits.pageShift - 1))
  }

  private func zero(_ page: UInt16, from offset: Int) {
    pool.bytes.slice(from: Int(page) * xenPageSize + offset, count: xenPageSize - offset).zero()
  }

  @inline(never) private mutating func prepareIndirect(
    _ request: BlkFrontRequest, _ pageCount: Int, _ payload: Span<UInt8>?
  ) throws(BlkFrontError) -> BlkIfRequest {
    let descriptorPageCount = Self.descriptorPageCount(pageCount)
    guard freePageCount >= pageCount + descriptorPageCount, !freeSlots.isEmpty else { throw .busy }
    let slot = freeSlots.removeLast()
    // The first of the chain describe the others.
    let firstPage = firstFreePage
    var references = InlineArray<8, UInt32>(repeating: 0)
    for index in 0..<descriptorPageCount {
      references[index] = pool.references[Int(firstFreePage)].rawValue
      firstFreePage = pageAfter[Int(firstFreePage)]
    }
    var lastPage = firstPage
    for index in 0..<pageCount { descriptors[index] = takePage(index, request.byteCount, payload, &lastPage) }
    describe(pageCount, from: firstPage)
    freePageCount -= pageCount + descriptorPageCount
    inFlight[slot] = InFlight(
      phase: .asked, request: request, firstPage: firstPage, lastPage: lastPage,
      pageCount: pageCount + descriptorPageCount, descriptorPageCount: descriptorPageCount)
    return BlkIfRequest(
      BlkIfIndirectRequest(
        indirectOperation: request.operation, segmentCount: UInt16(pageCount), id: UInt64(slot),
        sectorNumber: request.sector >> limits.numberShift, references: references))
  }

  /// Copies the descriptors of so many segments into the pages from this one of a chain on.
  private func describe(_ segmentCount: Int, from firstPage: UInt16) {
    var page = firstPage
    unsafe descriptors.withUnsafeBytes { all in
      // Safe: as many descriptors are there as segments are copied, and nobody writes to this slice.
      let source = unsafe SharedBytes(
        baseAddress: UnsafeMutableRawPointer(mutating: all.baseAddress!),
        count: segmentCount * MemoryLayout<BlkIfSegment>.stride)
      var done = 0
      while done < source.count {
        let count = min(source.count - done, xenPageSize)
        bytes(of: page, count).copy(from: source.slice(from: done, count: count))
        if limits.isUntrusted { zero(page, from: count) }
        done += count
        page = pageAfter[Int(page)]
      }
    }
  }

  @inline(never) private func discard(_ request: BlkFrontRequest, _ slot: Int) -> BlkIfRequest {
    BlkIfRequest(
      BlkIfDiscardRequest(
        flag: request.flag, id: UInt64(slot), sectorNumber: request.sector >> limits.numberShift,
        sectorCount: request.sectorCount >> limits.numberShift))
  }

  /// Whether the backend must be notified of what was put since the last time.
  @inline(__always) mutating func push() -> Bool { ring.hasUnpushed && ring.pushAndCheckNotify() }

  // MARK: Responses

  /// Takes every response that is there in, and asks for an event at the next one.
  ///
  /// - Parameter looks: whether the caller goes on looking, and wants no event.
  mutating func takeResponses(looks: Bool) throws(DeviceError) {
    while try hasResponses(looks) {
      while let response = ring.next() { try take(response) }
    }
  }

  /// Whether a response is there.
  var hasWork: Bool { ring.hasUnconsumed }

  private mutating func hasResponses(_ looks: Bool) throws(DeviceError) -> Bool {
    do throws(RingViolation) {
      if looks { return try ring.available() > 0 }
      return holdsOffEvents ? try ring.finalCheckHoldingOff() : try ring.finalCheck()
    } catch { throw .protocolViolation("\(error)") }
  }

  private mutating func take(_ response: BlkIfResponse) throws(DeviceError) {
    guard let slot = Int(exactly: response.id), slot < inFlight.count, inFlight[slot].phase == .asked else {
      throw .protocolViolation("the backend answered request \(response.id), which is not in flight")
    }
    // What an indirect request does is what Linux's backends answer, and that it is one what the header says.
    guard
      response.operation == inFlight[slot].request.operation
        || (response.operation == BlkIf.Operation.indirect && inFlight[slot].descriptorPageCount > 0)
    else {
      throw .protocolViolation(
        "the backend answered request \(response.id) as operation \(response.operation); "
          + "it is \(inFlight[slot].request.operation)")
    }
    inFlight[slot].phase =
      switch response.status {
      case BlkIf.Status.okay: .answered(.succeeded)
      case BlkIf.Status.notSupported: .answered(.notSupported)
      default: .answered(.failed)
      }
    answered[answeredCount] = slot
    answeredCount += 1
  }

  /// The next answered request, to be handed over; nil when there is none. The slot and pages of the one given before are
  /// free from then on.
  mutating func nextCompletion() -> BlkFrontCompletion? {
    if handedOverCount > 0 { free(answered[handedOverCount - 1]) }
    guard handedOverCount < answeredCount else {
      (answeredCount, handedOverCount) = (0, 0)
      return nil
    }
    let slot = answered[handedOverCount]
    handedOverCount += 1
    guard case .answered(let result) = inFlight[slot].phase else { preconditionFailure("an answered request") }
    let isRead = inFlight[slot].request.isRead && result == .succeeded
    return BlkFrontCompletion(
      inFlight[slot].request, result, payload: isRead ? payload(of: slot, at: 0) : .none)
  }

  @inline(__always) private mutating func free(_ slot: Int) {
    let (pageCount, lastPage) = (inFlight[slot].pageCount, inFlight[slot].lastPage)
    if pageCount > 0 {
      pageAfter[Int(lastPage)] = firstFreePage
      firstFreePage = inFlight[slot].firstPage
      freePageCount += pageCount
    }
    if inFlight[slot].request.operation == BlkIf.Operation.writeBarrier { barrierCount -= 1 }
    inFlight[slot].phase = .free
    freeSlots.append(slot)
  }

  /// Lends what is in flight, or was not handed over, with what it carries.
  func forEachUnanswered(_ body: (BlkFrontRequest, SharedPieces) -> Void) {
    for slot in inFlight.indices where inFlight[slot].phase != .free {
      let request = inFlight[slot].request
      body(request, request.isWrite && request.byteCount > 0 ? payload(of: slot, at: 0) : .none)
    }
  }

  // MARK: Pages

  /// A request's payload, described from `start` of the table on.
  private func payload(of slot: Int, at start: Int) -> SharedPieces {
    var page = inFlight[slot].firstPage
    for _ in 0..<inFlight[slot].descriptorPageCount { page = pageAfter[Int(page)] }
    var left = inFlight[slot].request.byteCount
    var run: SharedPieces?
    while left > 0 {
      let count = min(left, xenPageSize)
      run = pieces.append(bytes(of: page, count), to: run, at: start)
      left -= count
      page = pageAfter[Int(page)]
    }
    return run ?? .none
  }

  /// The first `count` bytes of one page of the pool.
  @inline(__always) private func bytes(of page: UInt16, _ count: Int) -> SharedBytes {
    pool.bytes.slice(from: Int(page) * xenPageSize, count: count)
  }
}
