import Glibc
import Synchronization
import XenPlatform

/// The signals that ask the program for something, as a descriptor to sleep on.
public struct Signals {
  private let wakeup: Wakeup

  /// From now on SIGINT and SIGTERM ask it to stop, and SIGUSR1 to flush.
  public init() throws(ResourceError) {
    wakeup = try Wakeup()
    signalDescriptor.store(wakeup.descriptor, ordering: .releasing)
    for number in [SIGINT, SIGTERM] {
      signal(number) { _ in
        stopRequested.store(true, ordering: .releasing)
        wake()
      }
    }
    signal(SIGUSR1) { _ in
      flushRequested.store(true, ordering: .releasing)
      wake()
    }
  }

  /// Readable when a signal has come since the last ``clear()``.
  public var descriptor: CInt { wakeup.descriptor }
  public func clear() { wakeup.clear() }

  public var isStopRequested: Bool { stopRequested.load(ordering: .acquiring) }
  /// Whether SIGUSR1 has come since the last time.
  public func takeFlush() -> Bool { flushRequested.exchange(false, ordering: .acquiringAndReleasing) }

  /// Another SIGINT or SIGTERM ends the program at once.
  public func endAtTheNext() { for number in [SIGINT, SIGTERM] { signal(number, SIG_DFL) } }
}

private let stopRequested = Atomic(false)
private let flushRequested = Atomic(false)
private let signalDescriptor = Atomic<CInt>(-1)

/// All that a handler may do besides.
private func wake() {
  var one: UInt64 = 1
  // Safe: eight bytes of our own, for an eventfd that lives as long as the program.
  _ = unsafe write(signalDescriptor.load(ordering: .acquiring), &one, 8)
}
