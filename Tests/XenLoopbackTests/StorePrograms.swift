import Foundation
import Testing

/// The programs of Xen's own that talk to a xenstore, and pyxs, a client that shares no code with them; `make programs` puts
/// them into `.rig/programs`.
struct StorePrograms {
  static let reason: Comment = "xenstore's programs are not in .rig/programs: run make programs"
  static var areThere: Bool { FileManager.default.fileExists(atPath: folder.path + "/python/pyxs") }

  private static let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(
    path: "../../.rig/programs"
  )
  .standardized

  /// The store's socket.
  let path: String

  /// What a program printed on either output, and how it ended.
  struct Run: Equatable {
    let output: String
    let exitCode: Int32

    init(_ output: String, _ exitCode: Int32 = 0) { (self.output, self.exitCode) = (output, exitCode) }
  }

  /// Runs one to its end; one that does not come within a minute is terminated.
  func run(_ name: String, _ arguments: String...) throws -> Run {
    try run(Self.folder.appending(path: name), arguments)
  }

  /// Runs a Python program that may import pyxs.
  func python(_ program: String) throws -> Run { try run(URL(filePath: "/usr/bin/env"), ["python3", "-c", program]) }

  private func run(_ program: URL, _ arguments: [String]) throws -> Run {
    let (process, output) = try start(program, arguments)
    let giveUp = DispatchWorkItem { process.terminate() }
    DispatchQueue.global().asyncAfter(deadline: .now() + 60, execute: giveUp)
    let printed = output.readDataToEndOfFile()
    process.waitUntilExit()
    giveUp.cancel()
    #expect(process.terminationReason == .exit, "\(program.lastPathComponent) did not end by itself")
    return Run(String(decoding: printed, as: UTF8.self), process.terminationStatus)
  }

  /// Starts one, which prints into the handle.
  func start(_ name: String, _ arguments: String...) throws -> (Process, FileHandle) {
    try start(Self.folder.appending(path: name), arguments)
  }

  private func start(_ program: URL, _ arguments: [String]) throws -> (Process, FileHandle) {
    let process = Process()
    process.executableURL = program
    process.arguments = arguments
    process.environment = ProcessInfo.processInfo.environment.merging([
      "XENSTORED_PATH": path, "PYTHONPATH": Self.folder.path + "/python", "PYTHONDONTWRITEBYTECODE": "1",
    ]) { $1 }
    let output = Pipe()
    (process.standardOutput, process.standardError) = (output, output)
    process.standardInput = FileHandle.nullDevice
    try process.run()
    return (process, output.fileHandleForReading)
  }
}
