import Glibc
import TestSupport
import XenPlatform

/// Polls queues as threads would, when one of their descriptors is readable or an instant has come that they gave, by a clock
/// and in steps of the test's; and counts how often that was.
final class AwakeHost: QueueHost, @unchecked Sendable {  // everything happens on the test's thread
  private struct Entry {
    let queue: any DataQueue
    let whenStopped: @Sendable () -> Void
    var wakesAt: Uptime? = Uptime(nanoseconds: 0)
    var isStopped = false
    var pollCount = 0
  }

  private var entries: [Entry] = []
  private let budget: Int
  private(set) var now = Uptime(nanoseconds: 0)

  init(budget: Int = 64) { self.budget = budget }

  func start(_ queue: any DataQueue, name: String, whenStopped: @escaping @Sendable () -> Void) {
    entries.append(Entry(queue: queue, whenStopped: whenStopped))
  }

  func stop(_ queue: any DataQueue) { entries.removeAll { $0.queue === queue } }

  /// How often the queue that was started as this one has been polled.
  func pollCount(_ number: Int) -> Int { entries[number].pollCount }

  func step(nanoseconds: UInt64) {
    now = Uptime(nanoseconds: now.nanoseconds + nanoseconds)
    for index in entries.indices where !entries[index].isStopped {
      let queue = entries[index].queue
      let isDue = entries[index].wakesAt.map { $0 <= now } ?? false
      guard isDue || queue.descriptors.contains(where: { queue.waits(for: $0) && isReadable($0, within: 0) }) else {
        continue
      }
      entries[index].pollCount += 1
      switch queue.poll(now: now, budget: budget) {
      case .idle: entries[index].wakesAt = nil
      case .idleUntil(let instant): entries[index].wakesAt = instant
      case .more: entries[index].wakesAt = now
      case .stopped:
        entries[index].isStopped = true
        entries[index].whenStopped()
      }
    }
  }
}
