import CSharedMemory
import Glibc

/// How a thread waits for its descriptors: where it has lately been woken soon after it fell asleep, it looks for that long
/// before it sleeps.
///
/// A processor that has gone to rest takes tens of microseconds to wake, most of all in a virtual machine, and the other end of
/// a ring is often as quick. The time spent in looking is bounded by ``maxNanoseconds`` a sleep; it doubles with each sleep that was
/// shorter than that, and halves down to nothing with each that was longer, so that an idle thread sleeps at once, and then measures one
/// sleep of eight. Between two looks others may have the processor; where they have kept it for a millisecond twice in a row, the thread
/// sleeps at once for 64 sleeps, and for four times as many each time that this happens again, up to some ten thousand: on a machine whose
/// processors are all wanted, whoever gives way waits for a whole time slice, and whoever sleeps is let in as soon as it wakes.
public struct AdaptiveSleep: Sendable {
  /// How long to look at most before a sleep; zero never to.
  public let maxNanoseconds: UInt64
  /// How long the next sleep is put off.
  package private(set) var nanoseconds: UInt64 = 0
  /// Whether the next wait looks before it sleeps.
  public private(set) var looks = false
  /// When the look began that has found nothing, until the sleep behind it; else zero.
  private var lookedSince: UInt64 = 0
  private static let shortest: UInt64 = 4_000
  /// Sleeps since one was measured, by a thread that sleeps at once.
  private var unmeasuredCount = 0
  /// The clock is a system call on many a Xen, and what a thread waits for changes rarely.
  private static let sleepsPerMeasurement = 8

  /// How often memory is looked at before others may have the processor: for some hundred nanoseconds where nobody else wanted it the
  /// last time, since to give way in vain takes longer than that; else once, since the other end may be the one that wants it.
  private static let mostLooksPerYield = 16
  private static let fewestLooksPerYield = 1
  package private(set) var looksPerYield = fewestLooksPerYield
  /// A yield that takes as long, in nanoseconds, has let somebody else in.
  private static let sharingYield: UInt64 = 1_000
  /// After how many waits in a row that found something in memory at once the descriptors are looked at, too: so what comes by a
  /// descriptor is found however much there is to do in memory.
  package static let waitsPerPoll = 8
  private var unpolledWaits = 0
  /// A yield that takes as long is one to others who want the processor.
  private let crowdedYield: UInt64
  /// For how many sleeps a thread does not look whose processor others keep, at first, and when that goes on.
  private static let fewestSleepsWhenCrowded = 64
  private static let mostSleepsWhenCrowded = 16_384
  private var sleepsWhenCrowded = fewestSleepsWhenCrowded
  /// One long yield is chance, as where a hypervisor has taken a processor away: two that so many others at most lie between are not.
  private static let yieldsToForget = 64
  private var yieldsSinceLong = yieldsToForget
  /// Looks since, as long as it is not forgotten.
  private var undisturbedCount = 0
  private static let looksToForget = 4096

  /// What Linux's KVM looks for before it lets a processor rest: a solid-state disk has answered by then.
  public static let defaultMaxNanoseconds: UInt64 = 200_000

  public init(maxNanoseconds: UInt64 = defaultMaxNanoseconds) {
    self.init(maxNanoseconds: maxNanoseconds, crowdedYield: 1_000_000)
  }

  /// - Parameter crowdedYield: in nanoseconds; `.max` for a test, which others may keep from its processor at any time.
  package init(maxNanoseconds: UInt64, crowdedYield: UInt64) {
    (self.maxNanoseconds, self.crowdedYield) = (maxNanoseconds, crowdedYield)
  }

  /// Waits until one of `descriptors` is readable or `timeout` milliseconds have passed (-1: for ever); says whether one is.
  public mutating func wait(for descriptors: inout [pollfd], timeout: CInt) -> Bool {
    if looks, timeout != 0, look(for: &descriptors, hasWork: { false }) { return true }
    return sleep(for: &descriptors, timeout: timeout)
  }

  /// The same for whoever can look in memory, too, and asks for events only before it sleeps. Where ``looks`` holds, this returns as soon
  /// as there is something, or false: then that does not hold any more, and whoever waits asks for events, looks once more, and
  /// calls this again to sleep.
  public mutating func wait(
    for descriptors: inout [pollfd], timeout: CInt, hasWork: () -> Bool
  ) -> Bool {
    looks && timeout != 0
      ? look(for: &descriptors, hasWork: hasWork) : sleep(for: &descriptors, timeout: timeout)
  }

  /// There was something to do after all when events were asked for, so that nobody slept.
  public mutating func noteWork() { if lookedSince != 0 { (lookedSince, looks) = (0, nanoseconds > 0) } }

  /// - Returns: whether there is something, before it is time to sleep.
  private mutating func look(for descriptors: inout [pollfd], hasWork: () -> Bool) -> Bool {
    noteLook()
    unpolledWaits += 1
    if unpolledWaits == Self.waitsPerPoll, poll(&descriptors) { return true }
    let start = Uptime.now.nanoseconds
    var now = start
    repeat {
      for _ in 0..<looksPerYield {
        if hasWork() { return true }
        shared_memory_pause()
      }
      let looked = now
      sched_yield()
      now = Uptime.now.nanoseconds
      if gaveWay(forNanoseconds: now &- looked) { return false }
      // Whoever had the processor may have been the other end: then there is no need to ask the kernel.
      if hasWork() { return true }
      if poll(&descriptors) { return true }
    } while now &- start < nanoseconds
    (looks, lookedSince) = (false, start)
    return false
  }

  private mutating func poll(_ descriptors: inout [pollfd]) -> Bool {
    unpolledWaits = 0
    return Wakeup.wait(for: &descriptors, timeout: 0)
  }

  private mutating func noteLook() {
    guard sleepsWhenCrowded > Self.fewestSleepsWhenCrowded else { return }
    undisturbedCount += 1
    if undisturbedCount == Self.looksToForget {
      (sleepsWhenCrowded, undisturbedCount) = (Self.fewestSleepsWhenCrowded, 0)
    }
  }

  private mutating func sleep(for descriptors: inout [pollfd], timeout: CInt) -> Bool {
    // Whoever does not wait has found work.
    if timeout == 0 { noteWork() }
    guard timeout != 0, maxNanoseconds > 0 else { return Wakeup.wait(for: &descriptors, timeout: timeout) }
    var start = lookedSince
    if start == 0 {
      guard unmeasuredCount >= Self.sleepsPerMeasurement - 1 else {
        unmeasuredCount += 1
        return Wakeup.wait(for: &descriptors, timeout: timeout)
      }
      start = Uptime.now.nanoseconds
    }
    (lookedSince, unmeasuredCount) = (0, 0)
    let isReadable = Wakeup.wait(for: &descriptors, timeout: timeout)
    adapt(to: Uptime.now.nanoseconds &- start)
    return isReadable
  }

  /// - Parameter waited: nanoseconds, without having found anything before it slept.
  package mutating func adapt(to waited: UInt64) {
    if waited <= maxNanoseconds {
      nanoseconds = min(max(2 * nanoseconds, Self.shortest), maxNanoseconds)
    } else {
      nanoseconds = nanoseconds > Self.shortest ? nanoseconds / 2 : 0
    }
    looks = nanoseconds > 0
  }

  /// Notes how long a yield took.
  ///
  /// - Returns: whether others keep the processor. It is not looked for a while then.
  package mutating func gaveWay(forNanoseconds yielded: UInt64) -> Bool {
    looksPerYield = yielded < Self.sharingYield ? Self.mostLooksPerYield : Self.fewestLooksPerYield
    guard yielded >= crowdedYield else {
      yieldsSinceLong = min(yieldsSinceLong + 1, Self.yieldsToForget)
      return false
    }
    let isFirst = yieldsSinceLong == Self.yieldsToForget
    yieldsSinceLong = 0
    if isFirst { return false }
    (nanoseconds, looks) = (0, false)
    unmeasuredCount = -sleepsWhenCrowded
    sleepsWhenCrowded = min(4 * sleepsWhenCrowded, Self.mostSleepsWhenCrowded)
    undisturbedCount = 0
    return true
  }
}
