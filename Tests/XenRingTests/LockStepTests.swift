import CRingOracle
import TestSupport
import Testing
import XenPlatform
import XenRing

/// R15: beside the C macros, operation by operation, over random sequences.
///
/// Each run has a seed of its own, which a failure names.
struct LockStepTests {
  /// The protocols that the C side is instantiated for.
  enum Shape: CaseIterable, Sendable { case block, networkTransmit, networkReceive }

  static let operationCount = 100_000

  @Test(
    .enabled(
      if: ring_oracle_available(),
      "libxen-dev is not installed, so there are no C macros to compare with; install it, then run swift package clean"),
    arguments: Shape.allCases, [1, 4, 16])
  func pagesAndResultsEqualThoseOfTheMacros(shape: Shape, pageCount: Int) throws {
    let seed = Seed(Seed.given ?? UInt64.random(in: .min ... .max), suite: "LockStepTests")
    switch shape {
    case .block:
      var run = LockStep<112, 16>(against: RingOracleShapeBlock, pageCount: pageCount, seed: seed)
      try run.perform(Self.operationCount)
    case .networkTransmit:
      var run = LockStep<12, 4>(against: RingOracleShapeNetworkTransmit, pageCount: pageCount, seed: seed)
      try run.perform(Self.operationCount)
    case .networkReceive:
      var run = LockStep<8, 8>(against: RingOracleShapeNetworkReceive, pageCount: pageCount, seed: seed)
      try run.perform(Self.operationCount)
    }
  }
}

/// Ours and the macros' did not do the same.
struct Divergence: Error, CustomStringConvertible {
  let what: String
  let operation: String
  let step: Int
  let seed: Seed

  var description: String {
    "\(what) after \(operation), operation \(step); `\(seed.command)` repeats it"
  }
}

/// One ring of ours and one of the macros', to which everything happens twice.
private struct LockStep<let requestSize: Int, let responseSize: Int>: ~Copyable {
  enum Operation: CaseIterable {
    case putRequest, pushRequests, pushRequestsAndCheck, lookForResponses, takeResponse, checkForResponses
    case takeResponses, renewRequests
    case setResponseEvent
    case lookForRequests, takeRequest, putResponse, answerRequests, pushResponses, pushResponsesAndCheck,
      checkForRequests
    case setRequestEvent

    /// Each of these moves one message; they come in bursts, or a large ring would never fill and never drain.
    var isBurst: Bool { [.putRequest, .takeResponse, .takeRequest, .putResponse].contains(self) }
  }

  var pair: RingPair<Message<requestSize>, Message<responseSize>>
  let oracle: Oracle
  let start: UInt32
  let seed: Seed
  var generator: SeededGenerator
  var step = 0
  /// What the macros found when this end last looked, and what it has not yet taken of that.
  var requestsFound: UInt32 = 0
  var responsesFound: UInt32 = 0
  /// Every operation that did something, and the notifications it asked for: a run that meets only one answer of a kind
  /// has compared little.
  var effective: Set<Operation> = []
  var notified: Set<[Bool]> = []

  init(against shape: RingOracleShape, pageCount: Int, seed: Seed) {
    self.seed = seed
    generator = SeededGenerator(seed)
    let byteCount = pageCount * xenPageSize
    let entryCount = RingLayout.entryCount(byteCount: byteCount, stride: max(requestSize, responseSize))
    start = UInt32.max - UInt32.random(in: 0..<UInt32(entryCount), using: &generator)
    pair = RingPair(pageCount: pageCount, at: start)
    oracle = Oracle(shape, byteCount: byteCount, start: start)
  }

  mutating func perform(_ count: Int) throws {
    try agree(pair.front.entryCount, Int(ring_oracle_entry_count(oracle.ring)), "entry counts differ", .putRequest)
    try agree(pair.back.entryCount, pair.front.entryCount, "the ends' entry counts differ", .putRequest)
    while step < count {
      let operation = Operation.allCases.randomElement(using: &generator)!
      let burst = operation.isBurst ? Int.random(in: 1...pair.front.entryCount, using: &generator) : 1
      for _ in 0..<burst where step < count {
        step += 1
        let did = try performOnBoth(operation)
        try compareState(after: operation)
        guard did else { break }
        effective.insert(operation)
      }
    }
    try agree(effective.count, Operation.allCases.count, "an operation never did anything", .putRequest)
    // A ring of many pages is pushed too seldom, between long bursts, for chance to bring all four answers every time.
    if pair.raw.pages.pageCount == 1 {
      try agree(notified.count, 4, "a push always answered the same", .pushRequestsAndCheck)
    }
    try agree(pair.raw[.responseProducer] < start, true, "the indices never wrapped", .putRequest)
  }

  /// Performs it on ours and on the macros', and says whether there was anything to do.
  mutating func performOnBoth(_ operation: Operation) throws -> Bool {
    switch operation {
    case .putRequest:
      guard ring_oracle_free_requests(oracle.ring) > 0 else { return false }
      let request = Message<requestSize>(using: &generator)
      pair.front.put(request)
      oracle.putRequest(request)
    case .pushRequests:
      pair.front.push()
      ring_oracle_push_requests(oracle.ring)
    case .pushRequestsAndCheck:
      let notify = pair.front.pushAndCheckNotify()
      try agree(notify, ring_oracle_push_requests_and_check_notify(oracle.ring), "notify differs", operation)
      notified.insert([true, notify])
    case .lookForResponses:
      let found = try pair.front.available()
      responsesFound = ring_oracle_unconsumed_responses(oracle.ring)
      try agree(found, responsesFound, "response counts differ", operation)
    case .takeResponse:
      let response = pair.front.next()
      guard responsesFound > 0 else {
        try agree(response == nil, true, "a response came from nowhere", operation)
        return false
      }
      responsesFound -= 1
      let expected: Message<responseSize> = oracle.takeResponse()
      try agree(response == expected, true, "responses differ", operation)
    case .takeResponses:
      guard responsesFound > 0 else { return false }
      try takeResponses()
    case .renewRequests:
      guard responsesFound > 0 else { return false }
      try renewRequests()
    case .checkForResponses:
      let more = try pair.front.finalCheck()
      responsesFound = ring_oracle_final_check_for_responses(oracle.ring)
      try agree(more, responsesFound > 0, "final checks differ", operation)
    case .setResponseEvent:
      let ahead = UInt32.random(in: 1...UInt32(pair.front.entryCount), using: &generator)
      let enough = try pair.front.wake(after: ahead)
      responsesFound = ring_oracle_set_response_event(oracle.ring, ahead)
      try agree(enough, responsesFound >= ahead, "wakes differ", operation)
    case .lookForRequests:
      let found = try pair.back.available()
      requestsFound = ring_oracle_unconsumed_requests(oracle.ring)
      try agree(found, requestsFound, "request counts differ", operation)
    case .takeRequest:
      let request = pair.back.next()
      guard requestsFound > 0 else {
        try agree(request == nil, true, "a request came from nowhere", operation)
        return false
      }
      requestsFound -= 1
      let expected: Message<requestSize> = oracle.takeRequest()
      try agree(request == expected, true, "requests differ", operation)
    case .putResponse:
      guard ring_oracle_in_flight(oracle.ring) > 0 else { return false }
      let response = Message<responseSize>(using: &generator)
      pair.back.put(response)
      oracle.putResponse(response)
    case .answerRequests:
      // It is for rings that have none in flight: those are answered before.
      while try performOnBoth(.putResponse) {}
      guard requestsFound > 0 else { return false }
      try answerRequests()
    case .pushResponses:
      pair.back.push()
      ring_oracle_push_responses(oracle.ring)
    case .pushResponsesAndCheck:
      let notify = pair.back.pushAndCheckNotify()
      try agree(notify, ring_oracle_push_responses_and_check_notify(oracle.ring), "notify differs", operation)
      notified.insert([false, notify])
    case .checkForRequests:
      let more = try pair.back.finalCheck()
      requestsFound = ring_oracle_final_check_for_requests(oracle.ring)
      try agree(more, requestsFound > 0, "final checks differ", operation)
    case .setRequestEvent:
      let ahead = UInt32.random(in: 1...UInt32(pair.back.entryCount), using: &generator)
      let enough = try pair.back.wake(after: ahead)
      requestsFound = ring_oracle_set_request_event(oracle.ring, ahead)
      try agree(enough, requestsFound >= ahead, "wakes differ", operation)
    }
    return true
  }

  /// Has our ring take many responses at once, and the macros one by one; the end is at any place.
  private mutating func takeResponses() throws {
    let end = Int.random(in: 1...Int(responsesFound) + 2, using: &generator)
    var responses: [Message<responseSize>] = []
    let taken = pair.front.take { response in
      responses.append(response)
      return responses.count < end
    }
    try agree(Int(taken), min(end, Int(responsesFound)), "taken counts differ", .takeResponses)
    try takeFromOracle(responses, .takeResponses)
  }

  /// The same with a request for each but the one behind which it ends.
  private mutating func renewRequests() throws {
    let limit = Int.random(in: 0...Int(responsesFound) + 2, using: &generator)
    let end = Int.random(in: 0...Int(responsesFound) + 2, using: &generator)
    let requests = (0..<responsesFound).map { _ in Message<requestSize>(using: &generator) }
    var (responses, slots) = ([Message<responseSize>](), [[Int]]())
    let (slotCount, first) = (pair.front.entryCount, [pair.front.responseSlot, pair.front.requestSlot])
    let put = pair.front.renew(upTo: UInt32(limit)) { response, slot, requestSlot in
      responses.append(response)
      slots.append([slot, requestSlot])
      return responses.count > end ? nil : requests[responses.count - 1]
    }
    let whole = min(limit, Int(responsesFound))
    try agree(Int(put), min(whole, end), "put counts differ", .renewRequests)
    try agree(responses.count, min(whole, end + 1), "taken counts differ", .renewRequests)
    let expected = responses.indices.map { number in first.map { ($0 + number) % slotCount } }
    try agree(slots, expected, "slots differ", .renewRequests)
    try takeFromOracle(responses, .renewRequests)
    for request in requests.prefix(Int(put)) { oracle.putRequest(request) }
  }

  private mutating func takeFromOracle(_ responses: [Message<responseSize>], _ operation: Operation) throws {
    for response in responses {
      let expected: Message<responseSize> = oracle.takeResponse()
      try agree(response == expected, true, "responses differ", operation)
    }
    responsesFound -= UInt32(responses.count)
  }

  /// Has our ring answer many requests at once, and the macros one by one; the end is at any place.
  private mutating func answerRequests() throws {
    let limit = UInt32.random(in: 0...requestsFound + 2, using: &generator)
    let end = UInt32.random(in: 0...requestsFound + 2, using: &generator)
    let responses = (0..<requestsFound).map { _ in Message<responseSize>(using: &generator) }
    var requests: [Message<requestSize>] = []
    let answered = pair.back.answer(upTo: limit) {
      requests.count < end
    } _: { request in
      requests.append(request)
      return responses[requests.count - 1]
    }
    try agree(answered, min(limit, end, requestsFound), "answered counts differ", .answerRequests)
    try agree(requests.count, Int(answered), "a request was lost", .answerRequests)
    for number in requests.indices {
      let expected: Message<requestSize> = oracle.takeRequest()
      try agree(requests[number] == expected, true, "requests differ", .answerRequests)
      oracle.putResponse(responses[number])
    }
    requestsFound -= answered
  }

  /// Compares everything that either side can be asked without changing it.
  func compareState(after operation: Operation) throws {
    try agree(oracle.pagesEqual(pair.raw.pages.region()), true, "the pages differ", operation)
    try agree(
      pair.front.freeRequestCount, ring_oracle_free_requests(oracle.ring), "free request counts differ", operation)
    try agree(pair.back.inFlightCount, ring_oracle_in_flight(oracle.ring), "in-flight counts differ", operation)
    // Ours would have thrown.
    try agree(ring_oracle_request_producer_overflows(oracle.ring), false, "the macros see an overflow", operation)
    try agree(ring_oracle_response_producer_overflows(oracle.ring), false, "the macros see an overflow", operation)
  }

  func agree<Value: Equatable>(_ ours: Value, _ theirs: Value, _ what: String, _ operation: Operation) throws {
    guard ours == theirs else {
      throw Divergence(what: "\(what) (\(ours), \(theirs))", operation: "\(operation)", step: step, seed: seed)
    }
  }
}

/// Owns the C side's ring and hands messages to it.
private final class Oracle {
  let ring: RingOracle

  init(_ shape: RingOracleShape, byteCount: Int, start: UInt32) {
    ring = ring_oracle_create(shape, UInt32(byteCount), start)
  }

  deinit { ring_oracle_destroy(ring) }

  // Safe, all of these: the C side reads or writes as many bytes as a message of its shape has.
  func pagesEqual(_ region: consuming SharedRegion) -> Bool {
    unsafe ring_oracle_pages_equal(ring, region.baseAddress, UInt32(region.byteCount))
  }

  func putRequest<let size: Int>(_ request: Message<size>) {
    unsafe withUnsafeBytes(of: request) { unsafe ring_oracle_put_request(ring, $0.baseAddress) }
  }

  func putResponse<let size: Int>(_ response: Message<size>) {
    unsafe withUnsafeBytes(of: response) { unsafe ring_oracle_put_response(ring, $0.baseAddress) }
  }

  func takeRequest<let size: Int>() -> Message<size> {
    var request = Message<size>(0)
    unsafe withUnsafeMutableBytes(of: &request) { unsafe ring_oracle_take_request(ring, $0.baseAddress) }
    return request
  }

  func takeResponse<let size: Int>() -> Message<size> {
    var response = Message<size>(0)
    unsafe withUnsafeMutableBytes(of: &response) { unsafe ring_oracle_take_response(ring, $0.baseAddress) }
    return response
  }
}
