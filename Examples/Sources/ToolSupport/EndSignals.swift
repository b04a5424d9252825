import Glibc
import Synchronization
import XenPlatform

/// SIGINT and SIGTERM as something to sleep on. A second one ends the program, whatever it is at.
public struct EndSignals: Sendable {
  private let wakeup: Wakeup

  /// From now on the two end nothing by themselves. Once a program.
  public init() throws(ResourceError) {
    wakeup = try Wakeup()
    raisedDescriptor.store(wakeup.descriptor, ordering: .releasing)
    for number in [SIGINT, SIGTERM] { signal(number, noteEnd) }
  }

  /// Readable once either has come.
  public var descriptor: CInt { wakeup.descriptor }

  public var isRaised: Bool { raised.load(ordering: .acquiring) }
}

private let raised = Atomic(false)
private let raisedDescriptor = Atomic<CInt>(-1)

/// The handler, with nothing in it but what a handler may do (signal-safety(7)).
private func noteEnd(_: CInt) {
  raised.store(true, ordering: .releasing)
  signal(SIGINT, SIG_DFL)
  signal(SIGTERM, SIG_DFL)
  var one: UInt64 = 1
  // Safe: eight bytes of our own, for an eventfd that lives as long as the program.
  _ = unsafe write(raisedDescriptor.load(ordering: .acquiring), &one, 8)
}
