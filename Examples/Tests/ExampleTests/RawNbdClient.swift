import Foundation
import Testing

/// A client that sends whatever bytes it is told to. Whatever does not come within ten seconds does not come.
final class RawNbdClient {
  struct Reply: Equatable {
    let cookie: UInt64
    let error: UInt32
    var bytes: [UInt8] = []
  }

  private let descriptor: CInt

  /// Connects, and leaves it at that.
  init(_ socket: URL) throws {
    descriptor = Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let path = Array(socket.path.utf8)
    try #require(path.count < 108)
    // Safe: the path is shorter than the field, which was zeroed, and the lengths given are those of what is pointed to.
    let connected = unsafe withUnsafeMutablePointer(to: &address) { pointer in
      unsafe withUnsafeMutableBytes(of: &pointer.pointee.sun_path) { unsafe $0.copyBytes(from: path) }
      return unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(connected == 0, "cannot connect to \(socket.path)")
    var patience = timeval(tv_sec: 10, tv_usec: 0)
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
    unsafe setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  }

  /// Connects, and enters transmission by NBD_OPT_GO.
  ///
  /// - Parameter asksForBlocks: whether it asks for the block sizes and so has to keep to them.
  convenience init(to server: NbdServer, asksForBlocks: Bool = true) throws {
    try self.init(server.socket)
    try #require(receive(18) == Array("NBDMAGICIHAVEOPT".utf8) + [0, 3])
    let data: [UInt8] = [0, 0, 0, 0] + (asksForBlocks ? [0, 1, 0, 3] : [0, 0])
    try send([0, 0, 0, 3] + Array("IHAVEOPT".utf8) + [0, 0, 0, 7, 0, 0, 0, UInt8(data.count)] + data)
    // NBD_INFO_EXPORT, NBD_INFO_BLOCK_SIZE, NBD_REP_ACK.
    _ = try receive(20 + 12 + 20 + 14 + 20)
  }

  deinit { close(descriptor) }

  func send(_ bytes: [UInt8]) throws {
    try #require(trySending(bytes) == bytes.count, "the server takes nothing more")
  }

  /// Sends nothing more, and still receives.
  func endSending() { shutdown(descriptor, CInt(SHUT_WR)) }

  /// - Returns: how many bytes the server took.
  func trySending(_ bytes: [UInt8]) -> Int {
    var sent = 0
    while sent < bytes.count {
      // Safe: `sent` stays below the count.
      let count = unsafe bytes.withUnsafeBytes {
        unsafe Glibc.send(descriptor, $0.baseAddress! + sent, bytes.count - sent, CInt(MSG_NOSIGNAL))
      }
      guard count > 0 else { break }
      sent += count
    }
    return sent
  }

  func receive(_ count: Int) throws -> [UInt8] {
    let bytes = receive(upTo: count)
    try #require(bytes.count == count, "the server sent \(bytes.count) bytes of \(count)")
    return bytes
  }

  /// - Returns: fewer bytes when the server closes the connection, or sends no more.
  private func receive(upTo count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var received = 0
    while received < count {
      // Safe: `received` stays below the count.
      let more = unsafe bytes.withUnsafeMutableBytes {
        unsafe recv(descriptor, $0.baseAddress! + received, count - received, 0)
      }
      guard more > 0 else { break }
      received += more
    }
    return Array(bytes.prefix(received))
  }

  /// Whether the server closes the connection without another byte.
  func isClosed() -> Bool {
    var byte: UInt8 = 0
    // Safe: one byte of our own.
    let count = unsafe recv(descriptor, &byte, 1, 0)
    return count == 0 || (count < 0 && errno == ECONNRESET)
  }

  // MARK: Requests

  static func header(
    _ command: UInt16, flags: UInt16 = 0, cookie: UInt64, offset: UInt64, length: UInt32
  ) -> [UInt8] {
    [0x25, 0x60, 0x95, 0x13] + bytes(flags) + bytes(command) + bytes(cookie) + bytes(offset) + bytes(length)
  }

  private static func bytes(_ number: some FixedWidthInteger) -> [UInt8] {
    (0..<number.bitWidth / 8).reversed().map { UInt8(truncatingIfNeeded: number >> ($0 * 8)) }
  }

  func sendRead(cookie: UInt64, offset: UInt64, length: UInt32) throws {
    try send(Self.header(0, cookie: cookie, offset: offset, length: length))
  }

  func sendWrite(cookie: UInt64, offset: UInt64, _ bytes: [UInt8], flags: UInt16 = 0) throws {
    try send(Self.header(1, flags: flags, cookie: cookie, offset: offset, length: UInt32(bytes.count)) + bytes)
  }

  /// - Parameter payload: how many bytes a reply without error brings.
  func reply(payload: Int = 0) throws -> Reply {
    try #require(try replyIfAny(payload: payload), "the server has closed the connection, or answers nothing")
  }

  /// As ``reply(payload:)``; nil when there is none.
  func replyIfAny(payload: Int = 0) throws -> Reply? {
    let header = receive(upTo: 16)
    guard !header.isEmpty else { return nil }
    try #require(header.count == 16)
    try #require(header.prefix(4) == [0x67, 0x44, 0x66, 0x98])
    let error = header[4..<8].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    let cookie = header[8..<16].reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
    return Reply(cookie: cookie, error: error, bytes: error == 0 ? try receive(payload) : [])
  }

  // MARK: Request and reply

  func read(_ offset: UInt64, _ length: UInt32) throws -> Reply {
    try sendRead(cookie: offset ^ 0xAA, offset: offset, length: length)
    let reply = try reply(payload: Int(length))
    #expect(reply.cookie == offset ^ 0xAA)
    return reply
  }

  /// - Returns: the error; 0 for none.
  func write(_ offset: UInt64, _ bytes: [UInt8], flags: UInt16 = 0) throws -> UInt32 {
    try sendWrite(cookie: 1, offset: offset, bytes, flags: flags)
    return try reply().error
  }

  func flush() throws -> UInt32 {
    try send(Self.header(3, cookie: 1, offset: 0, length: 0))
    return try reply().error
  }
}
