import Foundation
import Glibc
import NetBack
import Synchronization

/// TAP devices of this process's own.
enum TapDevices {
  /// Why there are none; nil when there are.
  static let missing: String? = {
    do {
      let name = name()
      _ = try TapInterface(name: name)
      guard ["/usr/sbin/ip", "/sbin/ip"].contains(where: FileManager.default.isExecutableFile(atPath:)) else {
        return "not installed: ip"
      }
      _ = try PacketSocket(on: "lo")
      return nil
    } catch { return "\(error)" }
  }()

  private static let lastNumber = Mutex(0)

  /// One that has not been given before.
  static func name() -> String {
    let number = lastNumber.withLock { number in
      number += 1
      return number
    }
    return "so\(getpid())-\(number)"
  }

  static func ip(_ arguments: String...) throws {
    let process = try Process.run(URL(filePath: "/usr/bin/env"), arguments: ["ip"] + arguments)
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw Failure(what: "ip \(arguments)") }
  }

  struct Failure: Error { let what: String }
}

/// A socket that sees and sends whole frames of an interface, with the kernel's own word of what is left to do to each
/// (packet(7); `PACKET_VNET_HDR` of linux/if_packet.h).
final class PacketSocket {
  struct Packet {
    var bytes: [UInt8]
    /// Zero for one that is not to be cut.
    var segmentByteCount: UInt16
    var isBlank: Bool
  }

  private let descriptor: CInt
  private static let headerByteCount = 10

  init(on interface: String) throws {
    let everything = UInt16(3).bigEndian
    descriptor = socket(AF_PACKET, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), Int32(everything))
    guard descriptor >= 0 else { throw TapDevices.Failure(what: "socket: errno \(errno)") }
    var on: CInt = 1
    // SOL_PACKET, PACKET_VNET_HDR. Safe: an integer of ours.
    guard unsafe setsockopt(descriptor, 263, 15, &on, 4) == 0 else {
      throw TapDevices.Failure(what: "PACKET_VNET_HDR: errno \(errno)")
    }
    // `sockaddr_ll`: family, protocol, interface, and twelve bytes that do not matter here.
    var address = [UInt8](repeating: 0, count: 20)
    unsafe address.withUnsafeMutableBytes { bytes in
      unsafe bytes.storeBytes(of: UInt16(AF_PACKET), as: UInt16.self)
      unsafe bytes.storeBytes(of: everything, toByteOffset: 2, as: UInt16.self)
      unsafe bytes.storeBytes(of: if_nametoindex(interface), toByteOffset: 4, as: UInt32.self)
    }
    let result = unsafe address.withUnsafeBytes { bytes in
      unsafe bind(descriptor, bytes.baseAddress!.assumingMemoryBound(to: sockaddr.self), 20)
    }
    guard result == 0 else { throw TapDevices.Failure(what: "bind: errno \(errno)") }
  }

  deinit { close(descriptor) }

  /// The next packet that is the one; others, that the machine sends by itself, are passed over. Nil when there is none for
  /// two seconds.
  func receive(_ isIt: ([UInt8]) -> Bool) -> Packet? {
    var buffer = [UInt8](repeating: 0, count: 1 << 17)
    while true {
      var wait = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
      // Safe: one entry, and a buffer, of ours.
      guard unsafe poll(&wait, 1, 2000) == 1 else { return nil }
      let count = unsafe recv(descriptor, &buffer, buffer.count, 0)
      guard count >= Self.headerByteCount else { return nil }
      let bytes = Array(buffer[Self.headerByteCount..<count])
      guard isIt(bytes) else { continue }
      let isSegmented = buffer[1] != 0
      return Packet(
        bytes: bytes, segmentByteCount: isSegmented ? UInt16(buffer[4]) | UInt16(buffer[5]) << 8 : 0,
        isBlank: buffer[0] & 1 != 0)
    }
  }

  /// Sends a TCP or UDP packet with a blank checksum, to be cut unless `segmentByteCount` is zero.
  func send(_ bytes: [UInt8], headers: NetHeaders, segmentByteCount: UInt16) throws {
    func little(_ number: Int) -> [UInt8] { [UInt8(number & 0xFF), UInt8(number >> 8)] }
    let type: UInt8 = segmentByteCount == 0 ? 0 : headers.network == .ipv4 ? 1 : 4
    var blank = bytes
    let sum = headers.blankChecksum(of: bytes.span)
    blank.replaceSubrange(headers.checksumOffset..<headers.checksumOffset + 2, with: big(sum))
    let packet =
      [1, type] + little(headers.payloadOffset) + little(Int(segmentByteCount)) + little(headers.transportOffset)
      + little(headers.checksumOffset - headers.transportOffset) + blank
    // Safe: bytes of ours.
    guard unsafe Glibc.send(descriptor, packet, packet.count, 0) == packet.count else {
      throw TapDevices.Failure(what: "send: errno \(errno)")
    }
  }
}
