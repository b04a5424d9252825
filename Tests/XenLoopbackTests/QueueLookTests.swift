import Synchronization
import TestSupport
import Testing
import XenPlatform

/// How a queue's thread waits, which looks at memory and has the other end asked for an event only before it sleeps.
struct QueueLookTests {
  private final class CountedQueue: DataQueue {
    let word: CountedWord

    init() throws { word = try CountedWord() }

    var descriptors: [CInt] { [word.descriptor] }
    var hasWork: Bool { word.hasWork }
    func poll(now: Uptime, budget: Int, looks: Bool) -> PollOutcome { word.poll(looks: looks) }
  }

  @Test(.timeLimit(.minutes(80)), arguments: [0, 200_000, 1_000_000_000] as [UInt64])
  func nothingIsMissedBetweenLookingAndSleep(nanoseconds: UInt64) throws {
    let host = ThreadPerQueue(sleep: AdaptiveSleep(maxNanoseconds: nanoseconds, crowdedYield: .max))
    let queue = try CountedQueue()
    let word = queue.word
    try host.start(queue, name: "look") {}
    // How soon it looks, and finds what it was not told of, is the machine's affair.
    let count = word.countUp { nanoseconds < 1_000_000_000 || (word.lookingCount > 0 && word.signalCount < $0) }
    host.stop(queue)
    #expect(word.consumedCount == count && word.signalCount > 0)
    if nanoseconds == 0 {
      #expect(word.lookingCount == 0)
    } else if nanoseconds == 1_000_000_000 {
      #expect(word.lookingCount > 0 && word.signalCount < count)
    }
  }

  private final class BusyQueue: DataQueue, Sendable {
    /// Polls of a thread that looks.
    let lookingCount = Atomic(0)
    /// Its sleeps are short, until it looks.
    private let wakeup: Wakeup

    init() throws {
      wakeup = try Wakeup()
      wakeup.signal()
    }

    var descriptors: [CInt] { [wakeup.descriptor] }
    var hasWork: Bool { true }

    func poll(now: Uptime, budget: Int, looks: Bool) -> PollOutcome {
      if looks { lookingCount.add(1, ordering: .relaxed) }
      return .idle
    }
  }

  @Test(.timeLimit(.minutes(80))) func aQueueThatAlwaysFindsSomethingInMemoryStopsAllTheSame() throws {
    let host = ThreadPerQueue(sleep: AdaptiveSleep(maxNanoseconds: 1_000_000_000, crowdedYield: .max))
    let queue = try BusyQueue()
    try host.start(queue, name: "busy") {}
    while queue.lookingCount.load(ordering: .relaxed) < 1000 { Wakeup.wait(for: -1, timeout: 1) }
    host.stop(queue)
  }
}
