#if canImport(CXen)
  import CXen
  import Glibc
  import XenPlatform

  /// One open /dev/xen/evtchn, with the ports bound on it; the kernel closes them with it.
  ///
  /// Sendable: the handle never changes, libxenevtchn keeps nothing in it but a descriptor, and every call is one ioctl,
  /// read or write that the kernel serialises.
  @safe final class NativeEventChannels: EventChannels, @unchecked Sendable {
    private let handle: OpaquePointer
    let descriptor: CInt

    init() throws(NativePlatformError) {
      guard let handle = unsafe xenevtchn_open(xen_silent_logger(), 0) else {
        throw .opening("/dev/xen/evtchn", module: "xen-evtchn", error: errno)
      }
      unsafe self.handle = handle
      descriptor = unsafe xenevtchn_fd(handle)
      // A read waits for an event otherwise, and nextPending() must not.
      let flags = fcntl(descriptor, F_GETFL)
      guard flags >= 0, fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0 else {
        throw .system(call: "cannot make event channels non-blocking", reason: words(for: errno))
      }
    }

    deinit { unsafe xenevtchn_close(handle) }

    func allocateUnbound(for remote: DomainID) throws(EventChannelError) -> EventChannelPort {
      let port = unsafe xenevtchn_bind_unbound_port(handle, UInt32(remote.rawValue))
      guard let port = UInt32(exactly: port) else {
        throw .system(call: "cannot allocate an event channel for \(remote)", reason: words(for: errno))
      }
      return EventChannelPort(rawValue: port)
    }

    func bindInterdomain(to remote: DomainID, port: EventChannelPort) throws(EventChannelError) -> EventChannelPort {
      let mine = unsafe xenevtchn_bind_interdomain(handle, UInt32(remote.rawValue), port.rawValue)
      guard let mine = UInt32(exactly: mine) else {
        switch errno {
        // What Xen says of a port that is not there, not for us or bound already; and of a domain that is not there.
        case EINVAL, ESRCH: throw .refused(port, of: remote)
        case let error: throw .system(call: "cannot bind to \(port) of \(remote)", reason: words(for: error))
        }
      }
      return EventChannelPort(rawValue: mine)
    }

    // The next three can fail only for a port that this handle does not have, and then there is nothing to do.

    func notify(_ port: EventChannelPort) { unsafe xenevtchn_notify(handle, port.rawValue) }

    func unmask(_ port: EventChannelPort) { unsafe xenevtchn_unmask(handle, port.rawValue) }

    func close(_ port: EventChannelPort) { unsafe xenevtchn_unbind(handle, port.rawValue) }

    func nextPending() -> EventChannelPort? {
      // Negative when no event waits (EAGAIN).
      UInt32(exactly: unsafe xenevtchn_pending(handle)).map(EventChannelPort.init(rawValue:))
    }
  }
#endif
