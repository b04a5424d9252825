import BlkBack
import Foundation
import Synchronization
import XenLoopback

/// A driver domain at work: its bus on a thread of its own, and a thread more for each disk's queue.
final class DriverDomain: Sendable {
  private let stopRequested = Atomic(false)
  private let stopped = DispatchSemaphore(value: 0)
  private let closed = Mutex<[BlkBackStatistics]>([])

  init(
    _ platform: LoopbackDomain, store: @escaping @Sendable (XenbusDevice) throws(DeviceError) -> any BlockStore
  ) {
    Thread.detachNewThread { [self] in
      do {
        let bus = try Bus(on: platform, log: .quiet)
        try bus.register(
          BlkBackDriver(whenClosed: { [self] _, statistics in closed.withLock { $0.append(statistics) } }, store: store)
        )
        bus.run { stopRequested.load(ordering: .relaxed) }
      } catch { print("the driver domain cannot start: \(error)") }
      stopped.signal()
    }
  }

  /// Ends the domain; what each disk did while it was connected.
  func stop() -> [BlkBackStatistics] {
    stopRequested.store(true, ordering: .relaxed)
    stopped.wait()
    return closed.withLock { $0 }
  }
}
