import Glibc
import SystemPackage
import Testing

@testable import XenLoopback

/// The socket as a file: where it may be, and when it is gone.
struct XenstoreSocketFileTests {
  private let xen = Domains()
  private let folder: SocketFolder

  init() throws { folder = try SocketFolder() }

  private func serve() throws(XenstoreSocketError) -> XenstoreSocket {
    try XenstoreSocket(serving: xen.loopback, at: FilePath(folder.path))
  }

  private func refusal(_ path: String) -> String? {
    do throws(XenstoreSocketError) {
      _ = try XenstoreSocket(serving: xen.loopback, at: FilePath(path))
      return nil
    } catch { return error.description }
  }

  @Test func socketIsItsUsersAlone() throws {
    let socket = try serve()
    var status = stat()
    #expect(unsafe lstat(folder.path, &status) == 0)
    #expect(status.st_mode & S_IFMT == S_IFSOCK && status.st_mode & 0o777 == 0o600)
    socket.close()
  }

  @Test func closeEndsEveryConnectionAndRemovesTheSocket() throws {
    let socket = try serve()
    let client = try RawStoreClient(folder.path)
    #expect(try client.ask(.watch, "/a\0t\0") == "watch OK|")
    socket.close()
    #expect(!folder.isThere)
    _ = try client.next()
    #expect(try client.next() == nil)
    socket.close()
  }

  @Test func endOfTheObjectIsAClose() throws {
    do { _ = try serve() }
    #expect(!folder.isThere)
    _ = try serve()
  }

  @Test func placeInUseIsRefused() throws {
    let socket = try serve()
    #expect(
      refusal(folder.path) == "somebody listens at \(folder.path) already: stop that program, or give another path")
    #expect(try RawStoreClient(folder.path).ask(.read, "/\0") == "read ")
    socket.close()
  }

  @Test func whatAKilledServerLeftIsReplaced() throws {
    // One that never listened: of one that did, a program that another test begins at this moment has a copy until it runs.
    let dead = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    // Safe: the path is a short one, and the lengths are those of what is pointed to.
    unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: folder.path.utf8) }
    let isBound = unsafe withUnsafePointer(to: &address) {
      unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        unsafe bind(dead, $0, socklen_t(MemoryLayout<sockaddr_un>.size)) == 0
      }
    }
    close(dead)
    try #require(isBound)
    let successor = try serve()
    #expect(try RawStoreClient(folder.path).ask(.read, "/\0") == "read ")
    successor.close()
  }

  @Test func anotherFileInItsPlaceStays() throws {
    let socket = try serve()
    _ = unsafe unlink(folder.path)
    let successor = try serve()
    socket.close()
    #expect(try RawStoreClient(folder.path).ask(.read, "/\0") == "read ")
    successor.close()
  }

  @Test func fileThatIsNoSocketIsRefusedAndStays() throws {
    let file = try FileDescriptor.open(
      FilePath(folder.path), .writeOnly, options: .create, permissions: .ownerReadWrite)
    try file.close()
    #expect(refusal(folder.path) == "\(folder.path) is there already, and is no socket: give another path")
    #expect(folder.isThere)
    #expect(refusal(folder.folder) == "\(folder.folder) is there already, and is no socket: give another path")
  }

  @Test func pathMustFitAnAddress() throws {
    let fitting = folder.folder + "/" + String(repeating: "a", count: 106 - folder.folder.utf8.count)
    #expect(refusal(fitting) == nil)
    #expect(
      refusal(fitting + "a")
        == "the socket's path \(fitting)a has 108 bytes, and no more than 107 are possible: give a shorter one, such as "
        + "one relative to the current folder")
    #expect(refusal("") == "the socket of the store needs a path")
  }

  @Test func folderMustBeThere() {
    #expect(
      refusal(folder.path + "/socket")
        == "the folder \(folder.path) of the socket cannot be opened: No such file or directory")
  }
}
