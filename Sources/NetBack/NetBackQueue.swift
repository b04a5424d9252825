import NetIf
import XenRing

/// The data plane of one queue of a network backend, as whoever polls it holds it.
///
/// Sendable: its host polls it from one thread; the bus's thread touches it only before the host starts it and after the
/// host has stopped it.
final class NetBackQueue: DataQueue, @unchecked Sendable {
  private var work: NetBackWork
  private(set) var violation: NetRingViolation?
  let descriptors: [CInt]

  init(_ work: consuming NetBackWork) {
    descriptors = [work.channel.descriptor] + (work.end.wakeDescriptor.map { [$0] } ?? [])
    self.work = work
  }

  /// The end's frames are no news while there is no room for them.
  func waits(for descriptor: CInt) -> Bool { descriptor == work.channel.descriptor || work.hasRoom }

  func poll(now: Uptime, budget: Int) -> PollOutcome {
    do throws(NetRingViolation) { return try work.poll(now: now, budget: budget) } catch {
      violation = error
      return .stopped
    }
  }

  /// Only when nobody polls.
  var statistics: NetStatistics { work.statistics }
  var ringDump: String { work.ringDump }
}
