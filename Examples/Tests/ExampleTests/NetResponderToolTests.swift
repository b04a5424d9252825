import Foundation
import Testing

/// The command line of net-responder.
struct NetResponderToolTests {
  private let tool = Tool(name: "net-responder")
  private static let path = "/local/domain/0/udevice/vif/0"

  @Test func helpNamesEveryOption() throws {
    let run = try tool.run("--help")
    for option in ["<path>", "--address <a.b.c.d/n>", "--nio", "--timeout <seconds>", "-h, --help"] {
      #expect(run.output.contains(try Regex("\n  \(option)\\s+[A-Z][^\n]+")), "\(option)")
    }
    #expect(run.error.isEmpty && run.exitCode == 0)
  }

  @Test(arguments: [
    ("The card's path is absolute, such as /local/domain/0/udevice/vif/0.", "device/vif/0 --address 10.9.0.2/24"),
    ("--timeout is a number of seconds from 0.001 up to a day.", "\(path) --address 10.9.0.2/24 --timeout 0"),
    (
      "The value '10.9.0.2' is invalid for '--address <a.b.c.d/n>': "
        + "a host's address and its network are written such as 10.9.0.2/24", "\(path) --address 10.9.0.2"
    ),
  ])
  func commandLineThatMakesNoSenseIsRefused(sentence: String, line: String) throws {
    let run = try tool.run(line.split(separator: " ").map(String.init))
    #expect(run.error.hasPrefix("Error: \(sentence)\n"), "\(run.error)")
    #expect(run.output.isEmpty && run.exitCode == 64)
  }
}
