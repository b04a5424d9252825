import Glibc
import Synchronization

/// Gives each queue a thread of its own, asleep on the queue's descriptors.
public final class ThreadPerQueue: QueueHost {
  private let threads = Mutex<[ObjectIdentifier: QueueThread]>([:])
  private let budget: Int
  private let sleep: AdaptiveSleep

  /// - Parameters:
  ///   - budget: requests a poll may do before it looks whether it should stop; positive.
  ///   - sleep: how each thread waits for its queue.
  public init(budget: Int = 128, sleep: AdaptiveSleep = AdaptiveSleep()) {
    precondition(budget > 0, "a poll needs a budget")
    self.budget = budget
    self.sleep = sleep
  }

  public func start(
    _ queue: any DataQueue, name: String, whenStopped: @escaping @Sendable () -> Void
  ) throws(ResourceError) {
    let thread = try QueueThread(queue: queue, budget: budget, sleep: sleep, whenStopped: whenStopped)
    thread.handle = try thread.start(name: name)
    let former = threads.withLock { $0.updateValue(thread, forKey: ObjectIdentifier(queue)) }
    precondition(former == nil, "a queue is started once")
  }

  public var now: Uptime { .now }

  public func stop(_ queue: any DataQueue) {
    threads.withLock { $0.removeValue(forKey: ObjectIdentifier(queue)) }?.stopAndJoin()
  }
}

/// One queue's thread. Its creator starts it once and joins it once.
///
/// Sendable: `handle` is its creator's alone; `waits` and `sleep` are the thread's own.
private final class QueueThread: ThreadWork, @unchecked Sendable {
  private let queue: any DataQueue
  private let budget: Int
  private var sleep: AdaptiveSleep
  private let whenStopped: @Sendable () -> Void
  private let stop: Wakeup
  /// The same for a queue that has more to do: its thread makes no system call then.
  private let isStopping = Atomic(false)
  private let descriptors: [CInt]
  /// The one to stop, then the queue's.
  private var waits: [pollfd]
  var handle = pthread_t()

  init(
    queue: any DataQueue, budget: Int, sleep: AdaptiveSleep, whenStopped: @escaping @Sendable () -> Void
  ) throws(ResourceError) {
    self.sleep = sleep
    stop = try Wakeup()
    self.queue = queue
    self.budget = budget
    self.whenStopped = whenStopped
    descriptors = queue.descriptors
    waits = ([stop.descriptor] + descriptors).map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
  }

  func stopAndJoin() {
    isStopping.store(true, ordering: .relaxed)
    stop.signal()
    _ = pthread_join(handle, nil)
  }

  func run() {
    let goesByTicks = queue.goesByTicks
    while true {
      let timeout: CInt
      let now = goesByTicks ? Uptime.lastTick : .now
      let looks = sleep.looks
      switch queue.poll(now: now, budget: budget, looks: looks) {
      case .idle: timeout = -1
      // From when the poll began, or the tick before: the clock is a system call on many a Xen, and late by a poll is no later
      // than a poll.
      case .idleUntil(let instant): timeout = instant.milliseconds(from: now)
      case .more:
        if isStopping.load(ordering: .relaxed) { return }
        sleep.noteWork()
        continue
      case .stopped:
        whenStopped()
        return
      }
      for index in descriptors.indices {
        // poll(2) passes over a negative one.
        waits[index + 1].fd = queue.waits(for: descriptors[index]) ? descriptors[index] : -1
      }
      let isFound = sleep.wait(for: &waits, timeout: timeout) { queue.hasWork }
      if isFound, waits[0].revents != 0 { return }
    }
  }
}

extension Uptime {
  /// The machine's monotonic clock.
  public static var now: Uptime { Uptime(clock: CLOCK_MONOTONIC) }

  /// The same clock as it stood at the kernel's last tick, 1 to 10 milliseconds ago at most; never a system call.
  public static var lastTick: Uptime { Uptime(clock: CLOCK_MONOTONIC_COARSE) }

  private init(clock: clockid_t) {
    var time = timespec()
    unsafe clock_gettime(clock, &time)
    self.init(nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
  }

  /// For a system call's timeout: rounded up, at most a minute, zero when the instant has passed.
  public var millisecondsFromNow: CInt { milliseconds(from: .now) }

  func milliseconds(from now: Uptime) -> CInt {
    guard now < self else { return 0 }
    return CInt(min((nanoseconds - now.nanoseconds) / 1_000_000 + 1, 60_000))
  }
}
