import Glibc
import Synchronization
import XenPlatform

/// SIGINT and SIGTERM as something to sleep on: readable once either has come.
///
/// Made before any thread is, since threads inherit that the two are blocked.
public final class EndSignals: Sendable {
  private let wakeup: Wakeup
  private let received = Atomic(CInt(0))

  public init() throws(ResourceError) {
    wakeup = try Wakeup()
    var set = sigset_t()
    // Safe: the set is our own, and filled before it is used.
    unsafe sigemptyset(&set)
    unsafe sigaddset(&set, SIGINT)
    unsafe sigaddset(&set, SIGTERM)
    unsafe pthread_sigmask(SIG_BLOCK, &set, nil)
    var handle = pthread_t()
    // Safe: the thread takes over the one reference that is retained here.
    let argument = unsafe Unmanaged.passRetained(self).toOpaque()
    let created = unsafe pthread_create(
      &handle, nil,
      { argument in
        unsafe Unmanaged<EndSignals>.fromOpaque(argument!).takeRetainedValue().await()
        return nil
      }, argument)
    guard created == 0 else {
      // Safe: the thread that would have taken it over was not made.
      unsafe Unmanaged<EndSignals>.fromOpaque(argument).release()
      throw ResourceError("no thread can be made to wait for signals: raise the limit of processes")
    }
    pthread_detach(handle)
  }

  public var descriptor: CInt { wakeup.descriptor }

  /// Whether one has come.
  public var isRaised: Bool { received.load(ordering: .acquiring) != 0 }

  private func await() {
    var set = sigset_t()
    var number: CInt = 0
    // Safe: both are our own.
    unsafe sigemptyset(&set)
    unsafe sigaddset(&set, SIGINT)
    unsafe sigaddset(&set, SIGTERM)
    guard unsafe sigwait(&set, &number) == 0 else { return }
    received.store(number, ordering: .releasing)
    wakeup.signal()
    // A second one ends the program, whatever it is at.
    unsafe pthread_sigmask(SIG_UNBLOCK, &set, nil)
  }
}
