import Foundation
import Testing

struct BlkBackTests {
  private let tool = Tool(name: "blk-back")

  @Test func helpNamesEveryOption() throws {
    let run = try tool.run("--help")
    for option in ["--type <name>", "--path <path>", "--image <file>", "--read-only", "-h, --help"] {
      // With what it does, on its line or the next.
      #expect(run.output.contains(try Regex("\n  \(option)\\s+[A-Z][^\n]+")), "\(option)")
    }
    #expect(run.output.contains("\nUSAGE: blk-back "))
    #expect(run.error.isEmpty && run.exitCode == 0)
  }

  @Test func eitherTypeOrPathIsGiven() throws {
    try tool.expectUsage("Give either --type or --path.")
    try tool.expectUsage(
      "Give either --type or --path.", "--type", "ublk", "--path", "/local/domain/0/backend/ublk/1/51712")
  }

  @Test func imageGoesWithOneDisk() throws {
    try tool.expectUsage(
      "--image goes with --path: several disks cannot share one image.", "--type", "ublk", "--image", "disk.img")
  }

  @Test func pathIsAbsolute() throws {
    try tool.expectUsage(
      "--path is absolute, such as /local/domain/0/backend/ublk/1/51712.", "--path", "backend/ublk/1/51712")
  }

  @Test(
    .disabled(if: FileManager.default.fileExists(atPath: "/sys/hypervisor/type"), "this machine is a Xen domain"),
    arguments: [["--type", "ublk"], ["--path", "/local/domain/0/backend/ublk/1/51712"]])
  func machineWithoutXenIsToldSo(arguments: [String]) throws {
    let run = try tool.run(arguments[0], arguments[1])
    #expect(run.error.hasPrefix("Error: this machine is not a Xen domain"))
    #expect(run.error.split(separator: "\n").count == 1)
    #expect(run.output.isEmpty && run.exitCode == 1)
  }
}
