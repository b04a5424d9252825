import BlkIf
import XenRing

/// The data plane of one block backend ring, as whoever polls it holds it.
///
/// Sendable: its host polls it from one thread; the bus's thread touches it only before the host starts it and after the
/// host has stopped it.
final class BlkBackQueue: DataQueue, @unchecked Sendable {
  private var work: BlkBackWork
  private(set) var violation: RingViolation?
  let descriptors: [CInt]

  init(_ work: consuming BlkBackWork) {
    descriptors = [work.channel.descriptor] + (work.store.completionDescriptor.map { [$0] } ?? [])
    self.work = work
  }

  /// What a queue keeps, it keeps for a second at least, and an event that asks for nothing may be held back until the next tick;
  /// how long requests take, it times by ``BlkBackWork/clock``.
  let goesByTicks = true

  func poll(now: Uptime, budget: Int, looks: Bool) -> PollOutcome {
    do throws(RingViolation) { return try work.poll(now: now, budget: budget, looks: looks) } catch {
      violation = error
      return .stopped
    }
  }

  var hasWork: Bool { work.hasWork }

  /// Wakes the frontend: what a killed process showed it, nobody may have told it of.
  func notify() { work.channel.notify() }

  /// Answers all that was taken and has it on the medium, waiting for the store. Only after the host has stopped the queue.
  ///
  /// - Parameter deadline: in nanoseconds of the machine's clock.
  /// - Returns: where the ring goes on.
  /// - Throws: when another process cannot go on there.
  func finish(until deadline: UInt64) throws(DeviceError) -> RingIndex {
    if let violation { throw .protocolViolation("\(violation)") }
    return try work.finishAll(until: deadline)
  }

  /// What the store still has, to be waited for. Only after the host has stopped the queue, which then takes nothing more.
  func leave() -> BlkBackRemainder { work.leave() }

  /// Only when nobody polls.
  var statistics: BlkBackStatistics { work.statistics }
  var ringDump: String { work.ringDump }
}
