import Testing
import XenPlatform
import XenRing

/// R9, R10, R11: the other end writes what it likes, when it likes.
struct HostilePeerTests {
  @Test(arguments: startIndices) func rewrittenRequestSlotChangesNothingTaken(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<1)
    _ = try pair.back.available()
    let request = pair.back.next()
    pair.raw[bytes: pair.slotRange(start)] = [UInt8](repeating: 0xEE, count: 112)
    #expect(request == Message(0))
  }

  @Test(arguments: startIndices) func rewrittenResponseSlotChangesNothingTaken(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<1)
    try pair.take(1)
    pair.respond(0..<1)
    _ = try pair.front.available()
    let response = pair.front.next()
    pair.raw[bytes: pair.slotRange(start)] = [UInt8](repeating: 0xEE, count: 112)
    #expect(response == Message(0))
  }

  @Test func anyBytesAreARequest() throws {
    var pair = DiskPair()
    pair.raw[bytes: 64..<4096] = [UInt8](repeating: 0xFF, count: 4032)
    pair.raw[.requestProducer] = 32
    try pair.take(31)
    let last = pair.back.next()
    #expect(last?.bytes[111] == 0xFF)
  }

  @Test(arguments: startIndices) func requestProducerPastTheRingIsAViolation(start: UInt32) {
    var pair = DiskPair(at: start)
    pair.raw[.requestProducer] = start &+ 33
    let complaint = pair.backEndsComplaint()
    #expect(
      complaint
        == .requestProducerOutOfRange(
          produced: RingIndex(rawValue: start &+ 33), consumed: RingIndex(rawValue: start), room: 32))
  }

  @Test(arguments: startIndices) func requestsAreCappedByFreeResponseSlots(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<10)
    try pair.take(10)
    pair.raw[.requestProducer] = start &+ 32
    let waiting = try pair.back.available()
    #expect(waiting == 22)
    pair.raw[.requestProducer] = start &+ 33
    let complaint = pair.backEndsComplaint()
    #expect(
      complaint
        == .requestProducerOutOfRange(
          produced: RingIndex(rawValue: start &+ 33), consumed: RingIndex(rawValue: start &+ 10), room: 22))
  }

  @Test(arguments: startIndices) func responseFreesRoomForOneMoreRequest(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<32)
    try pair.take(32)
    let none = try pair.back.available()
    #expect(none == 0)
    pair.respond(0..<1)
    pair.raw[.requestProducer] = start &+ 33
    let one = try pair.back.available()
    #expect(one == 1)
  }

  @Test(arguments: startIndices) func requestProducerBackwardsOnAnIdleRingIsAViolation(start: UInt32) {
    var pair = DiskPair(at: start)
    pair.raw[.requestProducer] = start &- 1
    let complaint = pair.backEndsComplaint()
    #expect(complaint != nil)
  }

  /// The plain overflow macro measures from the responses produced, so with requests in flight it accepts a producer
  /// that lies behind what is consumed; a loop that runs until consumed meets produced would then take 2^32 requests.
  @Test(arguments: startIndices) func requestProducerBackwardsWhileInFlightIsAViolation(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<8)
    try pair.take(8)
    for back in 1...8 as ClosedRange<UInt32> {
      pair.raw[.requestProducer] = start &+ 8 &- back
      let macroAccepts = pair.raw[.requestProducer] &- start <= 32
      #expect(macroAccepts)
      let complaint = pair.backEndsComplaint()
      #expect(complaint != nil)
      let request = pair.back.next()
      #expect(request == nil)
    }
  }

  @Test(arguments: startIndices, [1 << 16, 1 << 31, .max - 40] as [UInt32])
  func hugeRequestProducerIsAViolation(start: UInt32, ahead: UInt32) {
    var pair = DiskPair(at: start)
    pair.raw[.requestProducer] = start &+ ahead
    let complaint = pair.backEndsComplaint()
    #expect(complaint != nil)
  }

  @Test(arguments: startIndices) func requestProducerIsCheckedInTheFinalCheckToo(start: UInt32) {
    var pair = DiskPair(at: start)
    pair.raw[.requestProducer] = start &+ 33
    let sleeping = pair.backEndsComplaint { ring throws(RingViolation) in _ = try ring.finalCheck() }
    #expect(sleeping != nil)
    let batching = pair.backEndsComplaint { ring throws(RingViolation) in _ = try ring.wake(after: 4) }
    #expect(batching != nil)
  }

  @Test(arguments: startIndices) func requestsTakenBackBeforeTheyAreTakenAreGone(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<8)
    try pair.take(2)
    pair.raw[.requestProducer] = start &+ 2
    let waiting = try pair.back.available()
    #expect(waiting == 0)
    let request = pair.back.next()
    #expect(request == nil)
  }

  @Test(arguments: startIndices) func responseForIdleRequestBreaksRing(start: UInt32) {
    var pair = DiskPair(at: start)
    pair.raw[.responseProducer] = start &+ 1
    let complaint = pair.frontEndsComplaint()
    #expect(
      complaint
        == .responseProducerOutOfRange(
          produced: RingIndex(rawValue: start &+ 1), consumed: RingIndex(rawValue: start), unanswered: 0))
  }

  @Test(arguments: startIndices) func responseToUnpushedRequestIsAViolation(start: UInt32) {
    var pair = DiskPair(at: start)
    pair.front.put(Message(0))
    pair.raw[.responseProducer] = start &+ 1
    let complaint = pair.frontEndsComplaint()
    #expect(complaint != nil)
  }

  @Test(arguments: startIndices) func moreResponsesThanRequestsIsAViolation(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<5)
    pair.raw[.responseProducer] = start &+ 5
    let waiting = try pair.front.available()
    #expect(waiting == 5)
    pair.raw[.responseProducer] = start &+ 6
    let complaint = pair.frontEndsComplaint()
    #expect(
      complaint
        == .responseProducerOutOfRange(
          produced: RingIndex(rawValue: start &+ 6), consumed: RingIndex(rawValue: start), unanswered: 5))
  }

  /// A producer behind what is consumed is far outside; the test for it must not depend on how much is unanswered.
  @Test(arguments: startIndices) func responseProducerBackwardsWhileInFlightIsAViolation(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<32)
    try pair.take(8)
    pair.respond(0..<8)
    _ = try pair.front.available()
    while pair.front.next() != nil {}
    for back in 1...8 as ClosedRange<UInt32> {
      pair.raw[.responseProducer] = start &+ 8 &- back
      let complaint = pair.frontEndsComplaint()
      #expect(complaint != nil)
      let response = pair.front.next()
      #expect(response == nil)
    }
  }

  @Test(arguments: startIndices, [1 << 16, 1 << 31, .max - 40] as [UInt32])
  func hugeResponseProducerIsAViolation(start: UInt32, ahead: UInt32) {
    var pair = DiskPair(at: start)
    pair.request(0..<32)
    pair.raw[.responseProducer] = start &+ ahead
    let complaint = pair.frontEndsComplaint()
    #expect(complaint != nil)
  }

  @Test(arguments: startIndices) func responseProducerIsCheckedInTheFinalCheckToo(start: UInt32) {
    var pair = DiskPair(at: start)
    pair.raw[.responseProducer] = start &+ 1
    let sleeping = pair.frontEndsComplaint { ring throws(RingViolation) in _ = try ring.finalCheck() }
    #expect(sleeping != nil)
    let batching = pair.frontEndsComplaint { ring throws(RingViolation) in _ = try ring.wake(after: 4) }
    #expect(batching != nil)
  }

  @Test(arguments: startIndices) func responsesTakenBackBeforeTheyAreTakenAreGone(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<8)
    try pair.take(8)
    pair.respond(0..<8)
    _ = try pair.front.available()
    _ = pair.front.next()
    pair.raw[.responseProducer] = start &+ 1
    let waiting = try pair.front.available()
    #expect(waiting == 0)
    let response = pair.front.next()
    #expect(response == nil)
  }

  @Test(arguments: startIndices) func backEndSurvivesAViolation(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<8)
    try pair.take(2)
    pair.raw[.requestProducer] = start &+ 1000
    let complaint = pair.backEndsComplaint()
    #expect(complaint != nil)
    // What had passed the check is still there, and not one request more.
    var left: [Message<112>] = []
    while let request = pair.back.next() { left.append(request) }
    #expect(left == (2..<8).map { Message($0) })
    pair.respond(0..<8)
    let again = pair.backEndsComplaint()
    #expect(again != nil)
    let dump = pair.back.dump()
    #expect(!dump.isEmpty)
  }

  @Test(arguments: startIndices) func frontEndSurvivesAViolation(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<8)
    try pair.take(8)
    pair.respond(0..<3)
    _ = try pair.front.available()
    pair.raw[.responseProducer] = start &- 1000
    let complaint = pair.frontEndsComplaint()
    #expect(complaint != nil)
    var left: [Message<16>] = []
    while let response = pair.front.next() { left.append(response) }
    #expect(left == (0..<3).map { Message($0) })
    pair.request(8..<11)
    let again = pair.frontEndsComplaint()
    #expect(again != nil)
    let dump = pair.front.dump()
    #expect(!dump.isEmpty)
  }

  @Test(arguments: startIndices) func violationReadsLikeASentence(start: UInt32) {
    var pair = DiskPair(at: start)
    pair.raw[.requestProducer] = start &+ 40
    let complaint = pair.backEndsComplaint()
    #expect(
      complaint?.description
        == "the front end moved its request producer to \(start &+ 40), but requests are consumed up to \(start) and "
        + "32 slots are free")
    pair.raw[.responseProducer] = start &+ 50
    let other = pair.frontEndsComplaint()
    #expect(
      other?.description
        == "the back end moved its response producer to \(start &+ 50), but responses are consumed up to \(start) and "
        + "0 requests are unanswered")
  }

  @Test(arguments: startIndices, [0, 1, 1 << 31, .max] as [UInt32])
  func anyEventIndexOnlyDecidesANotification(start: UInt32, event: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.raw[.requestEvent] = event
    pair.front.put(Message(0))
    let notify = pair.front.pushAndCheckNotify()
    #expect(notify == (event == start &+ 1))
    let waiting = try pair.back.available()
    #expect(waiting == 1)
  }

  @Test(arguments: startIndices) func ownProducerRewrittenByThePeerDoesNotMoveUs(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<2)
    pair.raw[.requestProducer] = start &+ 77
    pair.front.put(Message(2))
    let notify = pair.front.pushAndCheckNotify()
    #expect(!notify)
    #expect(pair.raw[.requestProducer] == start &+ 3)
    let waiting = try pair.back.available()
    #expect(waiting == 3)
  }
}
