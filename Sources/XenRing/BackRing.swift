import XenPlatform

/// The answering end of a shared ring (io/ring.h, `BACK_RING_INIT` and the macros that take a back ring).
///
/// It takes requests and puts responses, in any order. It never initialises the shared page: that would throw away what
/// the front end has already put there. `Request` and `Response` spell out their padding, as for ``FrontRing``.
///
/// What the other end writes is trusted nowhere: its producer index is checked against the free slots before any request
/// is taken, and a request is a copy that it can no longer change.
@frozen public struct BackRing<Request: BitwiseCopyable, Response: BitwiseCopyable>: ~Copyable {
  @usableFromInline let region: SharedRegion
  @usableFromInline let page: RingPage
  /// The next response's index (`rsp_prod_pvt`), and how far the other end has been told.
  @usableFromInline var responsesProduced: RingIndex
  @usableFromInline var responsesPushed: RingIndex
  /// The next request's index (`req_cons`), and up to where requests have passed the check.
  @usableFromInline var requestsConsumed: RingIndex
  @usableFromInline var requestsChecked: RingIndex
  @usableFromInline var counters = RingStatistics()
  /// What this end has counted.
  @inlinable public var statistics: RingStatistics { counters }

  /// Attaches to a ring that the front end has initialised (`BACK_RING_INIT`, `BACK_RING_ATTACH`).
  ///
  /// - Parameters:
  ///   - region: the front end's ring pages; its size decides ``entryCount``.
  ///   - index: zero for a fresh ring; for a live one, where both requests and responses continue.
  @inlinable public init(attaching region: consuming SharedRegion, at index: RingIndex = .zero) {
    page = RingPage(region, stride: Self.stride)
    self.region = region
    responsesProduced = index
    responsesPushed = index
    requestsConsumed = index
    requestsChecked = index
  }

  /// Takes up a live ring whose back end was killed: responses go on where the shared page says that they do, and requests
  /// where the one before left word of having taken them to. The requests between are in flight.
  ///
  /// - Parameter consumed: the index of the next request to take.
  /// - Throws: ``RingViolation/takenUpOutOfRange(produced:consumed:entryCount:)`` when the two cannot be of one ring.
  @inlinable public init(
    takingUp region: consuming SharedRegion, requestsConsumed consumed: RingIndex
  ) throws(RingViolation) {
    let page = RingPage(region, stride: Self.stride)
    let produced = page.load(RingLayout.responseProducerOffset)
    guard consumed.distance(from: produced) <= page.entryCount else {
      throw .takenUpOutOfRange(produced: produced, consumed: consumed, entryCount: page.entryCount)
    }
    self.page = page
    self.region = region
    responsesProduced = produced
    responsesPushed = produced
    requestsConsumed = consumed
    requestsChecked = consumed
  }

  @inlinable static var stride: Int { RingLayout.stride(Request.self, Response.self) }

  /// How many slots the ring has: a power of two.
  @inlinable public var entryCount: Int { Int(page.entryCount) }

  /// The index of the next request to take (`req_cons`), and of the next response to put (`rsp_prod_pvt`).
  @inlinable public var requestIndex: RingIndex { requestsConsumed }
  @inlinable public var responseIndex: RingIndex { responsesProduced }

  /// How many responses have been put since the last push.
  @inlinable public var unpushedCount: UInt32 { responsesProduced.distance(from: responsesPushed) }

  /// Whether responses have been put since the last push.
  @inlinable public var hasUnpushed: Bool { responsesProduced != responsesPushed }

  /// Where both requests and responses go on: what another ``init(attaching:at:)`` takes up this ring with.
  ///
  /// - Precondition: ``inFlightCount`` is zero, and everything is pushed.
  @inlinable public var index: RingIndex {
    precondition(requestsConsumed == responsesPushed, "every request is answered, and every answer pushed")
    return requestsConsumed
  }

  /// Requests taken and not yet answered.
  @inlinable public var inFlightCount: UInt32 { requestsConsumed.distance(from: responsesProduced) }

  /// Reads the other end's producer, checks it once, and says how many requests can be taken. Never more than there
  /// are free response slots (`RING_HAS_UNCONSUMED_REQUESTS`).
  ///
  /// - Throws: ``RingViolation/requestProducerOutOfRange(produced:consumed:room:)``; the ring is then unusable.
  @inlinable public mutating func available() throws(RingViolation) -> UInt32 {
    try check(page.load(RingLayout.requestProducerOffset))
  }

  /// Whether the other end has put so many requests more than were taken, or says so (`RING_HAS_UNCONSUMED_REQUESTS`): a look,
  /// for whoever waits without asking to be notified. What passes the gate is for ``available()`` to say.
  ///
  /// - Parameter count: from 1 to ``entryCount``.
  @inlinable public func hasUnconsumed(_ count: UInt32 = 1) -> Bool {
    page.load(RingLayout.requestProducerOffset).distance(from: requestsConsumed) >= count
  }

  /// Has the slots of the requests that passed the check brought near, all at once; as many as `count` at most. A hint: where
  /// each request takes long, the processor would else wait for one line of them after the other.
  @inlinable @inline(__always) public func expectRequests(_ count: UInt32) {
    page.expect(min(requestsChecked.distance(from: requestsConsumed), count), at: requestsConsumed, stride: Self.stride)
  }

  /// Takes the next request that passed the check in ``available()`` or ``finalCheck()``; nil when there is none.
  @inlinable public mutating func next() -> Request? {
    guard requestsConsumed != requestsChecked else { return nil }
    let request = page.take(Request.self, at: requestsConsumed, stride: Self.stride)
    requestsConsumed.advance()
    return request
  }

  /// Puts one response, whole and with its slot's remaining bytes zeroed. The other end does not see it before a push.
  ///
  /// - Precondition: ``inFlightCount`` is not zero: each request gets one response.
  @inlinable public mutating func put(_ response: Response) {
    precondition(responsesProduced != requestsConsumed, "more responses than requests")
    page.put(response, at: responsesProduced, stride: Self.stride)
    responsesProduced.advance()
  }

  /// Takes requests that passed the check, and answers each at once, in its own slot. The indices stay in registers meanwhile: for
  /// a back end that has many requests to answer, and none in flight.
  ///
  /// - Parameters:
  ///   - count: how many at most.
  ///   - goesOn: whether to take another one.
  ///   - body: gives the response to a request.
  /// - Returns: how many were answered.
  /// - Precondition: ``inFlightCount`` is zero.
  @inlinable @inline(__always) public mutating func answer(
    upTo count: UInt32, while goesOn: () -> Bool, _ body: (_ request: Request) -> Response
  ) -> UInt32 {
    precondition(inFlightCount == 0, "each response stands in its request's slot")
    let (page, start) = (page, requestsConsumed)
    let limit = min(count, requestsChecked.distance(from: start))
    var answered: UInt32 = 0
    while answered < limit, goesOn() {
      let index = start.advanced(by: answered)
      page.put(body(page.take(Request.self, at: index, stride: Self.stride)), at: index, stride: Self.stride)
      answered &+= 1
    }
    requestsConsumed = start.advanced(by: answered)
    responsesProduced = requestsConsumed
    return answered
  }

  /// Puts another response in place of one that has not been pushed, and so has not been shown to anybody.
  ///
  /// - Parameter count: how many responses ago that one was put: 1 for the last.
  @inlinable public func replace(_ response: Response, back count: UInt32) {
    precondition(count > 0 && count <= unpushedCount, "a response that has not been pushed")
    page.put(response, at: responsesProduced.advanced(by: 0 &- count), stride: Self.stride)
  }

  /// Shows the other end all responses put so far (`RING_PUSH_RESPONSES`).
  @inlinable public mutating func push() {
    page.store(responsesProduced, at: RingLayout.responseProducerOffset)
    responsesPushed = responsesProduced
  }

  /// Shows the other end all responses put so far and says whether it must be notified
  /// (`RING_PUSH_RESPONSES_AND_CHECK_NOTIFY`).
  @inlinable public mutating func pushAndCheckNotify() -> Bool {
    // The producer's store is ordered before the load of the event index, against the other end's store of that index and its
    // load of the producer in its final check.
    page.storeBeforeLoads(responsesProduced, at: RingLayout.responseProducerOffset)
    let event = page.load(RingLayout.responseEventOffset)
    let notify = responsesProduced.distance(from: event) < responsesProduced.distance(from: responsesPushed)
    responsesPushed = responsesProduced
    counters.count(notify: notify)
    return notify
  }

  /// Asks to be notified of the next request, and looks once more (`RING_FINAL_CHECK_FOR_REQUESTS`). Call it when
  /// ``next()`` has given nil, and sleep only when it answers false.
  @inlinable public mutating func finalCheck() throws(RingViolation) -> Bool {
    if try available() > 0 { return true }
    return try wake(after: 1)
  }

  /// Asks to be notified only when `count` more requests are there, and looks once more: true when that many are there
  /// already.
  ///
  /// - Parameter count: from 1 to ``entryCount``.
  @inlinable public mutating func wake(after count: UInt32) throws(RingViolation) -> Bool {
    // The event index is stored before the producer is read again.
    page.storeBeforeLoads(requestsConsumed.advanced(by: count), at: RingLayout.requestEventOffset)
    return try check(page.load(RingLayout.requestProducerOffset)) >= count
  }

  /// The one gate for the other end's index. Against the free slots, and not against the plain overflow macro's bound,
  /// because that one accepts a producer that moved backwards while requests are in flight.
  @inlinable mutating func check(_ produced: RingIndex) throws(RingViolation) -> UInt32 {
    // An end that is about to sleep finds nothing each time; nothing is always within bounds.
    if produced == requestsConsumed {
      requestsChecked = produced
      return 0
    }
    let waiting = produced.distance(from: requestsConsumed)
    let room = page.entryCount &- inFlightCount
    guard waiting <= room else {
      throw .requestProducerOutOfRange(produced: produced, consumed: requestsConsumed, room: room)
    }
    requestsChecked = produced
    return waiting
  }

  /// One line for a log: both ends' indices, events, requests in flight, notifications.
  public borrowing func dump() -> String {
    RingDump(page: page, statistics: statistics)
      .line("back", mine: "produced \(responsesProduced) consumed \(requestsConsumed) in flight \(inFlightCount)")
  }
}
