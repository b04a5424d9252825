import Foundation
import Testing

/// One of the examples, or a program that is installed, run as a process of its own.
struct Tool {
  let name: String
  let url: URL

  /// An example: the build puts all of a package's programs, this one included, into one folder.
  init(name: String) {
    self.name = name
    url = URL(filePath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
      .appending(path: name)
  }

  /// What is found on the PATH; where nothing is, running it says so.
  init(installed name: String) {
    self.name = name
    url = Self.place(of: name) ?? URL(filePath: name)
  }

  static func isInstalled(_ name: String) -> Bool { place(of: name) != nil }

  private static func place(of name: String) -> URL? {
    (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":").map { URL(filePath: "\($0)/\(name)") }
      .first { FileManager.default.isExecutableFile(atPath: $0.path) }
  }

  /// What a run printed, and how it ended.
  struct Run {
    let output: String
    let error: String
    let exitCode: Int32
  }

  /// Runs it to its end; one that does not come within a minute is terminated, and its test fails by the exit code.
  func run(_ arguments: String...) throws -> Run { try run(arguments) }

  func run(_ arguments: [String]) throws -> Run {
    let process = Process()
    process.executableURL = url
    process.arguments = arguments
    let (output, error) = (Pipe(), Pipe())
    (process.standardOutput, process.standardError) = (output, error)
    process.standardInput = FileHandle.nullDevice
    try process.run()
    let giveUp = DispatchWorkItem { process.terminate() }
    DispatchQueue.global().asyncAfter(deadline: .now() + 60, execute: giveUp)
    // No run prints more to the second pipe than it holds while the first one is read.
    let printed = [output, error].map {
      String(decoding: $0.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    }
    process.waitUntilExit()
    giveUp.cancel()
    #expect(process.terminationReason == .exit, "\(name) ended by signal \(process.terminationStatus)")
    return Run(output: printed[0], error: printed[1], exitCode: process.terminationStatus)
  }

  /// Expects a refusal: nothing on the output, and one sentence of one line in place of a result.
  func expectRefusal(_ sentence: String, _ arguments: String...) throws {
    let process = try run(arguments)
    #expect(process.error == "Error: \(sentence)\n")
    #expect(process.output.isEmpty && process.exitCode == 1)
  }

  /// Expects the command line itself to be refused, by a sentence and the usage.
  func expectUsage(_ sentence: String, _ arguments: String...) throws {
    let process = try run(arguments)
    #expect(process.error.hasPrefix("Error: \(sentence)\n") && process.error.contains("\nUsage: \(name) "))
    #expect(process.output.isEmpty && process.exitCode == 64)
  }
}
