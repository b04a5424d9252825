import Glibc
import RigSupport

/// Sends bytes to another host's UDP echo service, a few datagrams at a time, and compares every one that comes back.
///
/// usage: udp-echo-check ADDRESS BYTES LENGTH
///
/// Fails when one has not come back after five seconds, or not as it was sent. They may overtake one another.
@main struct UDPEchoCheck {
  /// As many as the smallest buffer on the way holds.
  private static let windowCount = 16

  static func main() {
    RigProgram.run { arguments in
      guard arguments.count == 3, let byteCount = Int(arguments[1]), let length = Int(arguments[2]), length >= 4
      else { throw Failure("usage: udp-echo-check ADDRESS BYTES LENGTH") }
      let service = try connect(to: arguments[0])
      let count = (byteCount + length - 1) / length
      var (sentCount, underWay) = (0, Set<Int>())
      var buffer = [UInt8](repeating: 0, count: 1 << 16)
      while sentCount < count || !underWay.isEmpty {
        while sentCount < count, underWay.count < windowCount {
          let datagram = datagram(sentCount, length)
          // Safe: the call reads the array's bytes.
          guard unsafe datagram.withUnsafeBytes({ unsafe send(service, $0.baseAddress, $0.count, 0) }) == length else {
            throw Failure("datagram \(sentCount) cannot be sent: errno \(errno)")
          }
          underWay.insert(sentCount)
          sentCount += 1
        }
        // Safe: the call writes within the array.
        let received = unsafe buffer.withUnsafeMutableBytes { unsafe recv(service, $0.baseAddress, $0.count, 0) }
        guard received > 0 else {
          throw Failure("of \(sentCount) datagrams \(underWay.count) have not come back: \(underWay.sorted())")
        }
        let number = buffer[..<4].reduce(0) { $0 << 8 | Int($1) }
        guard underWay.remove(number) != nil else { throw Failure("datagram \(number) came back unasked") }
        guard buffer[..<received] == datagram(number, length)[...] else {
          throw Failure("datagram \(number) came back with \(received) bytes that are not those sent")
        }
      }
      RigProgram.say("\(count * length) bytes in \(count) datagrams came back as they were sent")
    }
  }

  /// A socket that talks to the service alone, and waits for five seconds at most.
  private static func connect(to text: String) throws -> CInt {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = UInt16(7).bigEndian
    guard unsafe inet_pton(AF_INET, text, &address.sin_addr) == 1 else { throw Failure("\(text) is no address") }
    let service = socket(AF_INET, CInt(SOCK_DGRAM.rawValue), 0)
    var limit = timeval(tv_sec: 5, tv_usec: 0)
    // Safe: the calls read structures of ours, of the lengths given.
    let isSet = unsafe setsockopt(service, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size)) == 0
    let isConnected = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe Glibc.connect(service, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
    guard service >= 0, isSet, isConnected else { throw Failure("\(text) cannot be reached: errno \(errno)") }
    return service
  }

  /// Its number, then bytes that no other one has.
  private static func datagram(_ number: Int, _ length: Int) -> [UInt8] {
    (0..<length).map { place in
      UInt8(truncatingIfNeeded: place < 4 ? number >> (24 - 8 * place) : place &* 31 ^ place >> 8 ^ number &* 17)
    }
  }
}
