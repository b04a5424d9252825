import XenPlatform

/// Lets the input say which queue is polled next, and when.
final class InputHost: QueueHost, @unchecked Sendable {  // one thread does everything
  private struct Entry {
    let queue: any DataQueue
    let whenStopped: @Sendable () -> Void
  }

  private var entries: [Entry] = []
  private(set) var now = Uptime(nanoseconds: 0)

  func start(_ queue: any DataQueue, name: String, whenStopped: @escaping @Sendable () -> Void) {
    entries.append(Entry(queue: queue, whenStopped: whenStopped))
  }

  func stop(_ queue: any DataQueue) { entries.removeAll { $0.queue === queue } }

  func pass(milliseconds: UInt64) { now = Uptime(nanoseconds: now.nanoseconds + milliseconds * 1_000_000) }

  /// One turn of one queue, if there is any.
  func poll(_ number: Int, budget: Int) {
    guard !entries.isEmpty else { return }
    let entry = entries[number % entries.count]
    guard entry.queue.poll(now: now, budget: budget) == .stopped else { return }
    stop(entry.queue)
    entry.whenStopped()
  }

  /// One turn of each.
  func pollAll() {
    for entry in entries where entry.queue.poll(now: now, budget: 64) == .stopped {
      stop(entry.queue)
      entry.whenStopped()
    }
    pass(milliseconds: 1)
  }
}
