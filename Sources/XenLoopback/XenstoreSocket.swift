import SystemPackage
import XenPlatform

/// A ``Loopback``'s store on a unix socket, in xenstore's wire protocol (io/xs_wire.h): `xenstore-ls`, `xenstore-write` and
/// every other program that speaks to xenstored look into the running system, and change it.
///
/// They find it by the environment: `XENSTORED_PATH=/tmp/xenstore xenstore-ls -f`.
///
/// Each connection is one of the control domain's, which may read and write every node; its watches and transactions end
/// with it. Answered are `DIRECTORY`, `DIRECTORY_PART`, `READ`, `WRITE`, `MKDIR`, `RM`, `GET_PERMS`, `SET_PERMS`, `WATCH`,
/// `UNWATCH`, `RESET_WATCHES`, `TRANSACTION_START`, `TRANSACTION_END`, `GET_DOMAIN_PATH`, `IS_DOMAIN_INTRODUCED`, and of
/// `CONTROL` the command `help`. `INTRODUCE`, `RELEASE`, `RESUME` and `SET_TARGET` are refused with `EACCES`, for domains come
/// and go by the ``Loopback``'s own calls. A message that is not well-formed is refused with `EINVAL`, an unknown one with
/// `ENOSYS`, and one longer than the protocol allows ends its connection.
///
/// A client that does not read what it is sent gets no further answers when 64 KiB wait for it, and is cut off when what its
/// watches report makes that 1 MiB. At most 100 clients are served at once; more wait until one goes.
public final class XenstoreSocket: Sendable {
  public let path: FilePath
  private let server: XenstoreServer

  /// Listens from now on, on a thread of its own.
  ///
  /// - Parameters:
  ///   - loopback: has its control domain already.
  ///   - path: where nothing is, or a socket that nobody listens at any more; in a folder that exists. Only the user whom
  ///     this process runs as may connect.
  public init(serving loopback: Loopback, at path: FilePath) throws(XenstoreSocketError) {
    self.path = path
    let socket = try ListeningSocket(at: path)
    do throws(ResourceError) { server = try XenstoreServer(loopback, on: socket) } catch { throw .noResources(error) }
  }

  deinit { close() }

  /// Ends every connection, and removes the socket. Once is enough, and the end of this object is a call too.
  public func close() { server.end() }
}

/// Why there is no ``XenstoreSocket``.
@nonexhaustive public enum XenstoreSocketError: Error, Hashable, Sendable, CustomStringConvertible {
  case pathEmpty
  case pathTooLong(FilePath, byteCount: Int, limit: Int)
  case cannotOpenFolder(FilePath, Errno)
  case folderLocked(FilePath)
  case notASocket(FilePath)
  case inUse(FilePath)
  case cannotMake(FilePath, Errno)
  case noResources(ResourceError)

  public var description: String {
    switch self {
    case .pathEmpty: "the socket of the store needs a path"
    case .pathTooLong(let path, let byteCount, let limit):
      "the socket's path \(path) has \(byteCount) bytes, and no more than \(limit) are possible: give a shorter one, such "
        + "as one relative to the current folder"
    case .cannotOpenFolder(let path, let error): "the folder \(path) of the socket cannot be opened: \(error)"
    case .folderLocked(let path): "the folder \(path) of the socket is locked by another program: try again later"
    case .notASocket(let path): "\(path) is there already, and is no socket: give another path"
    case .inUse(let path): "somebody listens at \(path) already: stop that program, or give another path"
    case .cannotMake(let path, let error): "the socket \(path) cannot be made: \(error)"
    case .noResources(let error): "the store cannot be served: \(error)"
    }
  }
}
