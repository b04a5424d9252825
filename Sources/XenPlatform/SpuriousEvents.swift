/// How long a channel stays masked after events in a row that asked for nothing: not at all after the first few, which every
/// honest end sends now and then, and then twice as long each time.
package struct SpuriousEvents: Sendable {
  private var count: UInt32 = 0
  /// In nanoseconds; zero when nothing is held back.
  private var end: UInt64 = 0

  package init() {}

  static let allowedCount: UInt32 = 16
  /// In nanoseconds.
  static let firstHold: UInt64 = 100_000
  static let longestHold: UInt64 = 100_000_000

  /// An event that was taken has asked for nothing, or the time is up that this gave before.
  ///
  /// - Returns: until when the channel stays masked; nil when it does not.
  package mutating func hold(_ now: Uptime) -> Uptime? {
    if end > 0 {
      if now.nanoseconds < end { return Uptime(nanoseconds: end) }
      end = 0
      return nil
    }
    guard count >= Self.allowedCount else {
      count += 1
      return nil
    }
    // Ten doublings lead from the first to the longest.
    let doublings = min(count - Self.allowedCount, 10)
    count = min(count + 1, Self.allowedCount + 10)
    end = now.nanoseconds &+ min(Self.firstHold << UInt64(doublings), Self.longestHold)
    return Uptime(nanoseconds: end)
  }
}
