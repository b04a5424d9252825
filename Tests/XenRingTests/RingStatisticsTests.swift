import Testing
import XenPlatform
import XenRing

/// R14: what an end counts, and its one line for a log.
struct RingStatisticsTests {
  /// A ring whose front end has notified once and been spared twice, and whose back end has notified once.
  func busyRing(at start: UInt32) throws -> DiskPair {
    var pair = DiskPair(at: start)
    for number in 0..<3 as Range<UInt32> {
      pair.front.put(Message(number))
      _ = pair.front.pushAndCheckNotify()
    }
    try pair.take(2)
    pair.back.put(Message(0))
    _ = pair.back.pushAndCheckNotify()
    return pair
  }

  @Test(arguments: startIndices) func notificationsAreCountedSentAndSuppressed(start: UInt32) throws {
    let pair = try busyRing(at: start)
    let front = pair.front.statistics
    #expect(front.notificationsSent == 1)
    #expect(front.notificationsSuppressed == 2)
    let back = pair.back.statistics
    #expect(back.notificationsSent == 1)
    #expect(back.notificationsSuppressed == 0)
  }

  @Test func plainPushCountsNoNotification() throws {
    var pair = DiskPair()
    pair.request(0..<2)
    let front = pair.front.statistics
    #expect(front.notificationsSent == 0)
    #expect(front.notificationsSuppressed == 0)
  }

  @Test(arguments: startIndices) func frontEndsDumpIsOneLine(start: UInt32) throws {
    let pair = try busyRing(at: start)
    let dump = pair.front.dump()
    #expect(
      dump
        == "front ring of 32: produced \(start &+ 3) consumed \(start) unanswered 3; shared req_prod \(start &+ 3)"
        + " req_event \(start &+ 1) rsp_prod \(start &+ 1) rsp_event \(start &+ 1); notified 1, suppressed 2")
  }

  @Test(arguments: startIndices) func backEndsDumpIsOneLine(start: UInt32) throws {
    let pair = try busyRing(at: start)
    let dump = pair.back.dump()
    #expect(
      dump
        == "back ring of 32: produced \(start &+ 1) consumed \(start &+ 2) in flight 1; shared req_prod \(start &+ 3)"
        + " req_event \(start &+ 1) rsp_prod \(start &+ 1) rsp_event \(start &+ 1); notified 1, suppressed 0")
  }
}
