import Foundation
import Testing

struct XenBlkbackTests {
  private let tool = Tool(name: "xen-blkback")

  private static let path = "/local/domain/0/backend/ublk/1/51712"

  /// What both subcommands take.
  private static let common = [
    "--queues <count>", "--ring-order <order>", "--indirect <segments>", "--no-persistent",
    "--persistent-pages <pages>", "--barriers-only", "--no-discard", "--sector-units <driver>",
    "--image-directory <folder>", "--record-directory <folder>", "--no-record", "--store <kind>", "--base <file>",
    "--key-file <file>", "--direct <mode>", "--no-io-uring", "--close", "--log-level <level>",
  ]

  @Test(arguments: [("serve", ["<backend-path>", "--image <file>", "--read-only"]), ("watch", ["--type <name>"])])
  func helpNamesEveryOption(subcommand: String, options: [String]) throws {
    let run = try tool.run(subcommand, "--help")
    for option in options + Self.common {
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
    #expect(help.contains("kill -9") && help.contains("SIGHUP has the sizes of the images looked at again"))
  }

  @Test func pathIsAbsolute() throws {
    try tool.expectUsage(
      "The backend path is absolute, such as \(Self.path).", "serve", "backend/ublk/1/51712")
  }

  @Test func typeIsOneName() throws {
    try tool.expectUsage("A type is one name, such as ublk.", "watch", "--type", "backend/ublk")
  }

  @Test(arguments: [
    (["--queues", "0"], "A disk has 1 to 64 queues, and not 0."),
    (["--record-directory", "records"], "The folder of the records is absolute, such as /run/xen-blkback."),
  ])
  func optionOutsideItsRangeIsRefused(arguments: [String], sentence: String) throws {
    let run = try tool.run(["watch"] + arguments)
    #expect(run.error.hasPrefix("Error: \(sentence)\n") && run.output.isEmpty && run.exitCode == 64)
  }

  @Test func folderOfImagesThatIsNotThereIsRefused() throws {
    try tool.expectRefusal("there is no folder of images /nowhere", "watch", "--image-directory", "/nowhere")
    let run = try tool.run("watch", "--image-directory", "/tmp", "--store", "memory")
    #expect(run.error.hasPrefix("Error: --image-directory is for images that are files") && run.exitCode == 64)
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
