import ExampleSupport
import Foundation
import NIOCore
import NIOPosix
import SystemPackage

/// A place in the file system for a listening socket.
struct UnixSocketPath: Sendable {
  /// Which file it is, whatever it is called.
  struct Identity: Hashable, Sendable {
    let device: Int
    let number: Int
  }

  /// What a socket's address has room for, without the zero at its end (unix(7)).
  private static let maximumByteCount = 107

  let path: String

  init(_ path: String) throws {
    guard !path.isEmpty else { throw ExampleError("the socket needs a path") }
    guard path.utf8.count <= Self.maximumByteCount else {
      throw ExampleError(
        "the socket's path has \(path.utf8.count) bytes, and no more than \(Self.maximumByteCount) are possible: "
          + "give a shorter one, such as one relative to the current folder")
    }
    self.path = path
  }

  /// Absolute, and as a part of a URI.
  var escaped: String {
    let plain = CharacterSet(
      charactersIn: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/")
    let absolute = URL(filePath: path).path
    return absolute.addingPercentEncoding(withAllowedCharacters: plain) ?? absolute
  }

  /// Of what lies there now; nil for nothing.
  var identity: Identity? {
    guard let attributes, let device = attributes[.systemNumber] as? NSNumber,
      let number = attributes[.systemFileNumber] as? NSNumber
    else { return nil }
    return Identity(device: device.intValue, number: number.intValue)
  }

  private var attributes: [FileAttributeKey: Any]? { try? FileManager.default.attributesOfItem(atPath: path) }

  /// Makes the socket, in place of one that a killed server has left.
  ///
  /// The folder is locked meanwhile: of two servers that find the same leftover, the second finds the first one's socket.
  ///
  /// - Returns: a descriptor that listens; the caller's to close.
  func listen() async throws -> CInt {
    let folder = URL(filePath: path).deletingLastPathComponent().path
    let descriptor: SystemPackage.FileDescriptor
    do { descriptor = try .open(FilePath(folder), .readOnly, options: [.directory, .closeOnExec]) } catch {
      throw ExampleError("the folder \(folder) of the socket cannot be opened: \(error)")
    }
    defer { try? descriptor.close() }
    try await lock(descriptor, folder)
    try await removeLeftover()
    let address = try SocketAddress(unixDomainSocketPath: path)
    let socket = Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    // Safe: the address is valid during the call.
    let bound = unsafe address.withSockAddr { unsafe bind(socket, $0, socklen_t($1)) }
    guard bound == 0, Glibc.listen(socket, 64) == 0 else {
      let error = Errno(rawValue: errno)
      close(socket)
      throw ExampleError("the socket \(path) cannot be made: \(error)")
    }
    return socket
  }

  /// Removes the socket, unless another file has taken its place.
  func remove(_ own: Identity?) {
    if own != nil, own == identity { try? FileManager.default.removeItem(atPath: path) }
  }

  private func lock(_ descriptor: SystemPackage.FileDescriptor, _ folder: String) async throws {
    for _ in 0..<500 {
      if flock(descriptor.rawValue, LOCK_EX | LOCK_NB) == 0 { return }
      try await Task.sleep(for: .milliseconds(10))
    }
    throw ExampleError("the folder \(folder) of the socket has been locked by another program for 5 s: try again later")
  }

  private func removeLeftover() async throws {
    guard let attributes else { return }
    guard attributes[.type] as? FileAttributeType == .typeSocket else {
      throw ExampleError("\(path) is there already, and is no socket: give another path")
    }
    do {
      let live = try await ClientBootstrap(group: .singletonMultiThreadedEventLoopGroup)
        .connect(unixDomainSocketPath: path).get()
      live.close(promise: nil)
    } catch let error as IOError where error.errnoCode == ECONNREFUSED {
      do { return try FileManager.default.removeItem(atPath: path) } catch {
        throw ExampleError(
          "nobody listens at \(path) any more, but it cannot be removed: \(error.localizedDescription)")
      }
    } catch let error as IOError {
      throw ExampleError(
        "the socket \(path) is there already, and cannot be tried: \(Errno(rawValue: error.errnoCode))")
    }
    throw ExampleError("a server listens at \(path) already: stop it, or give another path")
  }
}
