import CXenstoredEnvironment
import Foundation
import Synchronization
import XenNative
import XenPlatform

/// A real xenstored of one test's own, without a hypervisor under it: it thinks that it runs in the control domain, and
/// serves a socket. Its store is in its memory, and it ends with this object, or with the test's process.
package final class Xenstored: Sendable {
  /// Why there is none on this machine; nil when there is.
  package static var absence: String? {
    #if canImport(CXen)
      XenPrograms.absence
    #else
      "libxen-dev is not installed"
    #endif
  }

  /// What the stub and xenstored itself have between them.
  let folder: String
  private let program: Mutex<ChildProgram?>
  private static let lock = NSLock()

  /// - Parameter domains: those besides the control domain that are there from the start, each with a home in the store like that one's.
  package init(domains: [DomainID] = []) throws {
    let stub = try XenPrograms.stub()
    var template = Array("/tmp/xenstored-XXXXXX\0".utf8CString)
    // Safe: mkdtemp writes within the string that it was given.
    let made = unsafe template.withUnsafeMutableBufferPointer { unsafe mkdtemp($0.baseAddress!) != nil }
    guard made else { throw XenstoredError("cannot make a folder in /tmp: \(ChildProgram.words(for: errno))") }
    folder = String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    // The loader takes a space or a colon for the end of a name, and a clone may lie wherever it likes.
    let preloaded = folder + "/stub.so"
    let program: ChildProgram
    do throws(XenstoredError) {
      guard unsafe symlink(stub, preloaded) == 0 else {
        throw XenstoredError("cannot make the link \(preloaded): \(ChildProgram.words(for: errno))")
      }
      program = try ChildProgram(
        [XenPrograms.path(of: "xenstored"), "--no-fork", "--output-pid"],
        environment: [
          "LD_PRELOAD=\(preloaded)", "XENSTORED_STUB_FOLDER=\(folder)", "XENSTORED_PATH=\(folder)/socket",
          "XENSTORED_RUNDIR=\(folder)", "XENSTORED_ROOTDIR=\(folder)",
        ])
    } catch {
      try? FileManager.default.removeItem(atPath: folder)
      throw error
    }
    self.program = Mutex(program)
    // It says its number when it listens.
    let words = program.read { $0.contains("\n") }
    guard words.hasPrefix("\(program.process)\n") else { throw XenstoredError("xenstored does not start: \(words)") }
    for domain in [.zero] + domains { try add(domain) }
  }

  deinit { end() }

  /// Ends xenstored, as nobody does on a machine that goes on.
  package func end() {
    let program = program.withLock { program in
      defer { program = nil }
      return program
    }
    guard let program else { return }
    kill(program.process, SIGKILL)
    _ = program.end()
    try? FileManager.default.removeItem(atPath: folder)
  }

  /// A new connection through libxenstore, with the control domain's rights.
  package func connect() throws(XenstoreError) -> any Xenstore {
    do throws(NativePlatformError) {
      return try opening { () throws(NativePlatformError) in
        #if canImport(CXen)
          return try NativeXenstore()
        #else
          throw .notXen
        #endif
      }
    } catch { throw XenstoreError(.system(error.description), "open", "") }
  }

  /// While `body` runs, xs_open opens a connection to this one.
  func opening<Result, Failure: Error>(_ body: () throws(Failure) -> Result) throws(Failure) -> Result {
    // Safe: the string is there as long as the process.
    let link = unsafe String(cString: xenstored_socket_link())
    Self.lock.lock()
    defer { Self.lock.unlock() }
    _ = unsafe symlink(folder + "/socket", link)
    defer { _ = unsafe unlink(link) }
    return try body()
  }

  /// Lets a domain come into being, as the hypervisor and then the toolstack do: it has a home, which it owns.
  package func add(_ domain: DomainID) throws {
    try FileManager.default.createFileOrThrow(folder + "/domain-\(domain.rawValue)")
    let (store, home) = (try connect(), "/local/domain/\(domain.rawValue)")
    try store.makeDirectory(home, in: nil)
    try store.setPermissions(home, [XenstorePermission(domain, .none)], in: nil)
  }
}

/// Why a test's xenstored does not do what it is needed for.
struct XenstoredError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

extension FileManager {
  fileprivate func createFileOrThrow(_ path: String) throws {
    if !createFile(atPath: path, contents: nil) { throw XenstoredError("cannot make the file \(path)") }
  }
}
