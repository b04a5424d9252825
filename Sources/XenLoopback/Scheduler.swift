import Synchronization
import XenPlatform

/// Runs a simulation on the caller's thread: it polls queues and whatever else it is given, one turn at a time, in an
/// order that its seed decides, by a clock that moves only when nothing has anything to do.
///
/// The same seed over the same program gives the same run. Hand it to a bus as its queues' host.
public final class Scheduler: QueueHost, @unchecked Sendable {  // everything happens on the thread that calls `run`
  private struct Task {
    let identity: ObjectIdentifier
    let name: String
    let process: LoopbackProcess?
    let poll: (Uptime, Int) -> PollOutcome
    let whenStopped: @Sendable () -> Void
    var wakesAt: Uptime?
    var isStopped = false

    var isKilled: Bool { process?.isKilled == true }
  }

  private var tasks: [Task] = []
  private var random: SplitMix64
  private let budget: Int
  /// By which it is decided whether a queue's turn is one of a thread that looks; nil when none is.
  private var looking: SplitMix64?
  /// The simulation's time.
  public private(set) var now = Uptime(nanoseconds: 0)
  /// What the schedule was made from.
  public let seed: UInt64

  /// - Parameters:
  ///   - budget: requests one turn of a queue may do; small ones mix the order more.
  ///   - looks: whether queues have turns, between others, that ask for no events, as from a thread that goes on looking.
  public init(seed: UInt64, budget: Int = 4, looks: Bool = false) {
    precondition(budget > 0, "a turn needs a budget")
    self.seed = seed
    self.budget = budget
    random = SplitMix64(state: seed)
    // Not by the other one: the order stays what it was without this.
    looking = looks ? SplitMix64(state: ~seed) : nil
  }

  /// Gives turns to `poll`, which belongs to `owner`, until ``remove(_:)``.
  ///
  /// - Parameter domain: the process that does it; when that is killed, there are no more turns.
  public func add(
    _ owner: AnyObject, of domain: LoopbackDomain? = nil, name: String,
    poll: @escaping (_ now: Uptime) -> PollOutcome
  ) {
    tasks.append(
      Task(
        identity: ObjectIdentifier(owner), name: name, process: domain?.process, poll: { now, _ in poll(now) },
        whenStopped: {}))
  }

  /// Has the events come that the loopback's faults hold back, and the spurious ones, at a turn of each round.
  public func add(_ loopback: Loopback) {
    add(loopback, name: "held events") { _ in
      loopback.deliverHeldEvents()
      // Nobody is busy while events are on their way: time passes.
      return .idle
    }
  }

  public func remove(_ owner: AnyObject) { tasks.removeAll { $0.identity == ObjectIdentifier(owner) } }

  /// The end of the simulation: lets go of everything that was given turns. A bus whose queues' host this is would otherwise
  /// keep it for ever, and all that it has open.
  public func removeAll() {
    // What they hold ends when they are no longer looked at: an end may call ``remove(_:)``.
    let all = tasks
    tasks = []
    withExtendedLifetime(all) {}
  }

  public func start(_ queue: any DataQueue, name: String, whenStopped: @escaping @Sendable () -> Void) {
    start(queue, of: nil, name: name, whenStopped: whenStopped)
  }

  fileprivate func start(
    _ queue: any DataQueue, of process: LoopbackProcess?, name: String, whenStopped: @escaping @Sendable () -> Void
  ) {
    tasks.append(
      Task(
        identity: ObjectIdentifier(queue), name: name, process: process,
        poll: { [unowned self] in queue.poll(now: $0, budget: $1, looks: nextLooks()) }, whenStopped: whenStopped))
  }

  private func nextLooks() -> Bool {
    guard var random = looking else { return false }
    defer { looking = random }
    return Bool.random(using: &random)
  }

  public func stop(_ queue: any DataQueue) { remove(queue) }

  /// The host of the queues of one process: when that is killed, they get no more turns.
  public func host(of domain: LoopbackDomain) -> any QueueHost {
    ProcessQueueHost(scheduler: self, process: domain.process)
  }

  /// Gives turns until `condition` holds.
  ///
  /// - Parameter turns: how many rounds over all tasks to give at most.
  /// - Returns: whether the condition came to hold.
  public func run(turns: Int = 10_000, until condition: () throws -> Bool) rethrows -> Bool {
    for _ in 0..<turns {
      if try condition() { return true }
      round()
    }
    return try condition()
  }

  /// One turn for each task, in an order of the seed's choosing; when none had work, the clock moves to the next instant
  /// that one of them waits for, or by a millisecond.
  public func round() {
    // What the killed ones held ends when the tasks are no longer looked at: an end may call ``remove(_:)``.
    let killed = tasks.filter(\.isKilled)
    if !killed.isEmpty { tasks = tasks.filter { !$0.isKilled } }
    defer { withExtendedLifetime(killed) {} }
    var busy = false
    for identity in tasks.map(\.identity).shuffled(using: &random) {
      // A task may have been removed, or others added, by the one before it.
      guard let index = tasks.firstIndex(where: { $0.identity == identity }), !tasks[index].isStopped,
        !tasks[index].isKilled
      else { continue }
      let outcome = tasks[index].poll(now, budget)
      guard let index = tasks.firstIndex(where: { $0.identity == identity }) else { continue }
      tasks[index].wakesAt = nil
      switch outcome {
      case .idle: break
      case .idleUntil(let instant): tasks[index].wakesAt = instant
      case .more: busy = true
      case .stopped:
        tasks[index].isStopped = true
        tasks[index].whenStopped()
      }
    }
    if !busy {
      let next = Uptime(nanoseconds: now.nanoseconds + 1_000_000)
      now = max(now, min(next, tasks.compactMap(\.wakesAt).min() ?? next))
    }
  }
}

private final class ProcessQueueHost: QueueHost {
  private let scheduler: Scheduler
  private let process: LoopbackProcess

  init(scheduler: Scheduler, process: LoopbackProcess) {
    self.scheduler = scheduler
    self.process = process
  }

  func start(_ queue: any DataQueue, name: String, whenStopped: @escaping @Sendable () -> Void) {
    scheduler.start(queue, of: process, name: name, whenStopped: whenStopped)
  }

  var now: Uptime { scheduler.now }

  func stop(_ queue: any DataQueue) { scheduler.stop(queue) }
}
