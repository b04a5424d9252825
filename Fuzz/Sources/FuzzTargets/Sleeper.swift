import Glibc
import XenPlatform

/// Somebody who sleeps, as a thread does: he is polled when a descriptor of his is readable, when an instant has come that he asked
/// for, or when he is not done, and at no other time. What nobody told him of he does not see.
final class Sleeper {
  private let descriptors: () -> [CInt]
  private let poll: (_ now: Uptime, _ budget: Int) -> PollOutcome
  /// At first he looks what is there.
  private var isAwake = true
  /// When he wakes by himself.
  private(set) var wakesAt: Uptime?
  private(set) var hasStopped = false

  init(descriptors: @escaping () -> [CInt], poll: @escaping (_ now: Uptime, _ budget: Int) -> PollOutcome) {
    self.descriptors = descriptors
    self.poll = poll
  }

  /// His own thread has been at something else, after which it looks here too.
  func wake() { isAwake = true }

  /// One turn, if he has reason to have one.
  ///
  /// - Returns: whether he had.
  @discardableResult
  func turn(at now: Uptime, budget: Int = 64) -> Bool {
    guard !hasStopped, isAwake || wakesAt.map({ $0 <= now }) == true || isReadable else { return false }
    (isAwake, wakesAt) = (false, nil)
    switch poll(now, budget) {
    case .idle: break
    case .idleUntil(let instant): wakesAt = instant
    case .more: isAwake = true
    case .stopped: hasStopped = true
    }
    return true
  }

  private var isReadable: Bool {
    var waits = descriptors().map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    return Wakeup.wait(for: &waits, timeout: 0)
  }
}
