import NetIf
import Testing

@testable import NetFront

/// What has arrived at a card and waits.
struct NetFrontInboxTests {
  private func batch(_ count: Int, byteCount: Int) -> NetFrameBatch {
    var batch = NetFrameBatch()
    let frame = [UInt8](repeating: 1, count: byteCount)
    for _ in 0..<count { batch.append(frame.span) }
    return batch
  }

  /// Also of the first batch, which finds nothing before it: a poll of many queues brings more than may wait.
  @Test(arguments: [(1100, 64, 1024), (1024, 64, 1024), (500, 10_000, 419)])
  func noMoreWaitsThanMay(count: Int, byteCount: Int, kept: Int) async throws {
    let inbox = NetFrontInbox()
    var batch = batch(count, byteCount: byteCount)
    inbox.deliver(&batch)
    #expect(batch.isEmpty && inbox.lostCount == UInt64(count - kept))
    let received = try #require(await inbox.receive())
    #expect(received.count == kept)
  }
}
