import Foundation
import Testing

/// The command line of xen-netfront.
struct XenNetfrontToolTests {
  private let tool = Tool(name: "xen-netfront")
  private static let path = "/local/domain/0/udevice/vif/0"

  @Test func helpNamesEveryOption() throws {
    let run = try tool.run("attach", "--help")
    for option in [
      "<path>", "--tap <name>", "--pcap <file>", "--address <a.b.c.d/n>", "--ping <a.b.c.d>", "--count <number>",
      "--size <bytes>", "--interval <seconds>", "--once", "--timeout <seconds>", "--one-event-channel",
      "--single-slots", "--queues <number>", "--no-offloads", "--hash-key <hex>", "--log-level <level>", "-h, --help",
    ] {
      // With what it does, on its line or the next.
      #expect(run.output.contains(try Regex("\n  \(option)\\s+[A-Z][^\n]+")), "\(option)")
    }
    #expect(run.output.contains("\nUSAGE: xen-netfront attach ") && run.output.contains("\nExit status: 0 "))
    #expect(run.error.isEmpty && run.exitCode == 0)
  }

  @Test(arguments: [
    ("Missing expected argument '<path>'", "--tap tap0"),
    ("The card's path is absolute, such as /local/domain/0/udevice/vif/0.", "device/vif/0 --tap tap0"),
    ("Give one of --tap, --pcap and --address.", path),
    ("Give one of --tap, --pcap and --address.", "\(path) --tap tap0 --address 10.9.0.2/24"),
    ("Give one of --tap, --pcap and --address.", "\(path) --tap tap0 --pcap file"),
    (
      "The value '10.9.0.2' is invalid for '--address <a.b.c.d/n>': "
        + "a host's address and its network are written such as 10.9.0.2/24", "\(path) --address 10.9.0.2"
    ),
    (
      "The value '10.9.0' is invalid for '--ping <a.b.c.d>': an address is four numbers, such as 10.9.0.1",
      "\(path) --address 10.9.0.2/24 --ping 10.9.0"
    ),
    ("--ping goes with --address.", "\(path) --tap tap0 --ping 10.9.0.1"),
    (
      "--ping names another host of the network 10.9.0.2/24.",
      "\(path) --address 10.9.0.2/24 --ping 10.9.1.1"
    ),
    (
      "--ping names another host of the network 10.9.0.2/24.",
      "\(path) --address 10.9.0.2/24 --ping 10.9.0.2"
    ),
    ("--queues is a number from 1 to 64.", "\(path) --tap tap0 --queues 65"),
    (
      "The value '6d5' is invalid for '--hash-key <hex>': a key has 1 to 40 bytes, each of two hexadecimal digits",
      "\(path) --tap tap0 --hash-key 6d5"
    ),
    ("--once goes with --ping.", "\(path) --address 10.9.0.2/24 --once"),
    ("--count is a number from 1 to 65535.", "\(path) --tap tap0 --count 0"),
    ("--size is a number from 0 to 65489.", "\(path) --tap tap0 --size 65490"),
    ("--interval is a number of seconds from 0.001 up to a day.", "\(path) --tap tap0 --interval 0"),
    ("--timeout is a number of seconds from 0.001 up to a day.", "\(path) --tap tap0 --timeout inf"),
  ])
  func commandLineThatMakesNoSenseIsRefused(sentence: String, line: String) throws {
    let run = try tool.run(["attach"] + line.split(separator: " ").map(String.init))
    #expect(run.error.hasPrefix("Error: \(sentence)\n"), "\(run.error)")
    #expect(run.error.contains("\nUsage: xen-netfront attach "))
    #expect(run.output.isEmpty && run.exitCode == 64)
  }

  @Test func levelThatIsNoneIsRefusedByThoseThatAre() throws {
    let run = try tool.run("attach", Self.path, "--tap", "tap0", "--log-level", "loud")
    #expect(run.error.contains("'loud' is invalid for '--log-level <level>'"))
    #expect(run.exitCode == 64)
  }

  @Test(
    .disabled(if: FileManager.default.fileExists(atPath: "/sys/hypervisor/type"), "this machine is a Xen domain"),
    arguments: [["--tap", "tap0"], ["--address", "10.9.0.2/24"]])
  func machineWithoutXenIsToldSo(arguments: [String]) throws {
    let run = try tool.run(["attach", Self.path] + arguments)
    #expect(run.error.hasPrefix("Error: this machine is not a Xen domain"))
    #expect(run.error.split(separator: "\n").count == 1)
    #expect(run.output.isEmpty && run.exitCode == 1)
  }
}
