import Foundation
import Synchronization
import Testing
import XenPlatform

/// What a thread does that looks before it sleeps, where others want its processor.
@Suite struct CrowdedSleepTests {
  private final class Crowd: Sendable {
    let isOver = Atomic<Bool>(false)
    let nanoseconds = Atomic<UInt64>(.max)
    let ended: Wakeup

    init() throws(ResourceError) { ended = try Wakeup() }
  }

  @Test func aThreadWhoseProcessorOthersKeepLooksNoMore() throws {
    let wakeup = try Wakeup()
    let crowd = try Crowd()
    // On each processor there is one at least that gives nothing away.
    for _ in 0..<2 * ProcessInfo.processInfo.activeProcessorCount {
      Thread.detachNewThread { while !crowd.isOver.load(ordering: .relaxed) {} }
    }
    Thread.detachNewThread {
      var waits = [pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
      var sleep = AdaptiveSleep(maxNanoseconds: 1_000_000_000)
      // The machine may leave it a processor for a while.
      for _ in 0..<60 {
        for _ in 0..<100 { sleep.adapt(to: 0) }
        // It would look for a second, and for half of one the next time.
        _ = sleep.wait(for: &waits, timeout: 1)
        if sleep.nanoseconds == 0 { break }
      }
      crowd.nanoseconds.store(sleep.nanoseconds, ordering: .releasing)
      crowd.ended.signal()
    }
    var waits = [pollfd(fd: crowd.ended.descriptor, events: Int16(POLLIN), revents: 0)]
    let hasEnded = Wakeup.wait(for: &waits, timeout: 300_000)
    crowd.isOver.store(true, ordering: .relaxed)
    #expect(hasEnded)
    #expect(crowd.nanoseconds.load(ordering: .acquiring) == 0)
  }
}
