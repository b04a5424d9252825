import Glibc
import Testing
import XenPlatform

@Suite struct AdaptiveSleepTests {
  @Test func shortSleepsAreLookedThroughAndLongOnesEndThat() {
    var sleep = AdaptiveSleep(maxNanoseconds: 50_000)
    #expect(sleep.nanoseconds == 0)
    for _ in 0..<10 { sleep.adapt(to: 20_000) }
    #expect(sleep.nanoseconds == 50_000)
    sleep.adapt(to: 50_001)
    #expect(sleep.nanoseconds == 25_000)
    for _ in 0..<10 { sleep.adapt(to: 1_000_000) }
    #expect(sleep.nanoseconds == 0)
  }

  @Test func oneThatMayNotLookSleepsAtOnce() throws {
    var sleep = AdaptiveSleep(maxNanoseconds: 0)
    let wakeup = try Wakeup()
    var waits = [pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
    for _ in 0..<10 { #expect(!sleep.wait(for: &waits, timeout: 1)) }
    #expect(sleep.nanoseconds == 0)
    wakeup.signal()
    #expect(sleep.wait(for: &waits, timeout: -1))
    #expect(waits[0].revents != 0)
  }

  @Test func whatBecomesReadableIsFoundWhileLookingAsInSleep() throws {
    let wakeup = try Wakeup()
    var waits = [pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
    var sleep = AdaptiveSleep(maxNanoseconds: 1_000_000_000)
    sleep.adapt(to: 0)
    for _ in 0..<100 { sleep.adapt(to: 0) }
    #expect(sleep.nanoseconds == 1_000_000_000)
    let start = Uptime.now.nanoseconds
    // Within the second for which it looks: it does not get as far as the sleep, which would be without end.
    wakeup.signal()
    #expect(sleep.wait(for: &waits, timeout: -1))
    #expect(Uptime.now.nanoseconds - start < 1_000_000_000)
    wakeup.clear()
    #expect(!sleep.wait(for: &waits, timeout: 0))
  }

  @Test func aThreadThatSleepsAtOnceMeasuresOneSleepOfEight() throws {
    let wakeup = try Wakeup()
    wakeup.signal()
    var waits = [pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
    var sleep = AdaptiveSleep(maxNanoseconds: 1_000_000_000)
    for _ in 0..<7 {
      #expect(sleep.wait(for: &waits, timeout: -1))
      #expect(sleep.nanoseconds == 0)
    }
    // It was short: the next one is put off.
    #expect(sleep.wait(for: &waits, timeout: -1))
    #expect(sleep.nanoseconds > 0)
  }

  @Test func aTimeoutEndsTheSleepAfterTheLooking() throws {
    let wakeup = try Wakeup()
    var waits = [pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
    var sleep = AdaptiveSleep(maxNanoseconds: 100_000)
    for _ in 0..<5 { sleep.adapt(to: 0) }
    let start = Uptime.now.nanoseconds
    #expect(!sleep.wait(for: &waits, timeout: 2))
    #expect(Uptime.now.nanoseconds - start >= 2_000_000)
    // It was longer than what is looked for.
    #expect(sleep.nanoseconds < 100_000)
  }

  @Test func whoeverHasGivenAProcessorAwaySleepsAtOnceForALongWhile() throws {
    let wakeup = try Wakeup()
    wakeup.signal()
    var waits = [pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
    var sleep = AdaptiveSleep(maxNanoseconds: 1_000_000_000)
    for _ in 0..<100 { sleep.adapt(to: 0) }
    var isCrowded = sleep.gaveWay(forNanoseconds: 999_999)
    #expect(!isCrowded)
    #expect(sleep.nanoseconds == 1_000_000_000)
    isCrowded = sleep.gaveWay(forNanoseconds: 1_000_000)
    #expect(isCrowded)
    // All of them are short, and yet not one is looked for.
    for _ in 0..<10_000 {
      #expect(sleep.wait(for: &waits, timeout: -1))
      #expect(sleep.nanoseconds == 0)
    }
    // But not for ever.
    for _ in 0..<10_000 { _ = sleep.wait(for: &waits, timeout: -1) }
    #expect(sleep.nanoseconds > 0)
  }
}
