import Synchronization
import XenPlatform

/// What other threads tell a bus.
final class BusSignal: Sendable {
  /// What is to be told about one device.
  struct Call: Sendable {
    /// The queue of this life stopped for this reason.
    var fault: (error: DeviceError, life: Int)?
    /// The backend is to be asked what its queue wants.
    var wantsAttention = false
  }

  let wakeup: Wakeup
  private let calls = Mutex<[String: Call]>([:])

  init() throws(ResourceError) { wakeup = try Wakeup() }

  func report(_ error: DeviceError, at path: String, life: Int) {
    calls.withLock { $0[path, default: Call()].fault = (error, life) }
    wakeup.signal()
  }

  func callForAttention(at path: String) {
    calls.withLock { $0[path, default: Call()].wantsAttention = true }
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
