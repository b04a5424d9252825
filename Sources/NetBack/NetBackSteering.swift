import NetIf
import Synchronization

/// How the frontend wants its packets hashed and spread over its queues, as the control ring has set it: written by that
/// ring's thread, read by the queues'.
///
/// A queue looks at a version each turn, and takes the lock only when there is another one.
final class NetBackSteering: Sendable {
  private let steering = Mutex<NetHashSteering?>(nil)
  private let version = Atomic<Int>(0)

  /// - Parameter steering: nil when we are free to choose.
  func set(_ steering: NetHashSteering?) {
    self.steering.withLock { $0 = steering }
    version.add(1, ordering: .releasing)
  }

  /// A queue's own copy.
  struct Copy {
    private(set) var steering: NetHashSteering?
    fileprivate var version = 0
  }

  /// Brings a copy up to date.
  func refresh(_ copy: inout Copy) {
    let current = version.load(ordering: .acquiring)
    guard current != copy.version else { return }
    // What is set meanwhile has another version still, and is taken the next time at the latest.
    copy = Copy(steering: steering.withLock { $0 }, version: current)
  }
}
