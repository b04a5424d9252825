import Glibc

/// Why this process cannot reach the hypervisor.
@nonexhaustive public enum NativePlatformError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The kernel runs on no Xen, so there is nothing to reach.
  case notXen
  /// The kernel offers no such device; `module` is what provides it.
  case deviceAbsent(path: String, module: String)
  /// The device is there and may not be opened.
  case deviceForbidden(path: String)
  /// No xenstore answers.
  case storeUnreachable(reason: String)
  /// A call failed for another reason.
  case system(call: String, reason: String)

  public var description: String {
    switch self {
    case .notXen: "this machine is not a Xen domain: run the program in one"
    case .deviceAbsent(let path, let module): "\(path) is absent: load the module \(module)"
    case .deviceForbidden(let path): "\(path) may not be opened by this user: run the program as root"
    case .storeUnreachable(let reason):
      "xenstore does not answer (\(reason)): start xenstored, or in a guest mount xenfs at /proc/xen, and run as root"
    case .system(let call, let reason): "\(call): \(reason)"
    }
  }

  /// What `error`, the errno of opening the device at `path`, means for the user.
  static func opening(_ path: String, module: String, error: CInt) -> NativePlatformError {
    switch error {
    case ENOENT, ENXIO, ENODEV: isXenDomain ? .deviceAbsent(path: path, module: module) : .notXen
    case EACCES, EPERM: .deviceForbidden(path: path)
    default: .system(call: "cannot open \(path)", reason: words(for: error))
    }
  }

  /// The kernel names the hypervisor that it runs on here (Documentation/ABI/stable/sysfs-hypervisor-xen).
  static var isXenDomain: Bool { unsafe access("/sys/hypervisor/type", F_OK) == 0 }
}

/// The system's words for an errno.
func words(for error: CInt) -> String {
  // Safe: the message is copied before any other call on this thread could change it.
  unsafe String(cString: strerror(error))
}
