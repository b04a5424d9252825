import Synchronization
import XenPlatform

/// What other threads tell a bus.
final class BusSignal: Sendable {
  /// What is to be told about one device.
  enum Call: Sendable {
    /// The queue of this life stopped for this reason.
    case fault(DeviceError, life: Int)
    /// The backend is to be asked what its queue wants.
    case attention
  }

  let wakeup: Wakeup
  private let calls = Mutex<[String: Call]>([:])

  init() throws(ResourceError) { wakeup = try Wakeup() }

  func report(_ error: DeviceError, at path: String, life: Int) {
    calls.withLock { $0[path] = .fault(error, life: life) }
    wakeup.signal()
  }

  func callForAttention(at path: String) {
    // A fault is news enough.
    calls.withLock { $0[path] = $0[path] ?? .attention }
    wakeup.signal()
  }

  func take() -> [String: Call] {
    wakeup.clear()
    return calls.withLock { calls in
      defer { calls = [:] }
      return calls
    }
  }
}
