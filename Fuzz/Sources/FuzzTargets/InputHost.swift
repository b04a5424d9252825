import XenPlatform

/// Lets the input say which queue is polled next, if that has reason to be, and when.
final class InputHost: QueueHost, @unchecked Sendable {  // one thread does everything
  private struct Entry {
    let queue: any DataQueue
    let sleeper: Sleeper
  }

  private var entries: [Entry] = []
  private(set) var now = Uptime(nanoseconds: 0)

  func start(_ queue: any DataQueue, name: String, whenStopped: @escaping @Sendable () -> Void) {
    let sleeper = Sleeper {
      queue.descriptors.filter(queue.waits)
    } poll: { now, budget in
      let outcome = queue.poll(now: now, budget: budget)
      if outcome == .stopped { whenStopped() }
      return outcome
    }
    entries.append(Entry(queue: queue, sleeper: sleeper))
  }

  func stop(_ queue: any DataQueue) { entries.removeAll { $0.queue === queue } }

  func pass(milliseconds: UInt64) { now = Uptime(nanoseconds: now.nanoseconds + milliseconds * 1_000_000) }

  /// - Parameter instant: not before now.
  func pass(to instant: Uptime) { now = max(now, instant) }

  /// One turn of one queue, if there is any and it has reason to have one.
  func poll(_ number: Int, budget: Int) {
    guard !entries.isEmpty else { return }
    entries[number % entries.count].sleeper.turn(at: now, budget: budget)
  }

  /// One turn of each that has reason to have one.
  ///
  /// - Returns: whether any had.
  @discardableResult
  func pollAll() -> Bool {
    var hasTurned = false
    for entry in entries where entry.sleeper.turn(at: now) { hasTurned = true }
    return hasTurned
  }

  /// When the first of them wakes by itself.
  var wakesAt: Uptime? { entries.compactMap(\.sleeper.wakesAt).min() }
}
