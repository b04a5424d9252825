import Glibc
import Synchronization
import XenPlatform

/// One word that another thread counts up, and whoever polls it takes one by one. As a ring's other end, who counts it up signals only
/// when it has been asked to.
public final class CountedWord: Sendable {
  private let wakeup: Wakeup
  private let produced = Atomic(0)
  private let consumed = Atomic(0)
  private let isAsked = Atomic(false)
  private let signals = Atomic(0)
  private let looks = Atomic(0)

  public init() throws(ResourceError) { wakeup = try Wakeup() }

  public var descriptor: CInt { wakeup.descriptor }
  public var consumedCount: Int { consumed.load(ordering: .acquiring) }
  public var signalCount: Int { signals.load(ordering: .relaxed) }
  /// Polls that did not ask.
  public var lookingCount: Int { looks.load(ordering: .relaxed) }
  public var hasWork: Bool { produced.load(ordering: .acquiring) != consumed.load(ordering: .relaxed) }

  public func poll(looks: Bool) -> PollOutcome {
    if looks {
      self.looks.add(1, ordering: .relaxed)
    } else {
      wakeup.clear()
      isAsked.store(true, ordering: .sequentiallyConsistent)
    }
    guard produced.load(ordering: .sequentiallyConsistent) != consumed.load(ordering: .relaxed) else { return .idle }
    consumed.add(1, ordering: .releasing)
    return .more
  }

  /// Counts it up each time that the one before has been taken: one that nobody was told of, and nobody looks for, would be waited
  /// for in vain.
  ///
  /// - Parameter mayEnd: whether as many as there were are enough; 600 at least, and 20,000 at most.
  /// - Returns: how many there were.
  public func countUp(until mayEnd: (_ count: Int) -> Bool) -> Int {
    var count = 0
    while count < 600 || (count < 20_000 && !mayEnd(count)) {
      produced.add(1, ordering: .sequentiallyConsistent)
      if isAsked.exchange(false, ordering: .sequentiallyConsistent) {
        signals.add(1, ordering: .relaxed)
        wakeup.signal()
      }
      count += 1
      while consumedCount < count { sched_yield() }
      // Now and then long enough for a sleep.
      if count % 8 == 0 { usleep(300) }
    }
    return count
  }
}
