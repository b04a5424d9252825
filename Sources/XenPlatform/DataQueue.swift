/// Nanoseconds on a clock that never goes back: the machine's, or a simulation's.
public struct Uptime: BitwiseCopyable, Hashable, Comparable, Sendable {
  public let nanoseconds: UInt64

  public init(nanoseconds: UInt64) { self.nanoseconds = nanoseconds }

  public static func < (left: Uptime, right: Uptime) -> Bool { left.nanoseconds < right.nanoseconds }
}

/// What a queue wants after a poll.
public enum PollOutcome: Hashable, Sendable {
  /// Nothing to do before the next event.
  case idle
  /// Nothing to do before the next event or this instant, whichever comes first.
  case idleUntil(Uptime)
  /// The budget is used up and work is left: poll again.
  case more
  /// The other end broke the protocol: never poll again; the queue says why to its device.
  case stopped
}

/// The data plane of one queue: it is polled by one thread at a time, and never blocks.
public protocol DataQueue: AnyObject, Sendable {
  /// Readable when a poll has something to do; they do not change while the queue is polled.
  var descriptors: [CInt] { get }

  /// Whether a poll would have something to do if this one of the descriptors were readable. Asked after each poll, so that
  /// a queue which can take nothing from it now is not woken for it.
  func waits(for descriptor: CInt) -> Bool

  /// Whether a poll is told the time of the machine's last tick, some milliseconds ago, which is no system call on any Xen.
  var goesByTicks: Bool { get }

  /// Does at most `budget` requests' work.
  ///
  /// - Parameter looks: whether whoever polls goes on looking at ``hasWork`` when there is nothing to do. Then the other end is
  ///   not asked for an event, which it would send for nothing; so before a sleep there is a poll without this.
  func poll(now: Uptime, budget: Int, looks: Bool) -> PollOutcome

  /// Whether a poll would find something to do in the memory that the other end writes, where none of the descriptors tells of
  /// it: a look, which asks nobody for anything and is no system call.
  var hasWork: Bool { get }
}

extension DataQueue {
  public func poll(now: Uptime, budget: Int) -> PollOutcome { poll(now: now, budget: budget, looks: false) }
  public var hasWork: Bool { false }
  public func waits(for descriptor: CInt) -> Bool { true }
  public var goesByTicks: Bool { false }
}

/// Who polls queues: threads, or a simulation's scheduler.
public protocol QueueHost: AnyObject, Sendable {
  /// Polls `queue` from now on whenever it has something to do.
  ///
  /// - Parameter whenStopped: called once if a poll gives ``PollOutcome/stopped``, from whichever thread polled.
  /// - Throws: when there is nothing left to poll it with; it is not started then.
  func start(
    _ queue: any DataQueue, name: String, whenStopped: @escaping @Sendable () -> Void
  ) throws(ResourceError)

  /// The clock by which queues are polled: the machine's, or a simulation's.
  var now: Uptime { get }

  /// Returns when `queue` is polled no more and never will be. Harmless for a queue that was not started.
  func stop(_ queue: any DataQueue)
}
