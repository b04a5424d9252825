import NetIf

/// The data plane of one queue of a network backend, as whoever polls it holds it.
///
/// Sendable: its host polls it from one thread; the bus's thread touches it only before the host starts it and after the
/// host has stopped it.
final class NetBackQueue: DataQueue, @unchecked Sendable {
  private var work: NetBackWork
  /// Why it has stopped by itself.
  private(set) var fault: DeviceError?
  let descriptors: [CInt]

  init(_ work: consuming NetBackWork) {
    descriptors = work.descriptors
    self.work = work
  }

  /// Frames are no news while there is no room for them, nor is an end that will never have any.
  func waits(for descriptor: CInt) -> Bool { work.waits(for: descriptor) }

  func poll(now: Uptime, budget: Int, looks: Bool) -> PollOutcome {
    do throws(DeviceError) { return try work.poll(now: now, budget: budget, looks: looks) } catch {
      fault = error
      return .stopped
    }
  }

  var hasWork: Bool { work.hasWork }

  /// Only when nobody polls.
  var statistics: NetStatistics { work.statistics }
  var ringDump: String { work.ringDump }
}
