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
    var sleep = AdaptiveSleep(maxNanoseconds: 100_000_000_000)
    sleep.adapt(to: 0)
    for _ in 0..<100 { sleep.adapt(to: 0) }
    #expect(sleep.nanoseconds == 100_000_000_000)
    let start = Uptime.now.nanoseconds
    // Within the time for which it looks: it does not get as far as the sleep, which would be without end.
    wakeup.signal()
    #expect(sleep.wait(for: &waits, timeout: -1))
    #expect(Uptime.now.nanoseconds - start < 100_000_000_000)
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
    #expect(sleep.nanoseconds == 64_000)
    let start = Uptime.now.nanoseconds
    #expect(!sleep.wait(for: &waits, timeout: 2))
    #expect(Uptime.now.nanoseconds - start >= 2_000_000)
    // It was longer than what is looked for.
    #expect(sleep.nanoseconds == 32_000)
  }

  /// How many sleeps there are from now on until one is put off, all of them short.
  private func sleepsUntilItLooks(_ sleep: inout AdaptiveSleep) throws -> Int {
    let wakeup = try Wakeup()
    wakeup.signal()
    var waits = [pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
    for count in 1...100_000 {
      #expect(sleep.wait(for: &waits, timeout: -1))
      if sleep.looks { return count }
      #expect(sleep.nanoseconds == 0)
    }
    return .max
  }

  @Test func oneLongYieldIsChanceAndTwoAreACrowd() {
    var sleep = AdaptiveSleep(maxNanoseconds: 1_000_000_000)
    for _ in 0..<100 { sleep.adapt(to: 0) }
    // So far apart that a hypervisor may have taken the processor away.
    for _ in 0..<5 {
      var isCrowded = (0..<64).contains { _ in sleep.gaveWay(forNanoseconds: 999_999) }
      if !isCrowded { isCrowded = sleep.gaveWay(forNanoseconds: 1_000_000) }
      #expect(!isCrowded)
      #expect(sleep.looks && sleep.nanoseconds == 1_000_000_000)
    }
    var isCrowded = (0..<63).contains { _ in sleep.gaveWay(forNanoseconds: 999_999) }
    #expect(!isCrowded)
    isCrowded = sleep.gaveWay(forNanoseconds: 1_000_000)
    #expect(isCrowded)
    #expect(!sleep.looks && sleep.nanoseconds == 0)
  }

  @Test func whoeverKeepsGivingAProcessorAwaySleepsAtOnceForLongerEachTime() throws {
    var sleep = AdaptiveSleep(maxNanoseconds: 1_000_000_000)
    // The last eight of each are those of any thread that sleeps at once.
    for count in [64, 256, 1024, 4096, 16_384, 16_384] {
      while !sleep.gaveWay(forNanoseconds: 1_000_000) {}
      #expect(try sleepsUntilItLooks(&sleep) == count + 8)
    }
    // It is forgotten when nobody has wanted the processor for many looks.
    var waits: [pollfd] = []
    for _ in 0..<4096 { #expect(sleep.wait(for: &waits, timeout: -1) { true }) }
    while !sleep.gaveWay(forNanoseconds: 1_000_000) {}
    #expect(try sleepsUntilItLooks(&sleep) == 64 + 8)
  }

  // MARK: Looking in memory

  @Test func aDescriptorIsFoundHoweverMuchThereIsInMemory() throws {
    let wakeup = try Wakeup()
    var waits = [pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
    var sleep = AdaptiveSleep(maxNanoseconds: 1_000_000_000, crowdedYield: .max)
    for _ in 0..<100 { sleep.adapt(to: 0) }
    for _ in 0..<100 {
      #expect(sleep.wait(for: &waits, timeout: -1) { true })
      #expect(waits[0].revents == 0)
    }
    wakeup.signal()
    var count = 0
    while waits[0].revents == 0, count < 100 {
      #expect(sleep.wait(for: &waits, timeout: -1) { true })
      count += 1
    }
    #expect(count <= AdaptiveSleep.waitsPerPoll)
  }

  /// Whoever had the processor meanwhile may have been the other end.
  @Test func memoryIsLookedAtOnceMoreBeforeDescriptorsAre() throws {
    let wakeup = try Wakeup()
    wakeup.signal()
    var waits = [pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
    var sleep = AdaptiveSleep(maxNanoseconds: 1_000_000_000, crowdedYield: .max)
    for _ in 0..<100 { sleep.adapt(to: 0) }
    var lookCount = 0
    let isFound = sleep.wait(for: &waits, timeout: -1) {
      lookCount += 1
      return lookCount == 2
    }
    #expect(isFound && lookCount == 2 && waits[0].revents == 0)
  }

  @Test func whoeverHasAProcessorForItselfLooksLongerBeforeItGivesWay() {
    var sleep = AdaptiveSleep(maxNanoseconds: 1_000_000_000, crowdedYield: .max)
    #expect(sleep.looksPerYield == 1)
    for (yielded, count) in [(999, 16), (1_000, 1), (2_000_000, 1), (0, 16)] as [(UInt64, Int)] {
      let isCrowded = sleep.gaveWay(forNanoseconds: yielded)
      #expect(!isCrowded && sleep.looksPerYield == count)
    }
  }

  @Test func whatIsFoundInMemoryNeedsNoDescriptor() {
    var sleep = AdaptiveSleep(maxNanoseconds: 100_000_000_000, crowdedYield: .max)
    for _ in 0..<100 { sleep.adapt(to: 0) }
    var waits: [pollfd] = []
    var looks = 0
    // It would sleep for ever.
    let isFound = sleep.wait(for: &waits, timeout: -1) {
      looks += 1
      return looks == 100
    }
    #expect(isFound && looks == 100 && sleep.looks)
  }

  @Test func aDescriptorIsFoundWhileMemoryIsLookedAt() throws {
    var sleep = AdaptiveSleep(maxNanoseconds: 100_000_000_000, crowdedYield: .max)
    for _ in 0..<100 { sleep.adapt(to: 0) }
    let wakeup = try Wakeup()
    wakeup.signal()
    var waits = [pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
    var lookCount = 0
    let isFound = sleep.wait(for: &waits, timeout: -1) {
      lookCount += 1
      return false
    }
    #expect(isFound && lookCount > 0 && waits[0].revents != 0 && sleep.looks)
  }

  @Test func whoeverHasLookedInVainAsksForEventsBeforeItSleeps() throws {
    var sleep = AdaptiveSleep(maxNanoseconds: 100_000_000_000, crowdedYield: .max)
    for _ in 0..<3 { sleep.adapt(to: 0) }
    let wakeup = try Wakeup()
    var waits = [pollfd(fd: wakeup.descriptor, events: Int16(POLLIN), revents: 0)]
    // Sixteen microseconds, and not for ever: nobody has asked for an event.
    #expect(sleep.looks && sleep.nanoseconds == 16_000)
    #expect(!sleep.wait(for: &waits, timeout: -1) { false })
    #expect(!sleep.looks && sleep.nanoseconds == 16_000)
    wakeup.signal()
    // It sleeps at once then, and that counts as one wait with the looking.
    // Never called by one that sleeps at once.
    #expect(sleep.wait(for: &waits, timeout: -1) { fatalError("it has looked") })
    #expect(sleep.looks && sleep.nanoseconds == 32_000)
  }

  @Test func workThatComesWhileEventsAreAskedForHasItLookAgain() {
    var sleep = AdaptiveSleep(maxNanoseconds: 1_000_000_000, crowdedYield: .max)
    for _ in 0..<3 { sleep.adapt(to: 0) }
    var waits: [pollfd] = []
    #expect(!sleep.wait(for: &waits, timeout: -1) { false })
    sleep.noteWork()
    #expect(sleep.looks && sleep.nanoseconds == 16_000)
    // The same is said by whoever does not wait.
    #expect(!sleep.wait(for: &waits, timeout: -1) { false })
    // Nor by one that does not wait.
    #expect(!sleep.wait(for: &waits, timeout: 0) { fatalError("it has looked") })
    #expect(sleep.looks && sleep.nanoseconds == 16_000)
    // One that sleeps at once is told nothing by that.
    var other = AdaptiveSleep()
    other.noteWork()
    #expect(!other.looks)
  }
}
