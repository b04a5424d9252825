/// What one end of a ring has counted since it was made.
@frozen public struct RingStatistics: Hashable, Sendable {
  /// Pushes after which the other end had to be notified.
  public var notificationsSent: UInt64 = 0
  /// Pushes after which the other end had said that it need not be.
  public var notificationsSuppressed: UInt64 = 0

  @inlinable public init() {}

  public static func += (left: inout RingStatistics, right: RingStatistics) {
    left.notificationsSent &+= right.notificationsSent
    left.notificationsSuppressed &+= right.notificationsSuppressed
  }
}

extension RingStatistics {
  @inlinable mutating func count(notify: Bool) {
    let sent: UInt64 = notify ? 1 : 0
    notificationsSent &+= sent
    notificationsSuppressed &+= 1 &- sent
  }
}

/// A ring's state as one line, from the shared words and one end's own.
struct RingDump {
  let page: RingPage
  let statistics: RingStatistics

  func line(_ end: String, mine: String) -> String {
    let word = { page.load($0) }
    return "\(end) ring of \(page.entryCount): \(mine); shared req_prod \(word(RingLayout.requestProducerOffset))"
      + " req_event \(word(RingLayout.requestEventOffset)) rsp_prod \(word(RingLayout.responseProducerOffset))"
      + " rsp_event \(word(RingLayout.responseEventOffset)); notified \(statistics.notificationsSent),"
      + " suppressed \(statistics.notificationsSuppressed)"
  }
}
