import Foundation
import Testing

/// The command line of `blk-nbd`, and what it does with its image and its socket.
struct BlkNbdTests {
  private let tool = Tool(name: "blk-nbd")

  @Test func helpNamesEveryOptionAndShowsClients() throws {
    let run = try tool.run("--help")
    for option in [
      "--image <file>", "--socket <path>", "--read-only", "--queues <count>", "--ring-order <order>",
      "--indirect <pages>", "--persistent/--no-persistent", "-h, --help",
    ] {
      // With what it does, on its line or the next.
      #expect(run.output.contains(try Regex("\n  \(option)\\s+[A-Z][^\n]+")), "\(option)")
    }
    for client in ["nbdinfo", "nbdcopy", "qemu-io"] { #expect(run.output.contains("\n  \(client) ")) }
    #expect(run.output.contains("\nUSAGE: blk-nbd "))
    #expect(run.error.isEmpty && run.exitCode == 0)
  }

  @Test func imageAndSocketAreNeeded() throws {
    try tool.expectUsage("Missing expected argument '--image <file>'", "--socket", "nbd.sock")
    try tool.expectUsage("Missing expected argument '--socket <path>'", "--image", "disk.img")
  }

  @Test(arguments: [
    ("--queues", "0", "1 to 4"), ("--queues", "5", "1 to 4"), ("--ring-order", "5", "0 to 4"),
    ("--indirect", "257", "0 to 256"),
  ])
  func numberOutsideItsRangeIsRefused(option: String, value: String, range: String) throws {
    try tool.expectUsage(
      "\(option) takes a number from \(range)", "--image", "disk.img", "--socket", "nbd.sock", option, value)
  }

  @Test func readyLineSaysWhatIsServedWhere() throws {
    let server = try NbdServer(byteCount: 64 << 20)
    #expect(server.ready == "blk-nbd: serving \(server.image.path), 64 MiB, at \(server.uri)")
  }

  @Test(arguments: [SIGINT, SIGTERM]) func signalEndsItWithTheCountsAndWithoutTheSocket(signal: CInt) throws {
    let server = try NbdServer()
    server.send(signal: signal)
    let run = try server.end()
    #expect(
      run.output == """
        blk-nbd: served 0 clients: 0 reads of 0 bytes, 0 writes of 0 bytes, 0 of them durable, 0 flushes, 0 failed; \
        the disk carried out 0 reads, 0 writes, 0 flushes

        """)
    #expect(run.error.isEmpty && run.exitCode == 0)
    #expect(!FileManager.default.fileExists(atPath: server.socket.path))
  }

  // MARK: The image

  /// Expects a refusal in the folder of a server that goes on.
  private func expectRefusal(_ sentence: String, image: URL, socket: URL, beside server: NbdServer) throws {
    try tool.expectRefusal(sentence, "--image", image.path, "--socket", socket.path)
    #expect(try RawNbdClient(to: server).flush() == 0)
    try server.stop()
  }

  @Test func missingImageIsNamed() throws {
    let server = try NbdServer()
    let image = server.folder.appending(path: "none.img")
    try expectRefusal(
      "the image \(image.path) cannot be opened: No such file or directory", image: image,
      socket: server.folder.appending(path: "other.sock"), beside: server)
  }

  @Test func partOfASectorIsRefused() throws {
    let server = try NbdServer()
    let image = server.folder.appending(path: "odd.img")
    try Data(count: 1000).write(to: image)
    try expectRefusal(
      "the image \(image.path) has 1000 bytes, which is not a multiple of 512: pad it or give another one",
      image: image,
      socket: server.folder.appending(path: "other.sock"), beside: server)
  }

  @Test func imageInUseIsRefused() throws {
    let server = try NbdServer()
    try expectRefusal(
      "the image \(server.image.path) is in use by another program", image: server.image,
      socket: server.folder.appending(path: "other.sock"), beside: server)
  }

  @Test func twoServersMayReadOneImage() throws {
    let content = Data((0..<4096).map { UInt8(truncatingIfNeeded: $0 >> 4) })
    let one = try NbdServer(content: content, arguments: "--read-only")
    let other = try NbdServer(
      image: one.image, socket: one.folder.appending(path: "other.sock"), arguments: "--read-only")
    for server in [one, other] {
      #expect(try RawNbdClient(to: server).read(512, 1024).bytes == Array(content[512..<1536]))
    }
  }

  // MARK: The socket

  @Test func socketAtWhichAServerListensIsRefused() throws {
    let server = try NbdServer()
    let image = server.folder.appending(path: "other.img")
    try Data(count: 512).write(to: image)
    try expectRefusal(
      "a server listens at \(server.socket.path) already: stop it, or give another path", image: image,
      socket: server.socket, beside: server)
  }

  @Test func socketOfAKilledServerIsTakenOver() throws {
    let killed = try NbdServer()
    killed.crash()
    #expect(FileManager.default.fileExists(atPath: killed.socket.path))
    let server = try NbdServer(image: killed.image, socket: killed.socket)
    #expect(try RawNbdClient(to: server).flush() == 0)
    try server.stop()
    #expect(!FileManager.default.fileExists(atPath: killed.socket.path))
  }

  @Test func fileInPlaceOfTheSocketIsRefusedAndStays() throws {
    let server = try NbdServer()
    let file = server.folder.appending(path: "file")
    try Data("keep".utf8).write(to: file)
    let image = server.folder.appending(path: "other.img")
    try Data(count: 512).write(to: image)
    try expectRefusal(
      "\(file.path) is there already, and is no socket: give another path", image: image, socket: file, beside: server)
    #expect(try Data(contentsOf: file) == Data("keep".utf8))
  }

  @Test func socketThatTookThePlaceOfOursStays() throws {
    let old = try NbdServer()
    try FileManager.default.removeItem(at: old.socket)
    let image = old.folder.appending(path: "other.img")
    try Data(count: 512).write(to: image)
    let new = try NbdServer(image: image, socket: old.socket)
    try old.stop()
    #expect(try RawNbdClient(to: new).flush() == 0)
  }

  @Test func overlongPathIsRefused() throws {
    let server = try NbdServer()
    let image = server.folder.appending(path: "other.img")
    try Data(count: 512).write(to: image)
    let socket = URL(filePath: "/" + String(repeating: "x", count: 107))
    try expectRefusal(
      "the socket's path has 108 bytes, and no more than 107 are possible: give a shorter one, such as one relative to the "
        + "current folder", image: image, socket: socket, beside: server)
  }

  @Test func missingFolderIsNamed() throws {
    let server = try NbdServer()
    let image = server.folder.appending(path: "other.img")
    try Data(count: 512).write(to: image)
    let folder = server.folder.appending(path: "none")
    try expectRefusal(
      "the folder \(folder.path) of the socket cannot be opened: No such file or directory", image: image,
      socket: folder.appending(path: "nbd.sock"), beside: server)
  }
}
