import XenPlatform

/// The requesting end of a shared ring (io/ring.h, `FRONT_RING_INIT` and the macros that take a front ring).
///
/// It puts requests and takes responses. Every stored byte of `Request` and `Response` must belong to a property:
/// spell padding between properties out, or old memory would travel in it.
///
/// What the other end writes is trusted nowhere: its producer index is checked against what is unanswered before any
/// response is taken, and a response is a copy that it can no longer change. What the *caller* must not do (put into a
/// full ring) is a precondition.
@frozen public struct FrontRing<Request: BitwiseCopyable, Response: BitwiseCopyable>: ~Copyable {
  @usableFromInline let region: SharedRegion
  @usableFromInline let page: RingPage
  /// The next request's index (`req_prod_pvt`), and how far the other end has been told.
  @usableFromInline var requestsProduced: RingIndex
  @usableFromInline var requestsPushed: RingIndex
  /// The next response's index (`rsp_cons`), and up to where responses have passed the check.
  @usableFromInline var responsesConsumed: RingIndex
  @usableFromInline var responsesChecked: RingIndex
  @usableFromInline var counters = RingStatistics()
  /// What this end has counted.
  @inlinable public var statistics: RingStatistics { counters }

  /// Makes a fresh ring: zeroes the region, sets the shared indices, and attaches (`SHARED_RING_INIT`, `FRONT_RING_INIT`).
  ///
  /// - Parameters:
  ///   - region: holds at least one slot; its size decides ``entryCount``.
  ///   - index: where all four indices start. Real rings start at zero; tests start near the wrap.
  @inlinable public init(initialising region: consuming SharedRegion, at index: RingIndex = .zero) {
    let page = RingPage(region, stride: Self.stride)
    page.initialise(region: region, at: index)
    self.init(page: page, region: region, index: index)
  }

  /// Takes up a ring that already lives, with nothing in flight, at `index` (`FRONT_RING_ATTACH`).
  @inlinable public init(attaching region: consuming SharedRegion, at index: RingIndex) {
    let page = RingPage(region, stride: Self.stride)
    self.init(page: page, region: region, index: index)
  }

  @inlinable init(page: RingPage, region: consuming SharedRegion, index: RingIndex) {
    self.page = page
    self.region = region
    requestsProduced = index
    requestsPushed = index
    responsesConsumed = index
    responsesChecked = index
  }

  @inlinable static var stride: Int { RingLayout.stride(Request.self, Response.self) }

  /// How many slots the ring has: a power of two.
  @inlinable public var entryCount: Int { Int(page.entryCount) }

  /// The slot of the next request, and that of the next response: from 0 to ``entryCount`` - 1.
  @inlinable public var requestSlot: Int { page.slot(of: requestsProduced) }
  @inlinable public var responseSlot: Int { page.slot(of: responsesConsumed) }

  /// Requests put and not yet answered (their responses not yet taken).
  @inlinable public var unansweredCount: UInt32 { requestsProduced.distance(from: responsesConsumed) }

  /// How many responses have passed the check, and were not taken yet.
  @inlinable public var checkedCount: UInt32 { responsesChecked.distance(from: responsesConsumed) }

  /// How many requests have been put since the last push.
  @inlinable public var unpushedCount: UInt32 { requestsProduced.distance(from: requestsPushed) }

  /// Whether requests have been put since the last push.
  @inlinable public var hasUnpushed: Bool { requestsProduced != requestsPushed }

  /// Requests pushed and not yet answered: how many responses can still come.
  @inlinable public var pushedCount: UInt32 { requestsPushed.distance(from: responsesConsumed) }

  /// How many requests can be put before a response must be taken (`RING_FREE_REQUESTS`).
  @inlinable public var freeRequestCount: UInt32 { page.entryCount &- unansweredCount }

  /// Puts one request into the next free slot. The other end does not see it before a push.
  ///
  /// - Precondition: ``freeRequestCount`` is not zero.
  @inlinable public mutating func put(_ request: Request) {
    precondition(unansweredCount != page.entryCount, "the ring is full")
    page.put(request, at: requestsProduced, stride: Self.stride)
    requestsProduced.advance()
  }

  /// Shows the other end all requests put so far (`RING_PUSH_REQUESTS`).
  @inlinable public mutating func push() {
    page.store(requestsProduced, at: RingLayout.requestProducerOffset)
    requestsPushed = requestsProduced
  }

  /// Shows the other end all requests put so far and says whether it must be notified
  /// (`RING_PUSH_REQUESTS_AND_CHECK_NOTIFY`).
  @inlinable public mutating func pushAndCheckNotify() -> Bool {
    // The producer's store is ordered before the load of the event index, against the other end's store of that index and its
    // load of the producer in its final check.
    page.storeBeforeLoads(requestsProduced, at: RingLayout.requestProducerOffset)
    let event = page.load(RingLayout.requestEventOffset)
    let notify = requestsProduced.distance(from: event) < requestsProduced.distance(from: requestsPushed)
    requestsPushed = requestsProduced
    counters.count(notify: notify)
    return notify
  }

  /// Reads the other end's producer, checks it once, and says how many responses can be taken.
  ///
  /// - Throws: ``RingViolation/responseProducerOutOfRange(produced:consumed:unanswered:)``; the ring is then unusable.
  @inlinable public mutating func available() throws(RingViolation) -> UInt32 {
    try check(page.load(RingLayout.responseProducerOffset))
  }

  /// Whether the other end has put so many responses more than were taken, or says so (`RING_HAS_UNCONSUMED_RESPONSES`): a
  /// look, for whoever waits without asking to be notified. What passes the gate is for ``available()`` to say.
  ///
  /// - Parameter count: from 1 to the number of unanswered requests; more than that would never come.
  @inlinable public func hasUnconsumed(_ count: UInt32 = 1) -> Bool {
    page.load(RingLayout.responseProducerOffset).distance(from: responsesConsumed) >= count
  }

  /// Has the slots of the responses that passed the check brought near, all at once; as many as `count` at most. A hint: where
  /// each response takes long, the processor would else wait for one line of them after the other.
  @inlinable @inline(__always) public func expectResponses(_ count: UInt32) {
    page.expect(min(checkedCount, count), at: responsesConsumed, stride: Self.stride)
  }

  /// Takes the next response that passed the check in ``available()`` or ``finalCheck()``; nil when there is none.
  @inlinable public mutating func next() -> Response? {
    guard responsesConsumed != responsesChecked else { return nil }
    let response = page.take(Response.self, at: responsesConsumed, stride: Self.stride)
    responsesConsumed.advance()
    return response
  }

  /// Takes responses that passed the check, as ``next()`` does one by one. The index stays in a register meanwhile.
  ///
  /// - Parameter body: gets one, which is taken, and says whether to go on.
  /// - Returns: how many were taken.
  @inlinable @inline(__always) public mutating func take(while body: (_ response: Response) -> Bool) -> UInt32 {
    let (page, start, limit) = (page, responsesConsumed, checkedCount)
    var (taken, goesOn): (UInt32, Bool) = (0, true)
    while goesOn, taken < limit {
      goesOn = body(page.take(Response.self, at: start.advanced(by: taken), stride: Self.stride))
      taken &+= 1
    }
    responsesConsumed = start.advanced(by: taken)
    return taken
  }

  /// Takes responses that passed the check, and puts a request for each. The indices stay in registers meanwhile: for a front end
  /// whose requests ask for something that comes, and that asks for more at once.
  ///
  /// - Parameters:
  ///   - count: how many at most.
  ///   - body: gets a response, its slot, and that of the request, which it gives. Where it gives nil the response is taken all
  ///     the same, and is the last; no request is put for it.
  /// - Returns: how many requests were put.
  @inlinable @inline(__always) public mutating func renew(
    upTo count: UInt32, _ body: (_ response: Response, _ slot: Int, _ requestSlot: Int) -> Request?
  ) -> UInt32 {
    let (page, consumed, produced, limit) = (page, responsesConsumed, requestsProduced, min(count, checkedCount))
    var (put, taken): (UInt32, UInt32) = (0, 0)
    while put < limit {
      // The response's slot is free before the request takes one: there is room.
      let (index, next) = (consumed.advanced(by: put), produced.advanced(by: put))
      let response = page.take(Response.self, at: index, stride: Self.stride)
      taken = put &+ 1
      guard let request = body(response, page.slot(of: index), page.slot(of: next)) else { break }
      page.put(request, at: next, stride: Self.stride)
      put = taken
    }
    responsesConsumed = consumed.advanced(by: taken)
    requestsProduced = produced.advanced(by: put)
    return put
  }

  /// Asks to be notified of the next response, and looks once more (`RING_FINAL_CHECK_FOR_RESPONSES`). Call it when
  /// ``next()`` has given nil, and sleep only when it answers false.
  @inlinable public mutating func finalCheck() throws(RingViolation) -> Bool {
    if try available() > 0 { return true }
    return try wake(after: 1)
  }

  /// As ``finalCheck()``, but asks to be notified only when half of what is unanswered has been answered.
  @inlinable @inline(__always) public mutating func finalCheckHoldingOff() throws(RingViolation) -> Bool {
    if try available() > 0 { return true }
    if try wake(after: pushedCount / 2 + 1) { return true }
    // Fewer than asked for may have come meanwhile; they are taken now.
    return try available() > 0
  }

  /// Asks to be notified only when `count` more responses are there, and looks once more: true when that many are
  /// there already (the event index set ahead; io/ring.h, the comment above `RING_PUSH_REQUESTS_AND_CHECK_NOTIFY`).
  ///
  /// - Parameter count: from 1 to the number of unanswered requests; more than that would never come.
  @inlinable public mutating func wake(after count: UInt32) throws(RingViolation) -> Bool {
    // The event index is stored before the producer is read again.
    page.storeBeforeLoads(responsesConsumed.advanced(by: count), at: RingLayout.responseEventOffset)
    return try check(page.load(RingLayout.responseProducerOffset)) >= count
  }

  /// The one gate for the other end's index. Against `unanswered`, and not against the plain overflow macro's bound,
  /// because that one accepts a producer that moved backwards while requests are in flight.
  @inlinable mutating func check(_ produced: RingIndex) throws(RingViolation) -> UInt32 {
    // An end that is about to sleep finds nothing each time; nothing is always within bounds.
    if produced == responsesConsumed {
      responsesChecked = produced
      return 0
    }
    let waiting = produced.distance(from: responsesConsumed)
    let unanswered = requestsPushed.distance(from: responsesConsumed)
    guard waiting <= unanswered else {
      throw .responseProducerOutOfRange(produced: produced, consumed: responsesConsumed, unanswered: unanswered)
    }
    responsesChecked = produced
    return waiting
  }

  /// One line for a log: both ends' indices, events, requests in flight, notifications.
  public borrowing func dump() -> String {
    RingDump(page: page, statistics: statistics)
      .line("front", mine: "produced \(requestsProduced) consumed \(responsesConsumed) unanswered \(unansweredCount)")
  }
}
