import CLinux
import Glibc
import NetIf

/// A TAP device of this machine's network: what is sent to it arrives there as from a cable, and what the machine sends is
/// received (Linux, Documentation/networking/tuntap.rst).
///
/// What goes through it may be unfinished, both ways: each packet has a header of its own that says what is left to do
/// (`IFF_VNET_HDR`). It costs one system call, and the kernel copies the packet once.
///
/// One that does not exist yet is created, and ends with this object. Safe to use from several threads.
public final class TapInterface: Sendable {
  /// The longest name of an interface, in bytes (`IFNAMSIZ` and its terminator).
  public static let maxNameByteCount = 15

  public let name: String
  /// Whether it may have several queues, which the machine spreads flows over (`IFF_MULTI_QUEUE`).
  public let isMultiQueue: Bool
  /// The one that keeps it.
  let first: TapQueue

  /// - Parameter isMultiQueue: as whoever made it has made it. The kernel lets other programs have queues of such a device
  ///   at the same time, and this object does not find out.
  /// - Throws: ``TapError``, which names the interface and what to do.
  public init(name: String, isMultiQueue: Bool = false) throws(TapError) {
    guard !name.isEmpty, name.utf8.count <= Self.maxNameByteCount,
      !name.contains(where: { $0 == "/" || $0.isWhitespace })
    else { throw .badName(name) }
    (self.name, self.isMultiQueue) = (name, isMultiQueue)
    first = try TapQueue(of: name, isMultiQueue: isMultiQueue)
  }

  /// Another queue. It ends with its object, and the machine spreads what it sends over those that there are.
  func makeQueue() throws(TapError) -> TapQueue { try TapQueue(of: name, isMultiQueue: isMultiQueue) }

  /// Readable when ``receive(into:)`` would bring something.
  public var descriptor: CInt { first.descriptor }

  /// Whether somebody has removed the interface. It does not come back.
  public var isGone: Bool { first.isGone }

  /// What the machine may send unfinished from now on; nothing at first. Blank checksums are of IPv4 and IPv6 alike, and a
  /// packet to be cut has one.
  public func setOffloads(_ offloads: NetOffloads) throws(TapError) {
    let tcpv4 = offloads.contains(.tcpv4Segmentation)
    let tcpv6 = offloads.contains(.tcpv6Segmentation)
    let checksum = tcpv4 || tcpv6 || !offloads.isDisjoint(with: [.ipv4Checksum, .ipv6Checksum])
    guard linux_tap_set_offloads(descriptor, checksum ? 1 : 0, tcpv4 ? 1 : 0, tcpv6 ? 1 : 0) == 0 else {
      throw .system(name: name, call: "TUNSETOFFLOAD", reason: TapError.reason)
    }
  }

  /// Sets the largest payload of a frame that the machine sends through the interface.
  public func setMTU(_ mtu: Int) throws(TapError) {
    let anySocket = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard anySocket >= 0 else { throw .system(name: name, call: "socket", reason: TapError.reason) }
    defer { _ = close(anySocket) }
    // Safe: the call reads a string of ours.
    guard unsafe name.withCString({ unsafe linux_set_mtu(anySocket, $0, CInt(clamping: mtu)) }) == 0 else {
      throw .system(name: name, call: "SIOCSIFMTU \(mtu)", reason: TapError.reason)
    }
  }

  /// Says to the machine whether the link is up; it is at first. While it is down the machine sends nothing through it.
  public func setCarrier(_ isUp: Bool) throws(TapError) {
    guard linux_tap_set_carrier(descriptor, isUp ? 1 : 0) == 0 else {
      throw .system(name: name, call: "TUNSETCARRIER", reason: TapError.reason)
    }
  }

  /// Sends one frame. Never waits.
  ///
  /// - Parameters:
  ///   - frame: ours alone if there is anything left to do to it: its headers are looked at, and its checksum's place is
  ///     written.
  ///   - metadata: what is left to do; the kernel, or whoever it sends the frame to, does it.
  /// - Returns: false when the interface did not take it: it is down, full, or gone, or the frame is not what it is to be
  ///   finished as.
  public func send(_ frame: SharedBytes, _ metadata: NetPacketMetadata = NetPacketMetadata()) -> Bool {
    first.send(frame, metadata)
  }

  /// Receives one frame that is finished, as they are unless ``setOffloads(_:)`` has said otherwise. Never waits.
  ///
  /// - Parameter buffer: longer than the longest frame, since what does not fit is cut off unseen; ours alone.
  /// - Returns: the frame's length in bytes; zero when there is none.
  public func receive(into buffer: SharedBytes) -> Int {
    var metadata = NetPacketMetadata()
    return first.receive(into: buffer, &metadata)
  }

  /// Receives one frame. Never waits.
  ///
  /// - Parameters:
  ///   - buffer: as in ``receive(into:)``.
  ///   - metadata: what is left to do to it.
  /// - Returns: the frame's length in bytes; zero when there is none.
  public func receive(into buffer: SharedBytes, _ metadata: inout NetPacketMetadata) -> Int {
    first.receive(into: buffer, &metadata)
  }
}

/// Why a TAP device cannot be used.
@nonexhaustive public enum TapError: Error, Hashable, Sendable, CustomStringConvertible {
  case badName(String)
  case noDriver(reason: String)
  case inUse(String)
  case notPermitted(String)
  case notATap(String)
  case system(name: String, call: String, reason: String)

  static var reason: String { unsafe String(cString: strerror(errno)) }

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
