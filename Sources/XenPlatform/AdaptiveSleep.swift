import Glibc

/// How a thread waits for its descriptors: where it has lately been woken soon after it fell asleep, it looks for that long
/// before it sleeps.
///
/// A processor that has gone to rest takes tens of microseconds to wake, most of all in a virtual machine, and the other end of
/// a ring is often as quick. The time spent in looking is bounded by ``maxNanoseconds`` a sleep; it doubles with each sleep that was
/// shorter than that, and halves down to nothing with each that was longer, so that an idle thread sleeps at once, and then measures one
/// sleep of eight. Between two looks others may have the processor; where one has kept it for a millisecond, the thread sleeps at once for
/// some ten thousand sleeps: on a machine whose processors are all wanted, whoever gives way waits for a whole time slice, and whoever
/// sleeps is let in as soon as it wakes.
public struct AdaptiveSleep: Sendable {
  /// How long to look at most before a sleep; zero never to.
  public let maxNanoseconds: UInt64
  /// How long the next sleep is put off.
  package private(set) var nanoseconds: UInt64 = 0
  private static let shortest: UInt64 = 4_000
  /// Sleeps since one was measured, by a thread that sleeps at once.
  private var unmeasuredCount = 0
  /// The clock is a system call on many a Xen, and what a thread waits for changes rarely.
  private static let sleepsPerMeasurement = 8

  private static let crowdedYield: UInt64 = 1_000_000
  private static let sleepsWhenCrowded = 16_384

  /// What Linux's KVM looks for before it lets a processor rest: a solid-state disk has answered by then.
  public static let defaultMaxNanoseconds: UInt64 = 200_000

  public init(maxNanoseconds: UInt64 = defaultMaxNanoseconds) { self.maxNanoseconds = maxNanoseconds }

  /// Waits until one of `descriptors` is readable or `timeout` milliseconds have passed (-1: for ever); says whether one is.
  public mutating func wait(for descriptors: inout [pollfd], timeout: CInt) -> Bool {
    guard timeout != 0, maxNanoseconds > 0 else { return Wakeup.wait(for: &descriptors, timeout: timeout) }
    if nanoseconds == 0, unmeasuredCount < Self.sleepsPerMeasurement - 1 {
      unmeasuredCount += 1
      return Wakeup.wait(for: &descriptors, timeout: timeout)
    }
    unmeasuredCount = 0
    let start = Uptime.now.nanoseconds
    if nanoseconds > 0 {
      var now = start
      repeat {
        if Wakeup.wait(for: &descriptors, timeout: 0) { return true }
        let looked = now
        sched_yield()
        now = Uptime.now.nanoseconds
        if gaveWay(forNanoseconds: now &- looked) { return Wakeup.wait(for: &descriptors, timeout: timeout) }
      } while now &- start < nanoseconds
    }
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
  }

  /// Notes how long a yield took.
  ///
  /// - Returns: whether somebody else had the processor for long. It is not looked for a long while then.
  package mutating func gaveWay(forNanoseconds yielded: UInt64) -> Bool {
    guard yielded >= Self.crowdedYield else { return false }
    nanoseconds = 0
    unmeasuredCount = -Self.sleepsWhenCrowded
    return true
  }
}
