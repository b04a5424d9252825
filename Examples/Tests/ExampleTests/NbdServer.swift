import Foundation
import Testing

/// A `blk-nbd` at work on an image of its own, in a folder of its own; both end with it.
final class NbdServer {
  let folder: URL
  let image: URL
  let socket: URL
  private let process = Process()
  private let output = Pipe()
  private let error = Pipe()
  /// What it printed up to its ready line.
  let ready: String

  /// Makes the image, starts the server and waits until it is ready.
  ///
  /// - Parameter content: what is in the image; nil for zeroes.
  convenience init(byteCount: Int = 1 << 20, content: Data? = nil, arguments: String...) throws {
    try self.init(byteCount: byteCount, content: content, argumentList: arguments)
  }

  init(byteCount: Int, content: Data? = nil, argumentList arguments: [String]) throws {
    folder = try Self.temporaryFolder()
    image = folder.appending(path: "disk.img")
    socket = folder.appending(path: "nbd.sock")
    try (content ?? Data()).write(to: image)
    if content == nil { try Self.resize(image, to: byteCount) }
    ready = try Self.start(
      process, ["--image", image.path, "--socket", socket.path] + arguments, output, error)
  }

  /// Serves what another one serves, or has served.
  init(image: URL, socket: URL, arguments: String...) throws {
    folder = try Self.temporaryFolder()
    (self.image, self.socket) = (image, socket)
    ready = try Self.start(
      process, ["--image", image.path, "--socket", socket.path] + arguments, output, error)
  }

  deinit {
    if process.isRunning { kill(process.processIdentifier, SIGKILL) }
    process.waitUntilExit()
    try? FileManager.default.removeItem(at: folder)
  }

  static func temporaryFolder() throws -> URL {
    let folder = FileManager.default.temporaryDirectory.appending(path: "swift-xen-\(UUID().uuidString.prefix(8))")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
    return folder
  }

  static func resize(_ file: URL, to byteCount: Int) throws {
    let handle = try FileHandle(forWritingTo: file)
    try handle.truncate(atOffset: UInt64(byteCount))
    try handle.close()
  }

  private static func start(_ process: Process, _ arguments: [String], _ output: Pipe, _ error: Pipe) throws -> String {
    process.executableURL = Tool(name: "blk-nbd").url
    process.arguments = arguments
    (process.standardOutput, process.standardError, process.standardInput) = (output, error, FileHandle.nullDevice)
    try process.run()
    // It ends when the line does, or when the process does.
    var line: [UInt8] = []
    while line.last != 0x0A, let byte = try output.fileHandleForReading.read(upToCount: 1)?.first { line.append(byte) }
    if line.last != 0x0A {
      let said = String(decoding: error.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
      try #require(Bool(false), "blk-nbd did not come up: \(said)")
    }
    return String(decoding: line.dropLast(), as: UTF8.self)
  }

  var uri: String { "nbd+unix:///?socket=\(socket.path)" }
  var identifier: pid_t { process.processIdentifier }

  /// The image's bytes as they are now.
  func contents() throws -> Data { try Data(contentsOf: image) }

  func send(signal: CInt) { kill(process.processIdentifier, signal) }

  /// Waits for its end, which a signal has brought about.
  ///
  /// - Returns: what it printed since it was ready.
  func end() throws -> Tool.Run {
    let printed = [output, error].map {
      String(decoding: $0.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    }
    process.waitUntilExit()
    #expect(process.terminationReason == .exit, "blk-nbd ended by signal \(process.terminationStatus)")
    return Tool.Run(output: printed[0], error: printed[1], exitCode: process.terminationStatus)
  }

  /// Ends it with SIGTERM, and expects it to have had nothing to complain about.
  @discardableResult
  func stop(complaints: String = "") throws -> String {
    send(signal: SIGTERM)
    let run = try end()
    #expect(run.error == complaints)
    #expect(run.exitCode == 0)
    return run.output
  }

  /// Kills it, so that its socket stays.
  func crash() {
    kill(process.processIdentifier, SIGKILL)
    process.waitUntilExit()
  }

  /// The most memory that it has had, in bytes.
  func peakMemory() throws -> Int {
    let status = try String(contentsOfFile: "/proc/\(identifier)/status", encoding: .utf8)
    let line = try #require(status.split(separator: "\n").first { $0.hasPrefix("VmHWM:") })
    return try #require(Int(line.split(separator: " ")[1].filter(\.isNumber))) * 1024
  }
}
