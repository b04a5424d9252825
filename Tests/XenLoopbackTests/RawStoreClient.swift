import Glibc
import SystemPackage
import Testing

@testable import XenLoopback

/// A client of a store's socket that writes any bytes at all. A test does not hang with it: reading gives up after ten
/// seconds.
final class RawStoreClient {
  typealias Kind = XenstoreMessage.Kind

  private let descriptor: CInt
  private var incoming: [UInt8] = []

  init(_ path: String) throws {
    // A program that another test starts meanwhile must not keep the connection open.
    descriptor = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    // Safe: the path fits, and both calls read what lives during them.
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
    let connected = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(connected == 0)
    var patience = timeval(tv_sec: 60, tv_usec: 0)
    for option in [SO_RCVTIMEO, SO_SNDTIMEO] {
      _ = unsafe setsockopt(descriptor, SOL_SOCKET, option, &patience, socklen_t(MemoryLayout<timeval>.size))
    }
  }

  deinit { close(descriptor) }

  /// Whether all of it could be written.
  @discardableResult func write(_ bytes: [UInt8]) -> Bool {
    // Safe: the array holds as many bytes as are sent.
    unsafe bytes.withUnsafeBytes { unsafe send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL)) }
      == bytes.count
  }

  func write(_ kind: Kind, _ payload: String, in transaction: UInt32 = 0, request: UInt32 = 7) {
    let message = XenstoreMessage(
      kind: kind.rawValue, request: request, transaction: transaction, payload: Array(payload.utf8))
    #expect(write(message.bytes))
  }

  /// Writes the same message again and again, until for a second there is no room for more.
  ///
  /// - Returns: how many times it went out whole.
  func writeUntilItWaits(_ message: [UInt8]) -> Int {
    var count = 0
    while true {
      var wait = pollfd(fd: descriptor, events: Int16(POLLOUT), revents: 0)
      // Safe: one entry of our own, and as many bytes as the array holds.
      guard unsafe poll(&wait, 1, 1000) > 0 else { return count }
      let written = unsafe message.withUnsafeBytes {
        unsafe send(descriptor, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL) | CInt(MSG_DONTWAIT))
      }
      // A message this short goes into a unix socket whole or not at all.
      guard written == message.count else { continue }
      count += 1
    }
  }

  func stopWriting() { shutdown(descriptor, CInt(SHUT_WR)) }

  /// The next message; nil when the server has closed the connection.
  func next() throws -> XenstoreMessage? {
    while true {
      if let message = try XenstoreMessage.take(from: &incoming) { return message }
      var bytes = [UInt8](repeating: 0, count: 4096)
      // Safe: the array has room for as many bytes as are asked for.
      let count = unsafe bytes.withUnsafeMutableBytes { unsafe recv(descriptor, $0.baseAddress, $0.count, 0) }
      let error = Errno(rawValue: errno)
      if count == 0 || count < 0 && error == .connectionReset { return nil }
      try #require(count > 0, "\(error): within a minute, if it is for now")
      incoming += bytes.prefix(count)
    }
  }

  /// What comes next, as text: the kind, and the payload with `|` for each zero.
  func nextText() throws -> String? {
    guard let message = try next() else { return nil }
    let payload = String(latin1: message.payload).replacing("\0", with: "|")
    return "\(Kind(rawValue: message.kind).map { "\($0)" } ?? "\(message.kind)") \(payload)"
  }

  /// Asks, and gives the answer.
  func ask(_ kind: Kind, _ payload: String, in transaction: UInt32 = 0) throws -> String? {
    write(kind, payload, in: transaction)
    return try nextText()
  }

  /// The number of a new transaction.
  func startTransaction() throws -> UInt32 {
    write(.startTransaction, "\0")
    let answer = try #require(try next())
    return try #require(UInt32(String(latin1: answer.payload.dropLast())))
  }
}

/// A path for a socket, in a folder that is removed in the end.
final class SocketFolder {
  let folder: String
  var path: String { folder + "/socket" }

  init() throws {
    var template = Array("/tmp/swift-xen-XXXXXX\0".utf8CString)
    // Safe: mkdtemp writes within the string that it was given.
    let isMade = unsafe template.withUnsafeMutableBufferPointer { unsafe mkdtemp($0.baseAddress!) != nil }
    try #require(isMade)
    folder = String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  deinit {
    _ = unsafe unlink(path)
    _ = unsafe rmdir(folder)
  }

  var isThere: Bool { unsafe access(path, F_OK) == 0 }
}
