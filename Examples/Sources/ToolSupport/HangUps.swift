import Glibc
import Synchronization
import XenPlatform

/// SIGHUP as something to sleep on, however often it comes.
public struct HangUps {
  private let wakeup: Wakeup

  /// From now on it ends nothing by itself. Once a program.
  public init() throws(ResourceError) {
    wakeup = try Wakeup()
    hungUpDescriptor.store(wakeup.descriptor, ordering: .releasing)
    signal(SIGHUP, noteHangUp)
  }

  /// Readable once it has come.
  public var descriptor: CInt { wakeup.descriptor }

  /// Whether it has come since the last call.
  public func take() -> Bool {
    // Before: one that comes in between is seen now, or wakes again.
    wakeup.clear()
    return hasHungUp.exchange(false, ordering: .acquiringAndReleasing)
  }
}

private let hasHungUp = Atomic(false)
private let hungUpDescriptor = Atomic<CInt>(-1)

/// The handler, with nothing in it but what a handler may do (signal-safety(7)).
private func noteHangUp(_: CInt) {
  // Whatever was interrupted may be about to look at it.
  let number = errno
  defer { errno = number }
  hasHungUp.store(true, ordering: .releasing)
  var one: UInt64 = 1
  // Safe: eight bytes of our own, for an eventfd that lives as long as the program.
  _ = unsafe write(hungUpDescriptor.load(ordering: .acquiring), &one, 8)
}
