import CLinux
import Glibc
import NetIf
import Synchronization

/// A TAP device of this machine's network: what is sent to it arrives there as from a cable, and what the machine sends is
/// received (Linux, Documentation/networking/tuntap.rst).
///
/// One that does not exist yet is created, and ends with this object. Safe to use from several threads.
public final class TapInterface: Sendable {
  /// The longest name of an interface, in bytes (`IFNAMSIZ` and its terminator).
  public static let maxNameByteCount = 15

  public let name: String
  /// Readable when ``receive(into:)`` would bring something.
  public let descriptor: CInt
  private let gone = Atomic(false)

  /// - Throws: ``TapError``, which names the interface and what to do.
  public init(name: String) throws(TapError) {
    guard !name.isEmpty, name.utf8.count <= Self.maxNameByteCount,
      !name.contains(where: { $0 == "/" || $0.isWhitespace })
    else { throw .badName(name) }
    self.name = name
    // Safe: the call reads a string of ours.
    descriptor = unsafe open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC)
    guard descriptor >= 0 else { throw .noDriver(reason: Self.reason) }
    // Safe: the call reads a string of ours.
    guard unsafe name.withCString({ unsafe linux_tap_attach(descriptor, $0) }) == 0 else {
      // The end of this object closes the descriptor.
      switch errno {
      case EBUSY: throw .inUse(name)
      case EPERM, EACCES: throw .notPermitted(name)
      case EINVAL: throw .notATap(name)
      default: throw .system(name: name, call: "TUNSETIFF", reason: Self.reason)
      }
    }
  }

  deinit { _ = close(descriptor) }

  private static var reason: String { unsafe String(cString: strerror(errno)) }

  /// Whether somebody has removed the interface. It does not come back.
  public var isGone: Bool { gone.load(ordering: .relaxed) }

  /// Sets the largest payload of a frame that the machine sends through the interface.
  public func setMTU(_ mtu: Int) throws(TapError) {
    let anySocket = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard anySocket >= 0 else { throw .system(name: name, call: "socket", reason: Self.reason) }
    defer { _ = close(anySocket) }
    // Safe: the call reads a string of ours.
    guard unsafe name.withCString({ unsafe linux_set_mtu(anySocket, $0, CInt(clamping: mtu)) }) == 0 else {
      throw .system(name: name, call: "SIOCSIFMTU \(mtu)", reason: Self.reason)
    }
  }

  /// Says to the machine whether the link is up; it is at first. While it is down the machine sends nothing through it.
  public func setCarrier(_ isUp: Bool) throws(TapError) {
    guard linux_tap_set_carrier(descriptor, isUp ? 1 : 0) == 0 else {
      throw .system(name: name, call: "TUNSETCARRIER", reason: Self.reason)
    }
  }

  /// Sends one frame. Never waits.
  ///
  /// - Returns: false when the interface did not take it: it is down, full, or gone.
  public func send(_ frame: SharedBytes) -> Bool {
    // Safe: the system call reads the frame's bytes, once.
    if unsafe write(descriptor, frame.baseAddress, frame.count) == frame.count { return true }
    noteWhetherGone()
    return false
  }

  /// Receives one frame. Never waits.
  ///
  /// - Parameter buffer: longer than the longest frame, since what does not fit is cut off unseen.
  /// - Returns: the frame's length in bytes; zero when there is none.
  public func receive(into buffer: SharedBytes) -> Int {
    // Safe: the system call writes within the buffer.
    let count = unsafe read(descriptor, buffer.baseAddress, buffer.count)
    if count < 0 { noteWhetherGone() }
    return max(count, 0)
  }

  /// EBADFD is what a TAP device answers with that has been removed.
  private func noteWhetherGone() { if errno == EBADFD { gone.store(true, ordering: .relaxed) } }
}

/// Why a TAP device cannot be used.
@nonexhaustive public enum TapError: Error, Hashable, Sendable, CustomStringConvertible {
  case badName(String)
  case noDriver(reason: String)
  case inUse(String)
  case notPermitted(String)
  case notATap(String)
  case system(name: String, call: String, reason: String)

  public var description: String {
    switch self {
    case .badName(let name):
      "\(name.quoted) is no name of an interface: it has 1 to \(TapInterface.maxNameByteCount) bytes, no space and no slash"
    case .noDriver(let reason):
      "/dev/net/tun cannot be opened (\(reason)): load the module tun, and in a container pass the device in"
    case .inUse(let name): "the TAP device \(name) is in use by another program"
    case .notPermitted(let name):
      "the TAP device \(name) may not be used: run as root, with CAP_NET_ADMIN, or as the user it was made for"
    case .notATap(let name): "the interface \(name) is not a TAP device: remove it, or choose another name"
    case .system(let name, let call, let reason): "the TAP device \(name): \(call): \(reason)"
    }
  }
}
