import Testing
import XenPlatform
import XenRing

/// R6, R7, R8: when a push says "notify", and how an end asks for it before it sleeps.
struct RingNotificationTests {
  @Test(arguments: startIndices) func firstPushOnAFreshRingNotifies(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.front.put(Message(0))
    let notifyBack = pair.front.pushAndCheckNotify()
    #expect(notifyBack)
    try pair.take(1)
    pair.back.put(Message(0))
    let notifyFront = pair.back.pushAndCheckNotify()
    #expect(notifyFront)
  }

  @Test(arguments: startIndices) func pushNotifiesNobodyWhoIsAwake(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<2)
    pair.front.put(Message(2))
    let notifyBack = pair.front.pushAndCheckNotify()
    #expect(!notifyBack)
    try pair.take(3)
    pair.respond(0..<2)
    pair.back.put(Message(2))
    let notifyFront = pair.back.pushAndCheckNotify()
    #expect(!notifyFront)
  }

  @Test(arguments: startIndices) func pushOfNothingNotifiesNobody(start: UInt32) {
    var pair = DiskPair(at: start)
    let notifyBack = pair.front.pushAndCheckNotify()
    #expect(!notifyBack)
    let notifyFront = pair.back.pushAndCheckNotify()
    #expect(!notifyFront)
  }

  @Test(arguments: startIndices) func pushTouchesOnlyItsOwnProducer(start: UInt32) throws {
    var pair = DiskPair(at: start)
    func words(_ pair: borrowing DiskPair) -> [UInt32] {
      [.requestProducer, .requestEvent, .responseProducer, .responseEvent].map { pair.raw[$0] &- start }
    }
    pair.request(0..<3)
    let requested = words(pair)
    #expect(requested == [3, 1, 0, 1])
    try pair.take(3)
    let taken = words(pair)
    #expect(taken == [3, 1, 0, 1])
    pair.respond(0..<2)
    let responded = words(pair)
    #expect(responded == [3, 1, 2, 1])
    pair.back.put(Message(2))
    _ = pair.back.pushAndCheckNotify()
    let checked = words(pair)
    #expect(checked == [3, 1, 3, 1])
  }

  @Test(arguments: startIndices) func plainPushCountsAsToldForTheNextCheck(start: UInt32) {
    var pair = DiskPair(at: start)
    // The event is one ahead, and the plain push passes it: what is pushed after that must not be taken for the crossing.
    pair.request(0..<1)
    pair.front.put(Message(1))
    let notify = pair.front.pushAndCheckNotify()
    #expect(!notify)
  }

  @Test(arguments: startIndices) func backEndsFinalCheckAsksForTheNextRequest(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<3)
    try pair.take(3)
    let more = try pair.back.finalCheck()
    #expect(!more)
    #expect(pair.raw[.requestEvent] == start &+ 4)
    pair.front.put(Message(3))
    let notify = pair.front.pushAndCheckNotify()
    #expect(notify)
  }

  @Test(arguments: startIndices) func frontEndsFinalCheckAsksForTheNextResponse(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<3)
    try pair.take(3)
    pair.respond(0..<2)
    _ = try pair.front.available()
    for _ in 0..<2 { _ = pair.front.next() }
    let more = try pair.front.finalCheck()
    #expect(!more)
    #expect(pair.raw[.responseEvent] == start &+ 3)
    pair.back.put(Message(2))
    let notify = pair.back.pushAndCheckNotify()
    #expect(notify)
  }

  @Test(arguments: startIndices) func finalCheckFindsWorkWithoutMovingTheEvent(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<3)
    try pair.take(1)
    let requests = try pair.back.finalCheck()
    #expect(requests)
    #expect(pair.raw[.requestEvent] == start &+ 1)
    try pair.take(2)
    pair.respond(0..<3)
    _ = try pair.front.available()
    _ = pair.front.next()
    let responses = try pair.front.finalCheck()
    #expect(responses)
    #expect(pair.raw[.responseEvent] == start &+ 1)
  }

  @Test(arguments: startIndices) func whatFinalCheckFoundCanBeTaken(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<1)
    _ = try pair.back.finalCheck()
    let request = pair.back.next()
    #expect(request == Message(0))
    pair.respond(0..<1)
    _ = try pair.front.finalCheck()
    let response = pair.front.next()
    #expect(response == Message(0))
  }

  @Test(arguments: startIndices) func backEndSleepsUntilTheThirdRequest(start: UInt32) throws {
    var pair = DiskPair(at: start)
    let there = try pair.back.wake(after: 3)
    #expect(!there)
    var notified: [Bool] = []
    for number in 0..<4 as Range<UInt32> {
      pair.front.put(Message(number))
      notified.append(pair.front.pushAndCheckNotify())
    }
    #expect(notified == [false, false, true, false])
  }

  @Test(arguments: startIndices) func frontEndSleepsUntilTheThirdResponse(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<4)
    try pair.take(4)
    let there = try pair.front.wake(after: 3)
    #expect(!there)
    var notified: [Bool] = []
    for number in 0..<4 as Range<UInt32> {
      pair.back.put(Message(number))
      notified.append(pair.back.pushAndCheckNotify())
    }
    #expect(notified == [false, false, true, false])
  }

  @Test(arguments: startIndices) func batchThatCrossesTheEventNotifiesOnce(start: UInt32) throws {
    var pair = DiskPair(at: start)
    _ = try pair.back.wake(after: 3)
    for number in 0..<8 as Range<UInt32> { pair.front.put(Message(number)) }
    let notify = pair.front.pushAndCheckNotify()
    #expect(notify)
  }

  @Test(arguments: startIndices) func wakeSeesThatEnoughIsThereAlready(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<3)
    let three = try pair.back.wake(after: 3)
    #expect(three)
    let four = try pair.back.wake(after: 4)
    #expect(!four)
    try pair.take(3)
    pair.respond(0..<2)
    let two = try pair.front.wake(after: 2)
    #expect(two)
    let third = try pair.front.wake(after: 3)
    #expect(!third)
  }

  @Test(arguments: startIndices) func whatWakeFoundCanBeTaken(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<2)
    _ = try pair.back.wake(after: 4)
    let requests = [pair.back.next(), pair.back.next(), pair.back.next()]
    #expect(requests == [Message(0), Message(1), nil])
  }
}
