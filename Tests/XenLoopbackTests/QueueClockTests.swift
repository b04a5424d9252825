import Synchronization
import Testing
import XenPlatform

/// By which clock a queue's thread polls it.
struct QueueClockTests {
  /// Wants to be polled again after twenty milliseconds, and ends then.
  private final class Watcher: DataQueue {
    struct Poll {
      let told: Uptime
      let lastTick: Uptime
      let real: Uptime
    }

    let descriptors: [CInt] = []
    let goesByTicks: Bool
    let polls = Mutex<[Poll]>([])

    init(goesByTicks: Bool) { self.goesByTicks = goesByTicks }

    func poll(now: Uptime, budget: Int, looks: Bool) -> PollOutcome {
      let isFirst = polls.withLock { polls in
        polls.append(Poll(told: now, lastTick: .lastTick, real: .now))
        return polls.count == 1
      }
      return isFirst ? .idleUntil(Uptime(nanoseconds: now.nanoseconds + 20_000_000)) : .stopped
    }
  }

  @Test(arguments: [true, false]) func aQueueIsToldTheTimeAndPolledAgainWhenItAsksFor(goesByTicks: Bool) async throws {
    let host = ThreadPerQueue()
    let watcher = Watcher(goesByTicks: goesByTicks)
    let before = goesByTicks ? Uptime.lastTick : .now
    await withCheckedContinuation { continuation in
      do throws(ResourceError) {
        try host.start(watcher, name: "clock") { continuation.resume() }
      } catch {
        Issue.record("\(error)")
        continuation.resume()
      }
    }
    host.stop(watcher)
    let polls = watcher.polls.withLock { $0 }
    try #require(polls.count == 2)
    // By the exact clock it would lie behind the last tick, but for one that comes just then.
    for poll in polls { #expect(poll.told <= (goesByTicks ? poll.lastTick : poll.real)) }
    #expect(polls[0].told >= before)
    #expect(polls[1].real.nanoseconds >= polls[0].told.nanoseconds + 20_000_000)
    // A machine that is not let run may be late with its ticks.
    if goesByTicks {
      #expect(polls[1].told >= polls[0].lastTick)
    } else {
      #expect(polls[1].told.nanoseconds >= polls[0].told.nanoseconds + 20_000_000)
    }
  }
}
