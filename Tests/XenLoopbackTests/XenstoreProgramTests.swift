import Foundation
import SystemPackage
import Testing
import XenLoopback
import XenPlatform

/// Real clients look into a running in-process system, and change it.
@Suite(.enabled(if: StorePrograms.areThere, StorePrograms.reason)) struct XenstoreProgramTests {
  private let xen = Domains()
  private let folder: SocketFolder
  private let socket: XenstoreSocket
  private let store: any Xenstore
  private let programs: StorePrograms

  init() throws {
    folder = try SocketFolder()
    socket = try XenstoreSocket(serving: xen.loopback, at: FilePath(folder.path))
    store = try xen.control.openXenstore()
    programs = StorePrograms(path: folder.path)
  }

  @Test func xenstoreLsShowsTheTree() throws {
    try xen.one.openXenstore().write("data/key", Array("value".utf8), in: nil)
    #expect(
      try programs.run("xenstore-ls", "-f", "-p", "/local/domain/1")
        == .init(
          """
          /local/domain/1/data = ""   (n1)
          /local/domain/1/data/key = "value"   (n1)

          """))
    #expect(
      try programs.run("xenstore-ls").output.hasPrefix(
        """
        local = ""
         domain = ""
          0 = ""
          1 = ""
           data = ""
            key = "value"
          2 = ""

        """))
  }

  /// It comes in parts.
  @Test func xenstoreLsShowsAListLongerThanAMessage() throws {
    let names = (0..<1000).map { "child-number-\($0)" }
    for name in names { try store.write("/a/\(name)", [], in: nil) }
    #expect(try programs.run("xenstore-list", "/a") == .init(names.joined(separator: "\n") + "\n"))
    #expect(try programs.run("xenstore-ls", "/a").output.split(separator: "\n").count == 1000)
  }

  @Test func xenstoreWriteAndReadSeeTheSameStore() throws {
    #expect(try programs.run("xenstore-write", "/a/b", "one", "/a/c", "two") == .init(""))
    #expect(try store.read("/a/b", in: nil) == Array("one".utf8))
    try store.write("/a/b", Array("three".utf8), in: nil)
    #expect(try programs.run("xenstore-read", "-p", "/a/b", "/a/c") == .init("/a/b: three\n/a/c: two\n"))
    #expect(try programs.run("xenstore-read", "/none") == .init("xenstore-read: couldn't read path /none\n", 1))
  }

  @Test func xenstoreExistsRmAndListDoWhatTheySay() throws {
    try store.write("/a/b/c", [], in: nil)
    #expect(try programs.run("xenstore-exists", "/a/b") == .init(""))
    #expect(try programs.run("xenstore-list", "/a") == .init("b\n"))
    #expect(try programs.run("xenstore-rm", "/a/b") == .init(""))
    #expect(try programs.run("xenstore-exists", "/a/b").exitCode == 1)
    #expect(try store.directory("/a", in: nil) == [])
    #expect(try programs.run("xenstore-rm", "/none/none").exitCode == 1)
  }

  @Test func xenstoreChmodSetsPermissions() throws {
    try store.write("/a/b", [], in: nil)
    #expect(try programs.run("xenstore-chmod", "-r", "/a", "n1", "r2", "b0") == .init(""))
    let expected = [
      XenstorePermission(xen.one.domain, .none), XenstorePermission(xen.two.domain, .read),
      XenstorePermission(.zero, .both),
    ]
    #expect(try store.permissions("/a", in: nil) == expected)
    #expect(try store.permissions("/a/b", in: nil) == expected)
  }

  @Test func xenstoreWatchPrintsEachChange() throws {
    let (process, output) = try programs.start("xenstore-watch", "-n", "4", "/a", "@releaseDomain")
    var printed = ""
    func read(until line: String) throws {
      while !printed.hasSuffix(line + "\n") {
        let bytes = output.availableData
        try #require(!bytes.isEmpty, "xenstore-watch ended: \(printed)")
        printed += String(decoding: bytes, as: UTF8.self)
      }
    }
    try read(until: "@releaseDomain")
    try store.write("/a/b", [], in: nil)
    try read(until: "/a/b")
    xen.loopback.destroy(xen.two.domain)
    try read(until: "@releaseDomain")
    process.waitUntilExit()
    #expect(process.terminationStatus == 0)
    #expect(printed == "/a\n@releaseDomain\n/a/b\n@releaseDomain\n")
  }

  @Test func testXenstoreFindsNoFault() throws {
    let run = try programs.run("test-xenstore")
    #expect(run.exitCode == 0)
    // A line for each of its tests, with what it took.
    #expect(run.output.matches(of: /(?m)^[a-z0-9 ]+: +[0-9]+ ns$/).count == 12, "\(run.output)")
  }

  @Test func testXenstoreFindsNoFaultAtRandom() throws {
    let run = try programs.run("test-xenstore", "-r", "1")
    #expect(run.exitCode == 0, "\(run.output)")
  }

  /// Nodes, permissions, a transaction in conflict, a watch: a client with a codec of its own.
  @Test func pyxsLooksInAndChangesWhatItSees() throws {
    try xen.one.openXenstore().write("data/key", Array("value".utf8), in: nil)
    let run = try programs.python(
      #"""
      from pyxs import Client, PyXSError
      with Client() as c, Client() as other:
          print(c[b"/local/domain/1/data/key"], c.list(b"/local/domain/1"), c.get_perms(b"/local/domain/1/data"))
          print(c.get_domain_path(1), c.is_domain_introduced(1), c.is_domain_introduced(9))
          c[b"/p/a"] = b"one"
          c.set_perms(b"/p/a", [b"n0", b"r1"])
          print(c.exists(b"/p/a"), c.exists(b"/p/b"), c.get_perms(b"/p/a"))
          c.transaction()
          c[b"/p/a"] = b"two"
          other[b"/p/a"] = b"three"
          print(c.commit(), c[b"/p/a"])
          c.transaction()
          c[b"/p/a"] = b"four"
          print(c.commit(), other[b"/p/a"])
          monitor = other.monitor()
          monitor.watch(b"/p", b"token")
          events = monitor.wait()
          print(*next(events))
          c.delete(b"/p/a")
          print(*next(events))
          try:
              c.introduce_domain(9, 1, 1)
          except PyXSError as error:
              print(error.args[0])
      """#)
    #expect(
      run
        == .init(
          """
          b'value' [b'data'] [b'n1']
          b'/local/domain/1' True False
          True False [b'n0', b'r1']
          False b'three'
          True b'four'
          b'/p' b'token'
          b'/p/a' b'token'
          13

          """))
    #expect(try store.directory("/p", in: nil) == [])
  }
}
