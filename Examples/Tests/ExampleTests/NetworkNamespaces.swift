import Foundation

/// Network namespaces of a test's own, that end with it and that nothing outside can see.
enum NetworkNamespaces {
  /// Why this machine has none to give; nil when it has.
  static let missing: String? = {
    let absent = ["ip", "nsenter", "ping", "iperf3"].filter {
      run("command -v \($0)", inNamespace: false).exitCode != 0
    }
    if !absent.isEmpty { return "not installed: \(absent.joined(separator: ", "))" }
    let probe = run("exec 3<>/dev/net/tun && ip link show lo")
    return probe.exitCode == 0 ? nil : "no network namespace with a TAP device: \(probe.output)"
  }()

  /// Runs a script of bash's in a namespace of its own, as its root, for half a minute at most; `$1` and so on are the
  /// arguments. Gives what it printed, and what stands in its file `said`.
  static func run(_ script: String, _ arguments: String..., inNamespace: Bool = true) -> (
    output: String, exitCode: Int32
  ) {
    run(script, arguments, inNamespace: inNamespace)
  }

  static func run(_ script: String, _ arguments: [String], inNamespace: Bool = true) -> (
    output: String, exitCode: Int32
  ) {
    let process = Process()
    process.executableURL = URL(filePath: "/usr/bin/env")
    let namespace = geteuid() == 0 ? ["unshare", "--net"] : ["unshare", "--user", "--map-root-user", "--net"]
    // In a folder of its own. What a test leaves running is ended, and has written what it has to say to `said`. The limit is for
    // what hangs: on a busy machine a test takes many times as long as here.
    let preamble = """
      set -euo pipefail; cd "$(mktemp -d)"
      trap 'kill $(jobs -p) 2>/dev/null || true; wait; cat said 2>/dev/null || true; rm -rf "$PWD"' EXIT

      """
    // Foundation starts a process with its own thread's signals blocked.
    process.arguments =
      ["--default-signal=INT,TERM"] + (inNamespace ? namespace : []) + [
        "timeout", "600", "bash", "-c", preamble + script, "script",
      ] + arguments
    let output = Pipe()
    (process.standardOutput, process.standardError) = (output, output)
    process.standardInput = FileHandle.nullDevice
    do { try process.run() } catch { return ("\(error)", -1) }
    let printed = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    return (printed, process.terminationStatus)
  }
}
