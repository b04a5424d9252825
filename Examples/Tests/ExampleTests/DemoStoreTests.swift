import Foundation
import Testing

/// What `demo --xenstore-socket` lets one look into.
final class DemoStoreTests {
  private let demo = Tool(name: "demo")
  private let folder: URL
  private let arguments: [String]
  private var socket: URL { folder.appending(path: "xenstore") }

  init() throws {
    folder = FileManager.default.temporaryDirectory.appending(path: "swift-xen-\(UUID().uuidString.prefix(8))")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
    let image = folder.appending(path: "disk.img")
    try Data(repeating: 1, count: 4096).write(to: image)
    // A capture without packets.
    let pcap = folder.appending(path: "packets.pcap")
    try Data([0xD4, 0xC3, 0xB2, 0xA1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 1, 0, 0, 0]).write(to: pcap)
    arguments = ["--image", image.path, "--pcap", pcap.path, "--crossed", folder.path + "/crossed.pcap"]
  }

  deinit { try? FileManager.default.removeItem(at: folder) }

  /// A demo that holds, begun and looked into, and ended.
  private func hold(
    input: Any, lookInto: (Process) throws -> Void
  ) throws -> Tool.Run {
    let process = Process()
    process.executableURL = demo.url
    process.arguments = arguments + ["--xenstore-socket", socket.path, "--hold"]
    let (output, error) = (Pipe(), Pipe())
    (process.standardOutput, process.standardError, process.standardInput) = (output, error, input)
    try process.run()
    // It may be deaf to what else would end it.
    let giveUp = DispatchWorkItem { kill(process.processIdentifier, SIGKILL) }
    DispatchQueue.global().asyncAfter(deadline: .now() + 60, execute: giveUp)
    defer { giveUp.cancel() }
    var printed = ""
    while !printed.hasSuffix(" until Enter or Ctrl-C\n") {
      let bytes = output.fileHandleForReading.availableData
      guard !bytes.isEmpty else { break }
      printed += String(decoding: bytes, as: UTF8.self)
    }
    #expect(
      printed.hasPrefix("the store is at \(socket.path); to look in: XENSTORED_PATH=\(socket.path) xenstore-ls -f\n"))
    do { try lookInto(process) } catch {
      kill(process.processIdentifier, SIGKILL)
      throw error
    }
    let rest = [output, error].map { String(decoding: $0.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self) }
    process.waitUntilExit()
    #expect(process.terminationReason == .exit)
    #expect(!FileManager.default.fileExists(atPath: socket.path))
    return Tool.Run(output: printed + rest[0], error: rest[1], exitCode: process.terminationStatus)
  }

  private func expectSummary(_ run: Tool.Run) {
    #expect(run.exitCode == 0 && run.error.isEmpty, "\(run.error)")
    #expect(run.output.contains("\nThey agree.\n") && run.output.contains("All 0 packets came back"))
  }

  @Test(.enabled(if: XenstorePrograms.areThere, XenstorePrograms.reason))
  func xenstoreLsFindsTheConnectedDevicesUntilEnter() throws {
    let input = Pipe()
    let run = try hold(input: input) { _ in
      let nodes = try XenstorePrograms.run("xenstore-ls", "-f", "/local/domain", at: socket)
      for (front, back) in [
        ("2/device/vbd/51712", "1/backend/vbd/2/51712"), ("2/device/vbd/51728", "1/backend/vbd/2/51728"),
        ("2/device/vif/0", "1/backend/vif/2/0"),
      ] {
        for end in [front, back] { #expect(nodes.contains("/local/domain/\(end)/state = \"4\"\n"), "\(nodes)") }
        #expect(nodes.contains("/local/domain/\(front)/backend = \"/local/domain/\(back)\"\n"))
      }
      try input.fileHandleForWriting.write(contentsOf: Data("\n".utf8))
    }
    expectSummary(run)
  }

  /// Also where nobody can press Enter.
  @Test(arguments: [SIGINT, SIGTERM]) func signalEndsTheHold(number: CInt) throws {
    expectSummary(try hold(input: FileHandle.nullDevice) { kill($0.processIdentifier, number) })
  }

  @Test func socketIsGoneWithTheProgram() throws {
    let run = try demo.run(arguments + ["--xenstore-socket", socket.path])
    expectSummary(run)
    #expect(!FileManager.default.fileExists(atPath: socket.path))
  }

  @Test func placeOfAnotherFileIsRefused() throws {
    let image = arguments[1]
    let run = try demo.run(arguments + ["--xenstore-socket", image])
    #expect(run.error == "Error: \(image) is there already, and is no socket: give another path\n")
    #expect(run.output.isEmpty && run.exitCode == 1)
  }

  @Test func holdIsForLookingIn() throws {
    try demo.expectUsage("--hold is for looking in: give --xenstore-socket too.", "--hold")
  }

  @Test func helpNamesBothOptions() throws {
    let run = try demo.run("--help")
    for option in ["--xenstore-socket <path>", "--hold"] {
      #expect(run.output.contains(try Regex("\n  \(option)\\s+[A-Z][^\n]+")), "\(option)")
    }
    #expect(run.output.contains("XENSTORED_PATH=xenstore xenstore-ls -f"))
  }
}

/// Xen's own clients of its store; `make programs` puts them into `.rig/programs`.
enum XenstorePrograms {
  static let reason: Comment = "xenstore's programs are not in .rig/programs: run make programs"
  static var areThere: Bool { FileManager.default.isExecutableFile(atPath: folder.path + "/xenstore-ls") }

  private static let folder = URL(filePath: #filePath).deletingLastPathComponent()
    .appending(path: "../../../.rig/programs").standardized

  /// What one prints that looks into the store whose socket is at `socket`.
  static func run(_ name: String, _ arguments: String..., at socket: URL) throws -> String {
    let process = Process()
    process.executableURL = folder.appending(path: name)
    process.arguments = arguments
    process.environment = ["XENSTORED_PATH": socket.path]
    let output = Pipe()
    process.standardOutput = output
    try process.run()
    let printed = output.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    #expect(process.terminationStatus == 0)
    return String(decoding: printed, as: UTF8.self)
  }
}
