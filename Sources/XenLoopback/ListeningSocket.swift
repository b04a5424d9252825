import CLinux
import Glibc
import SystemPackage

/// A unix socket that listens at a path; one that a killed server has left there is replaced.
///
/// Nobody but the user whom this process runs as may connect. The file is removed in the end, unless another has taken its
/// place.
final class ListeningSocket: Sendable {
  /// What a socket's address has room for, without the zero at its end (unix(7)).
  private static let pathByteLimit = 107
  /// How long another program may keep the folder locked.
  private static let lockTries = 100

  /// Which file it is, whatever it is called.
  private struct Identity: Equatable {
    let device: dev_t
    let number: ino_t
  }

  let descriptor: CInt
  private let path: FilePath
  private let identity: Identity?

  /// - Parameter path: in a folder that exists.
  init(at path: FilePath) throws(XenstoreSocketError) {
    guard !path.isEmpty else { throw .pathEmpty }
    let byteCount = path.string.utf8.count
    guard byteCount <= Self.pathByteLimit else {
      throw .pathTooLong(path, byteCount: byteCount, limit: Self.pathByteLimit)
    }
    self.path = path
    let folder = try Self.lockFolder(of: path)
    // Closing it ends the lock.
    defer { try? folder.close() }
    try Self.removeLeftover(path)
    descriptor = try Self.socket(path)
    // Safe: both read the address that they are given, and keep nothing of it.
    // The mode of a socket before it is bound is the mode of its file (less the umask).
    guard fchmod(descriptor, 0o600) == 0, unsafe Self.call(bind, descriptor, path) == 0 else {
      throw Self.failure(path, closing: descriptor)
    }
    guard listen(descriptor, SOMAXCONN) == 0 else {
      let failure = Self.failure(path, closing: descriptor)
      Self.remove(path)
      throw failure
    }
    identity = Self.identity(path)
  }

  deinit {
    _ = Glibc.close(descriptor)
    if identity != nil, identity == Self.identity(path) { Self.remove(path) }
  }

  /// The next client's socket, which does not block.
  ///
  /// - Throws: `.wouldBlock` when there is none, and whatever else accept(2) says.
  func accept() throws(Errno) -> CInt {
    let client = linux_accept(descriptor)
    guard client >= 0 else { throw Errno(rawValue: errno) }
    return client
  }

  // MARK: Making it

  /// Of two servers that find the same leftover, the second one then finds the first one's socket.
  private static func lockFolder(of path: FilePath) throws(XenstoreSocketError) -> FileDescriptor {
    let parent = path.removingLastComponent()
    let folder = parent.isEmpty ? "." : parent
    let descriptor: FileDescriptor
    do { descriptor = try .open(folder, .readOnly, options: [.directory, .closeOnExec]) } catch {
      throw .cannotOpenFolder(folder, (error as? Errno) ?? .ioError)
    }
    for _ in 0..<lockTries {
      if flock(descriptor.rawValue, LOCK_EX | LOCK_NB) == 0 { return descriptor }
      usleep(10_000)
    }
    try? descriptor.close()
    throw .folderLocked(folder)
  }

  private static func removeLeftover(_ path: FilePath) throws(XenstoreSocketError) {
    guard let status = status(path) else { return }
    guard status.st_mode & S_IFMT == S_IFSOCK else { throw .notASocket(path) }
    let descriptor = try socket(path)
    defer { _ = Glibc.close(descriptor) }
    guard unsafe call(connect, descriptor, path) != 0 else { throw .inUse(path) }
    switch Errno(rawValue: errno) {
    case .connectionRefused: remove(path)
    // It listens, and has as many who wait as it may.
    case .wouldBlock: throw .inUse(path)
    case let error: throw .cannotMake(path, error)
    }
  }

  private static var flags: CInt { CInt(SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue) }

  private static func socket(_ path: FilePath) throws(XenstoreSocketError) -> CInt {
    let descriptor = Glibc.socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | flags, 0)
    guard descriptor >= 0 else { throw .cannotMake(path, Errno(rawValue: errno)) }
    return descriptor
  }

  private static func failure(_ path: FilePath, closing descriptor: CInt) -> XenstoreSocketError {
    let error = Errno(rawValue: errno)
    _ = Glibc.close(descriptor)
    return .cannotMake(path, error)
  }

  /// bind(2) or connect(2).
  private static func call(
    _ operation: (CInt, UnsafePointer<sockaddr>?, socklen_t) -> CInt, _ descriptor: CInt, _ path: FilePath
  ) -> CInt {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    // Safe: the path is no longer than the limit, which leaves a zero behind it; a sockaddr_un is what a unix socket's
    // address is, and lives during the call.
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: path.string.utf8) }
    return unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe operation(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
  }

  // MARK: The file

  private static func status(_ path: FilePath) -> stat? {
    var status = stat()
    return unsafe path.withPlatformString { unsafe lstat($0, &status) } == 0 ? status : nil
  }

  private static func identity(_ path: FilePath) -> Identity? {
    status(path).map { Identity(device: $0.st_dev, number: $0.st_ino) }
  }

  private static func remove(_ path: FilePath) { _ = unsafe path.withPlatformString { unsafe unlink($0) } }
}
