import Foundation
import Testing

/// What `blk-nbd` takes for an image.
struct BlkNbdStoreTests {
  private let tool = Tool(name: "blk-nbd")

  private static func pattern(_ byteCount: Int) -> Data {
    Data((0..<byteCount).map { UInt8(truncatingIfNeeded: $0 ^ $0 >> 9) })
  }

  private func key(_ bytes: [UInt8], in folder: URL) throws -> URL {
    let file = folder.appending(path: "key-\(bytes[0])")
    try Data(bytes).write(to: file)
    return file
  }

  @Test func helpSaysWhatAnImageCanBe() throws {
    let help = try tool.run("--help").output
    for option in ["--store <kind>", "--base <file>", "--key-file <file>", "--direct <mode>", "--no-io-uring"] {
      #expect(help.contains(try Regex("\n  \(option)\\s+[A-Z][^\n]+")), "\(option)")
    }
    for example in ["--store overlay --base disk.img", "--store nbd --image qemu.sock", "--key-file key"] {
      #expect(help.contains(example))
    }
  }

  @Test func encryptedImageIsReadWithItsKeyAlone() throws {
    let first = try NbdServer()
    let rightKey = try key([UInt8](0..<32), in: first.folder)
    let wrongKey = try key([UInt8](1...32), in: first.folder)
    try first.stop()
    let clear = [UInt8](Self.pattern(4096))
    let sealing = try NbdServer(image: first.image, socket: first.socket, arguments: "--key-file", rightKey.path)
    #expect(try RawNbdClient(to: sealing).write(512, clear) == 0)
    #expect(try RawNbdClient(to: sealing).read(512, 4096).bytes == clear)
    try sealing.stop()
    let raw = try Data(contentsOf: first.image)
    #expect(raw[512..<4608] != Data(clear))
    let again = try NbdServer(image: first.image, socket: first.socket, arguments: "--key-file", rightKey.path)
    #expect(try RawNbdClient(to: again).read(512, 4096).bytes == clear)
    try again.stop()
    let wrong = try NbdServer(image: first.image, socket: first.socket, arguments: "--key-file", wrongKey.path)
    let read = try RawNbdClient(to: wrong).read(512, 4096)
    #expect(read.error == 0 && read.bytes.count == 4096 && read.bytes != clear)
  }

  /// The layout is dm-crypt's, and not one of our own: openssl finds the same bytes.
  @Test(.enabled(if: Tool.isInstalled("openssl"), "there is no openssl")) func sectorsAreEncryptedAsElsewhere() throws {
    let first = try NbdServer()
    let key = try key([UInt8](0..<32), in: first.folder)
    try first.stop()
    let server = try NbdServer(image: first.image, socket: first.socket, arguments: "--key-file", key.path)
    let clear = Self.pattern(512)
    #expect(try RawNbdClient(to: server).write(3 * 512, [UInt8](clear)) == 0)
    try server.stop()
    func hex(_ bytes: some Sequence<UInt8>) -> String { bytes.map { String(format: "%02x", $0) }.joined() }
    func openssl(_ mode: String, key: String, iv: [String], _ input: Data) throws -> Data {
      let (from, to) = (first.folder.appending(path: "in"), first.folder.appending(path: "out"))
      try input.write(to: from)
      let run = try Tool(installed: "openssl").run(
        ["enc", "-e", "-nopad", mode, "-K", key] + iv + ["-in", from.path, "-out", to.path])
      try #require(run.exitCode == 0, "\(run.error)")
      return try Data(contentsOf: to)
    }
    let digest = try Tool(installed: "openssl").run(["dgst", "-sha256", "-r", key.path]).output.prefix(64)
    let iv = try openssl("-aes-256-ecb", key: String(digest), iv: [], Data([3] + [UInt8](repeating: 0, count: 15)))
    let sealed = try openssl("-aes-256-cbc", key: hex(0..<32), iv: ["-iv", hex(iv)], clear)
    #expect(try Data(contentsOf: first.image)[1536..<2048] == sealed)
  }

  @Test func overlayKeepsItsBase() throws {
    let content = Self.pattern(1 << 20)
    let first = try NbdServer(content: content)
    try first.stop()
    let changes = first.folder.appending(path: "changes")
    func serve() throws -> NbdServer {
      try NbdServer(
        image: changes, socket: first.socket, arguments: "--store", "overlay", "--base", first.image.path)
    }
    let server = try serve()
    #expect(try RawNbdClient(to: server).write(4096, [UInt8](repeating: 7, count: 1024)) == 0)
    try server.stop()
    let again = try serve()
    #expect(try RawNbdClient(to: again).read(4096, 1024).bytes == [UInt8](repeating: 7, count: 1024))
    #expect(try RawNbdClient(to: again).read(8192, 512).bytes == [UInt8](content[8192..<8704]))
    #expect(try Data(contentsOf: first.image) == content)
  }

  @Test func readOnlyOverlayShowsWhatWasWrittenAndTakesNothing() throws {
    let content = Self.pattern(1 << 16)
    let first = try NbdServer(content: content)
    try first.stop()
    let changes = first.folder.appending(path: "changes")
    let arguments = ["--store", "overlay", "--base", first.image.path]
    let writable = try NbdServer(
      image: changes, socket: first.socket, arguments: arguments[0], arguments[1], arguments[2], arguments[3])
    #expect(try RawNbdClient(to: writable).write(4096, [UInt8](repeating: 7, count: 512)) == 0)
    try writable.stop()
    let server = try NbdServer(
      image: changes, socket: first.socket, arguments: arguments[0], arguments[1], arguments[2], arguments[3],
      "--read-only")
    let client = try RawNbdClient(to: server)
    #expect(try client.write(4096, [UInt8](repeating: 8, count: 512)) == 1, "EPERM")
    #expect(try client.write(0, [UInt8](repeating: 8, count: 512), flags: 1) == 1, "EPERM")
    #expect(try client.read(4096, 1024).bytes == [UInt8](repeating: 7, count: 512) + [UInt8](content[4608..<5120]))
    try server.stop()
    #expect(try Data(contentsOf: first.image) == content)
  }

  @Test func readOnlyDiskInMemoryTakesNothing() throws {
    let folder = try NbdServer()
    let server = try NbdServer(
      image: URL(filePath: "/1M"), socket: folder.folder.appending(path: "memory.sock"), arguments: "--store", "memory",
      "--image", "1M", "--read-only")
    let client = try RawNbdClient(to: server)
    #expect(try client.write(512, [UInt8](repeating: 8, count: 512)) == 1, "EPERM")
    #expect(try client.read(512, 512).bytes == [UInt8](repeating: 0, count: 512))
  }

  @Test func serversDiskIsServedOn() throws {
    let content = Self.pattern(1 << 20)
    let first = try NbdServer(content: content)
    let second = try NbdServer(
      image: first.socket, socket: first.folder.appending(path: "second.sock"), arguments: "--store", "nbd")
    #expect(try RawNbdClient(to: second).read(512, 8192).bytes == [UInt8](content[512..<8704]))
    #expect(try RawNbdClient(to: second).write(0, [UInt8](repeating: 9, count: 512)) == 0)
    #expect(try RawNbdClient(to: first).read(0, 512).bytes == [UInt8](repeating: 9, count: 512))
  }

  @Test func diskInMemoryHasTheSizeThatIsGiven() throws {
    let folder = try NbdServer()
    let server = try NbdServer(
      image: URL(filePath: "/2M"), socket: folder.folder.appending(path: "memory.sock"), arguments: "--store", "memory",
      "--image", "2M")
    #expect(server.ready.contains("serving 2M, 2 MiB"))
    #expect(try RawNbdClient(to: server).read((2 << 20) - 512, 512).bytes == [UInt8](repeating: 0, count: 512))
  }

  @Test func whatIsNoImageIsRefused() throws {
    func refuse(_ sentence: String, _ arguments: String...) throws {
      let run = try tool.run(["--socket", "nbd.sock"] + arguments)
      #expect(run.error.contains(sentence) && run.output.isEmpty && run.exitCode != 0, "\(run.error)")
    }
    try refuse("--base and --store overlay belong together", "--image", "x", "--store", "overlay")
    try refuse("--base and --store overlay belong together", "--image", "x", "--base", "y")
    try refuse(
      "many is no size of a disk in memory: give one such as 64M or 1G", "--image", "many", "--store", "memory")
    try refuse("the NBD server /nowhere cannot be connected to: ", "--image", "/nowhere", "--store", "nbd")
    let key = FileManager.default.temporaryDirectory.appending(path: "swift-xen-key-\(UUID().uuidString)")
    try Data([1, 2, 3]).write(to: key)
    defer { try? FileManager.default.removeItem(at: key) }
    try refuse(
      "the key \(key.path) has 3 bytes, and AES takes 16, 24 or 32", "--image", "1M", "--store", "memory", "--key-file",
      key.path)
  }
}
