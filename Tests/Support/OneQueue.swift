import Synchronization
import XenPlatform

/// Lets a test poll one queue by itself, at instants of its own.
public final class OneQueue: QueueHost {
  private let state = Mutex((queue: (any DataQueue)?.none, now: Uptime(nanoseconds: 0)))

  private let nameEnd: String

  /// - Parameter nameEnd: how the queue's name ends; others are never polled.
  public init(_ nameEnd: String = "") { self.nameEnd = nameEnd }

  public func start(_ queue: any DataQueue, name: String, whenStopped: @escaping @Sendable () -> Void) {
    if name.hasSuffix(nameEnd) { state.withLock { $0.queue = queue } }
  }

  public func stop(_ queue: any DataQueue) { state.withLock { $0.queue = nil } }

  public var now: Uptime {
    get { state.withLock(\.now) }
    set { state.withLock { $0.now = newValue } }
  }

  /// Whether there is a queue, and it wants no more than the time of the last tick.
  public var goesByTicks: Bool { state.withLock { $0.queue?.goesByTicks ?? false } }

  /// Whether there is a queue, and its rings hold something to do.
  public var hasWork: Bool { state.withLock { $0.queue?.hasWork ?? false } }

  /// - Returns: `.stopped` when there is no queue.
  @discardableResult public func poll(at instant: Uptime, budget: Int = 64, looks: Bool = false) -> PollOutcome {
    now = instant
    return state.withLock(\.queue)?.poll(now: instant, budget: budget, looks: looks) ?? .stopped
  }
}
