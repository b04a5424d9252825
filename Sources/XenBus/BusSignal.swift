import Synchronization
import XenPlatform

/// What other threads tell a bus.
final class BusSignal: Sendable {
  struct Fault: Sendable {
    let error: DeviceError
    let life: Int
  }

  let wakeup: Wakeup
  private let faults = Mutex<[String: Fault]>([:])

  init() throws(ResourceError) { wakeup = try Wakeup() }

  func report(_ error: DeviceError, at path: String, life: Int) {
    faults.withLock { $0[path] = Fault(error: error, life: life) }
    wakeup.signal()
  }

  func take() -> [String: Fault] {
    wakeup.clear()
    return faults.withLock { faults in
      defer { faults = [:] }
      return faults
    }
  }
}
