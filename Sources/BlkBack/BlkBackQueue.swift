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

  func poll(now: Uptime, budget: Int) -> PollOutcome {
    do throws(RingViolation) { return try work.poll(now: now, budget: budget) } catch {
      violation = error
      return .stopped
    }
  }

  /// Answers all that was taken and has it on the medium, waiting for the store. Only after the host has stopped the queue.
  ///
  /// - Returns: where the ring goes on.
  /// - Throws: when another process cannot go on there.
  func finish() throws(DeviceError) -> RingIndex {
    if let violation { throw .protocolViolation("\(violation)") }
    return try work.finishAll()
  }

  /// Waits for what the store still has, for a second. Only after the host has stopped the queue.
  ///
  /// - Returns: false when the store still has the queue's buffers.
  func drain() -> Bool { work.drain() }

  /// Only when nobody polls.
  var statistics: BlkBackStatistics { work.statistics }
  var ringDump: String { work.ringDump }
}
