import Foundation
import Testing

struct NetTapTests {
  private let tool = Tool(name: "net-tap")

  @Test func helpNamesEveryOption() throws {
    let run = try tool.run("--help")
    for option in [
      "--front <tap>", "--back <tap>", "--mtu <bytes>", "--queues <number>", "--no-offloads", "--every <seconds>",
      "-h, --help",
    ] {
      #expect(run.output.contains(try Regex("\n  \(option)\\s+[A-Z][^\n]+")), "\(option)")
    }
    #expect(run.output.contains("\nUSAGE: net-tap ") && run.output.contains("ip link set front0 netns guest"))
    #expect(run.error.isEmpty && run.exitCode == 0)
  }

  @Test func twoDevicesAreNeeded() throws {
    try tool.expectUsage("--front and --back are two different TAP devices.", "--front", "a", "--back", "a")
  }

  @Test(arguments: ["67", "65518", "-1"]) func anMTUThatNoCardHasIsRefused(mtu: String) throws {
    try tool.expectUsage(
      "--mtu is a number from 68 to 65517.", "--front", "a", "--back", "b", "--mtu=\(mtu)")
  }

  @Test(arguments: ["0", "65"]) func aNumberOfQueuesThatNoCardHasIsRefused(queues: String) throws {
    try tool.expectUsage("--queues is a number from 1 to 64.", "--front", "a", "--back", "b", "--queues", queues)
  }

  @Test(arguments: ["", "a name", "a-name-of-16-byte", "a/b"]) func nameThatNoInterfaceHasIsRefused(name: String) throws
  {
    try tool.expectRefusal(
      "\"\(name)\" is no name of an interface: it has 1 to 15 bytes, no space and no slash", "--front", name, "--back",
      "b")
  }
}

/// With TAP devices, between network namespaces that reach each other only through the two drivers.
@Suite(
  .enabled(if: NetworkNamespaces.missing == nil, "\(NetworkNamespaces.missing ?? "")"),
  .serialized)
struct NetTapNamespaceTests {
  private let tool = Tool(name: "net-tap")

  /// Starts net-tap between the guest's namespace, entered by `guest`, and this one.
  private static let joined = """
    tool=$1; shift
    "$tool" --front front0 --back back0 "$@" >said 2>&1 & tap=$!
    until grep -q joined said; do kill -0 $tap; sleep 0.02; done
    unshare --net sleep 10000 & other=$!
    until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.02; done
    guest() { nsenter --target $other --net "$@"; }
    ip link set front0 netns $other
    guest ip addr add 10.9.0.2/24 dev front0
    guest ip link set front0 up
    ip addr add 10.9.0.1/24 dev back0
    ip link set back0 up

    """

  private func run(_ script: String, _ arguments: String...) throws -> (output: String, exitCode: Int32) {
    NetworkNamespaces.run(
      Self.joined + script, [tool.url.path] + (arguments.isEmpty ? ["--mtu=1500"] : arguments))
  }

  /// How many replies each ping has had: with -w it sends until enough have come, so that a late one makes one more.
  private func answered(_ output: String) throws -> [Int] {
    output.matches(of: try Regex(", ([0-9]+) received, ", as: (Substring, Substring).self)).compactMap {
      Int($0.output.1)
    }
  }

  @Test func pingCrossesBothWaysAndItsPayloadIsWhole() throws {
    // With -w it waits for the last reply however long the machine takes; -p fills the payload, which it compares.
    let run = try run(
      """
      ping -n -c 10 -w 20 -i 0.1 -s 1472 -M do -p 5a3c 10.9.0.2
      guest ping -n -c 10 -w 20 -i 0.1 -s 18 -p c3a5 10.9.0.1
      kill -INT $tap; wait $tap
      """)
    #expect(run.exitCode == 0, "\(run.output)")
    #expect(try answered(run.output).allSatisfy { $0 >= 10 } && answered(run.output).count == 2, "\(run.output)")
    #expect(!run.output.contains("wrong data byte"))
    #expect(run.output.contains("net-tap: front0 and back0 are joined; MTU 1500"))
    #expect(run.output.contains(try Regex("to the back [0-9]{2,} frames.* 0 too long; 0 failed; ")), "\(run.output)")
  }

  /// Frames of several pages, each of several slots.
  @Test func jumboFramesCrossBothWays() throws {
    let run = try run(
      """
      ping -n -c 5 -w 20 -i 0.1 -s 8972 -M do 10.9.0.2
      guest ping -n -c 5 -w 20 -i 0.1 -s 65489 10.9.0.1
      kill -INT $tap; wait $tap
      """, "--mtu=65517")
    #expect(run.exitCode == 0, "\(run.output)")
    #expect(try answered(run.output).allSatisfy { $0 >= 5 } && answered(run.output).count == 2, "\(run.output)")
    #expect(run.output.contains("net-tap: front0 and back0 are joined; MTU 65517"))
  }

  @Test func iperfCrossesBothWays() throws {
    let run = try run(
      """
      # The sender stops at 20 MiB; what is under way then may not be counted.
      for direction in "" --reverse; do
        guest iperf3 --server --one-off >&/dev/null & server=$!
        until guest ss -tln | grep -q :5201; do sleep 0.02; done
        iperf3 --client 10.9.0.2 --bytes 20M --window 256K --json $direction >iperf.json || { cat iperf.json; exit 1; }
        wait $server
        grep -A4 '"sum_received"' iperf.json
      done
      kill -INT $tap; wait $tap
      """)
    #expect(run.exitCode == 0, "\(run.output)")
    let received = run.output.matches(of: try Regex("\"bytes\":\\s*([0-9]+)", as: (Substring, Substring).self))
      .compactMap {
        Int($0.output.1)
      }
    #expect(received.count == 2 && received.allSatisfy { $0 > 16 << 20 }, "\(run.output)")
  }

  /// Several flows at once, both ways; what crosses is cut into segments by the machine, and by nobody before. Their ports are
  /// the same each time, and so are their queues: four flows on each of two, in each direction. The machine gives no others of
  /// that number away by itself.
  private static let severalFlows = """
    guest iperf3 --server --one-off >&/dev/null & server=$!
    until guest ss -tln | grep -q :5201; do sleep 0.02; done
    iperf3 --client 10.9.0.2 --parallel 8 --cport 20150 --bytes 160M --json ${1-} >iperf.json || { cat iperf.json; exit 1; }
    wait $server
    kill -INT $tap; wait $tap

    """

  /// What net-tap has said last: of all queues together, and of each.
  private func counts(_ output: String) throws -> (toBack: Int, toFront: Int, queues: [(back: Int, front: Int)]) {
    func numbers(_ text: String) -> [Int] { text.split { !$0.isNumber }.compactMap { Int($0) } }
    let lines = output.split(separator: "\n").map(String.init)
    let sum = try #require(lines.last { $0.contains("to be cut into segments") }, "\(output)")
    let segments = numbers(String(try #require(sum.components(separatedBy: "segments ").last)))
    return (
      segments[0], segments[1],
      lines.filter { $0.contains("net-tap: queue ") }.map(numbers).map { (back: $0[1], front: $0[3]) }
    )
  }

  @Test(arguments: ["", "--reverse"]) func packetsToBeCutCrossOnEveryQueue(direction: String) throws {
    let run = try run("set -- \(direction)\n" + Self.severalFlows, "--queues", "2")
    #expect(run.exitCode == 0, "\(run.output)")
    let counts = try counts(run.output)
    // The client sends to the front, so from the back; 160 MiB are 2560 packets of 64 KiB, and may be more smaller ones.
    #expect((direction.isEmpty ? counts.toFront : counts.toBack) > 1200, "\(run.output)")
    #expect(counts.queues.count == 2, "\(run.output)")
    #expect(counts.queues.allSatisfy { $0.back > 100 && $0.front > 100 }, "\(run.output)")
    #expect(run.output.contains("; 0 failed; "), "\(run.output)")
  }

  @Test func nothingIsLeftUnfinishedWhereThatIsNotWanted() throws {
    let run = try run("set --\n" + Self.severalFlows, "--no-offloads", "--queues", "2")
    #expect(run.exitCode == 0, "\(run.output)")
    let counts = try counts(run.output)
    #expect(counts.toBack == 0 && counts.toFront == 0, "\(run.output)")
    // No packet is longer than the MTU: 160 MiB are 116 thousand, and what is under way at the end may not cross.
    #expect(counts.queues.reduce(0) { $0 + $1.front } > 80_000, "\(run.output)")
  }

  @Test func deviceThatIsRemovedEndsTheProgramWithASentence() throws {
    for gone in ["ip link delete back0", "guest ip link delete front0"] {
      let run = try run("\(gone); wait $tap || echo exit code $? >>said")
      let name = gone.split(separator: " ").last ?? ""
      #expect(run.output.contains("Error: the TAP device \(name) was removed\nexit code 1\n"), "\(run.output)")
      #expect(!run.output.contains("did not close"))
    }
  }

  @Test func frameBeyondTheAgreedMTUIsSaidOnceAndTheRestGoesOn() throws {
    let run = try run(
      """
      guest ip link set front0 mtu 3000
      guest ping -n -c 3 -i 0.02 -W 1 -s 2000 -M do 10.9.0.1 && exit 1
      ping -n -c 3 -w 20 -i 0.1 10.9.0.2
      kill -INT $tap; wait $tap
      """)
    #expect(run.exitCode == 0, "\(run.output)")
    let sentence =
      "net-tap: front0 sends frames longer than the card's MTU of 1500 allows; they are dropped: lower its MTU again"
    #expect(run.output.components(separatedBy: sentence).count == 2, "\(run.output)")
    #expect(
      try answered(run.output).last.map { $0 >= 3 } == true && run.output.contains("; 3 too long; "), "\(run.output)")
  }

  @Test func deviceInUseIsRefused() throws {
    let run = try run("\"$tool\" --front back0 --back other0 || echo exit code $?; kill $tap; wait $tap")
    #expect(
      run.output.contains("Error: the TAP device back0 is in use by another program\nexit code 1\n"), "\(run.output)")
  }

  @Test func interfaceThatIsNoTapIsRefused() throws {
    let run = NetworkNamespaces.run("\"$1\" --front lo --back back0", tool.url.path)
    #expect(
      run.output == "Error: the interface lo is not a TAP device: remove it, or choose another name\n"
        && run.exitCode == 1, "\(run.output)")
  }
}
