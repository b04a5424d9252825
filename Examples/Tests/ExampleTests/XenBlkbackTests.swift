import Foundation
import Testing

struct XenBlkbackTests {
  private let tool = Tool(name: "xen-blkback")

  private static let path = "/local/domain/0/backend/ublk/1/51712"

  @Test(arguments: [
    (
      "serve",
      ["<backend-path>", "--image <file>", "--read-only", "--close", "--barriers-only", "--log-level <level>"]
    ),
    ("watch", ["--type <name>", "--close", "--barriers-only", "--log-level <level>"]),
  ])
  func helpNamesEveryOption(subcommand: String, options: [String]) throws {
    let run = try tool.run(subcommand, "--help")
    for option in options {
      // With what it does, on its line or the next.
      #expect(run.output.contains(try Regex("\n  \(option)\\s+[A-Z][^\n]+")), "\(option)")
    }
    #expect(run.output.contains("\nUSAGE: xen-blkback \(subcommand) "))
    #expect(run.error.isEmpty && run.exitCode == 0)
  }

  @Test func helpSaysWhatSignalsDo() throws {
    // Wherever its lines break.
    let help = try tool.run("--help").output.split(whereSeparator: \.isWhitespace).joined(separator: " ")
    #expect(help.contains("SIGTERM and SIGINT detach") && help.contains("loses them for good"))
  }

  @Test func pathIsAbsolute() throws {
    try tool.expectUsage(
      "The backend path is absolute, such as \(Self.path).", "serve", "backend/ublk/1/51712")
  }

  @Test func typeIsOneName() throws {
    try tool.expectUsage("A type is one name, such as ublk.", "watch", "--type", "backend/ublk")
  }

  @Test func logLevelIsOneOfTheLoggers() throws {
    let run = try tool.run("watch", "--log-level", "loud")
    #expect(run.error.contains("'loud' is invalid for '--log-level <level>'") && run.error.contains("warning"))
    #expect(run.exitCode == 64)
  }

  @Test(
    .disabled(if: FileManager.default.fileExists(atPath: "/sys/hypervisor/type"), "this machine is a Xen domain"),
    arguments: [["watch", "--type=ublk"], ["serve", path]])
  func machineWithoutXenIsToldSo(arguments: [String]) throws {
    let run = try tool.run(arguments)
    #expect(run.error.hasPrefix("Error: this machine is not a Xen domain"))
    #expect(run.error.split(separator: "\n").count == 1)
    #expect(run.output.isEmpty && run.exitCode == 1)
  }
}
