import Foundation
import Testing

/// The command line of xen-device.
struct XenDeviceToolTests {
  private let tool = Tool(name: "xen-device")

  /// Expects the command line of a subcommand to be refused, by a sentence and the usage.
  private func expectUsage(_ sentence: String, _ line: String) throws {
    let run = try tool.run(line.split(separator: " ").map(String.init))
    #expect(run.error.hasPrefix("Error: \(sentence)\n") && run.error.contains("\nUsage: xen-device "), "\(run.error)")
    #expect(run.output.isEmpty && run.exitCode == 64)
  }

  @Test(arguments: [
    ("create vbd", ["--frontend-domain <number>", "--backend-type <name>", "--image <path>", "--mode <r|w>"]),
    ("create vif", ["--frontend-root <name>", "--mac <address>", "--mtu <bytes>", "--handle <number>"]),
    ("destroy vbd", ["--backend-domain <number>", "--device <disk>", "--timeout <seconds>", "--force"]),
    ("destroy vif", ["--handle <number>", "--force"]),
    ("list", ["--frontend-domain <number>", "<vbd\\|vif>"]),
  ])
  func helpNamesEveryOption(command: String, options: [String]) throws {
    let run = try tool.run(command.split(separator: " ").map(String.init) + ["--help"])
    for option in options + ["-h, --help"] {
      let pattern = option.replacing("r|w", with: "r\\|w")
      // With what it does, on its line or the next.
      #expect(run.output.contains(try Regex("\n  \(pattern)\\s+[A-Z][^\n]+")), "\(option)")
    }
    #expect(run.output.contains("\nUSAGE: xen-device \(command) "))
    #expect(run.error.isEmpty && run.exitCode == 0)
  }

  @Test(arguments: [
    ("Missing expected argument '--frontend-domain <number>'", "create vif"),
    ("--frontend-domain is a number from 0 to 32751.", "create vif --frontend-domain 32752"),
    ("--backend-domain is a number from 0 to 32751.", "destroy vif --frontend-domain 1 --backend-domain 40000"),
    (
      "--backend-type is one name of letters, digits, - and _, such as swift.",
      "create vif --frontend-domain 1 --backend-type a/b"
    ),
    (
      "--frontend-root is one name of letters, digits, - and _, such as swift.",
      "destroy vbd --frontend-domain 1 --frontend-root ../x"
    ),
    ("Give either --image or --params.", "create vbd --frontend-domain 1"),
    ("Give either --image or --params.", "create vbd --frontend-domain 1 --image a --params b"),
    (
      "--physical-device goes with --params; --image finds it itself.",
      "create vbd --frontend-domain 1 --image a --physical-device 7:0"
    ),
    (
      "--physical-device is two hexadecimal numbers, such as fd:1.",
      "create vbd --frontend-domain 1 --params a --physical-device 7"
    ),
    (
      "--mac is the address of one card, such as 00:16:3e:00:00:01.",
      "create vif --frontend-domain 1 --mac 01:00:5e:00:00:01"
    ),
    ("--mtu is a number from 68 to 65517.", "create vif --frontend-domain 1 --mtu 67"),
    ("--timeout is a number of seconds up to a day.", "destroy vif --frontend-domain 1 --timeout=-1"),
    ("The value 'sda' is invalid for '--device <disk>'", "create vbd --frontend-domain 1 --params a --device sda"),
  ])
  func commandLineThatMakesNoSenseIsRefused(sentence: String, line: String) throws { try expectUsage(sentence, line) }

  @Test(
    .disabled(if: FileManager.default.fileExists(atPath: "/sys/hypervisor/type"), "this machine is a Xen domain"),
    arguments: ["list", "create vif --frontend-domain 0", "destroy vbd --frontend-domain 1"])
  func machineWithoutXenIsToldSo(line: String) throws {
    let run = try tool.run(line.split(separator: " ").map(String.init))
    #expect(run.error.hasPrefix("Error: this machine is not a Xen domain"))
    #expect(run.error.split(separator: "\n").count == 1)
    #expect(run.output.isEmpty && run.exitCode == 1)
  }
}
