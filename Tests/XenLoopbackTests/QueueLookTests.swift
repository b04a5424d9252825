import Glibc
import Synchronization
import Testing
import XenPlatform

/// How a queue's thread waits, which looks at memory and has the other end asked for an event only before it sleeps.
struct QueueLookTests {
  /// A queue with one word that another thread counts up; it signals only when it has been asked to, as a ring's other end.
  private final class CountedQueue: DataQueue {
    let descriptors: [CInt]
    let wakeup: Wakeup
    let produced = Atomic<Int>(0)
    let consumed = Atomic<Int>(0)
    let isAsked = Atomic(false)
    let signalCount = Atomic<Int>(0)
    /// Polls that did not ask.
    let looking = Atomic<Int>(0)

    init() throws {
      wakeup = try Wakeup()
      descriptors = [wakeup.descriptor]
    }

    var hasWork: Bool { produced.load(ordering: .acquiring) != consumed.load(ordering: .relaxed) }

    func poll(now: Uptime, budget: Int, looks: Bool) -> PollOutcome {
      if looks {
        looking.add(1, ordering: .relaxed)
      } else {
        wakeup.clear()
        isAsked.store(true, ordering: .sequentiallyConsistent)
      }
      guard produced.load(ordering: .sequentiallyConsistent) != consumed.load(ordering: .relaxed) else { return .idle }
      consumed.add(1, ordering: .releasing)
      return .more
    }

    func produce() {
      produced.add(1, ordering: .sequentiallyConsistent)
      guard isAsked.exchange(false, ordering: .sequentiallyConsistent) else { return }
      signalCount.add(1, ordering: .relaxed)
      wakeup.signal()
    }
  }

  /// Each item is put when the one before has been taken: one that nobody was told of, and nobody looks for, would be waited for
  /// in vain.
  @Test(.timeLimit(.minutes(10)), arguments: [0, 200_000, 1_000_000_000] as [UInt64])
  func nothingIsMissedBetweenLookingAndSleep(nanoseconds: UInt64) throws {
    let host = ThreadPerQueue(sleep: AdaptiveSleep(maxNanoseconds: nanoseconds, crowdedYield: .max))
    let queue = try CountedQueue()
    try host.start(queue, name: "look") {}
    var count = 0
    func mayEnd() -> Bool {
      nanoseconds < 1_000_000_000
        || (queue.looking.load(ordering: .relaxed) > 0 && queue.signalCount.load(ordering: .relaxed) < count)
    }
    // How soon it looks, and finds what it was not told of, is the machine's affair.
    while count < 600 || (count < 20_000 && !mayEnd()) {
      queue.produce()
      count += 1
      while queue.consumed.load(ordering: .acquiring) < count { sched_yield() }
      // Now and then long enough for a sleep.
      if count % 8 == 0 { usleep(300) }
    }
    host.stop(queue)
    #expect(queue.consumed.load(ordering: .relaxed) == count)
    let (looking, signals) = (queue.looking.load(ordering: .relaxed), queue.signalCount.load(ordering: .relaxed))
    if nanoseconds == 0 {
      #expect(looking == 0 && signals > 0)
    } else if nanoseconds == 1_000_000_000 {
      #expect(looking > 0 && signals < count)
    }
  }
}
