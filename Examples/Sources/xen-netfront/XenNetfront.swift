import ArgumentParser
import Glibc
import NetBack
import NetFront
import NetFrontTool
import Pcap
import ToolSupport
import XenNative

@main struct XenNetfront: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "xen-netfront",
    abstract: "Uses network cards of a real Xen from a program.",
    subcommands: [Attach.self])
}

struct Attach: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Connects a card to a TAP device, a capture file, or a host of its own.",
    discussion: """
      The card is the one whose frontend directory is given; xen-device makes one. A Linux guest's own driver takes all \
      cards below device/ of its domain, so make it elsewhere:

        eval "$(xen-device create vif --frontend-domain 0 --frontend-root udevice)"
        xen-netfront attach "$frontend" --address 10.9.0.2/24 &
        ip addr add 10.9.0.1/24 dev vif0.0
        ip link set vif0.0 up
        ping 10.9.0.2

      With --tap, what the card receives is what the machine receives through that TAP device, and back; one that does not \
      exist is created, and ends with the program. It has the card's MTU, and its link is down while the card's is.

      With --pcap, all that the card receives is written to a file, and nothing is answered.

      With --address, the program is a host with that address: it answers ARP requests, pings, and UDP datagrams to port 7 \
      (echo), but no fragments. With --ping it first pings another host of that network.

      Prints what the two ends agreed on each time that the card connects. When the card's backend goes away and comes back \
      the card connects again. A card that another program has left without closing it is taken up.

      SIGINT and SIGTERM close the card; a second one ends the program at once.

      Exit status: 0 when the card was closed, or removed by the toolstack; 1 when a ping was lost, the card did not \
      connect or close in time, or something was refused; 64 for a command line that makes no sense.
      """)

  @Argument(
    help: ArgumentHelp("The card's frontend directory, such as /local/domain/0/udevice/vif/0.", valueName: "path"))
  var frontendPath: String

  @Option(help: ArgumentHelp("Connect the card to this TAP device; it needs CAP_NET_ADMIN.", valueName: "name"))
  var tap: String?

  @Option(help: ArgumentHelp("Write what the card receives to this file.", valueName: "file"))
  var pcap: String?

  @Option(
    help: ArgumentHelp("Be a host with this address.", valueName: "a.b.c.d/n"),
    transform: { try value(IPv4Network($0), "a host's address and its network are written such as 10.9.0.2/24") })
  var address: IPv4Network?

  @Option(
    help: ArgumentHelp("With --address: ping this host before anything else.", valueName: "a.b.c.d"),
    transform: { try value(IPv4Address($0), "an address is four numbers, such as 10.9.0.1") })
  var ping: IPv4Address?

  @Option(help: ArgumentHelp("How often to ping.", valueName: "number"))
  var count = 4

  @Option(help: ArgumentHelp("How many bytes a ping carries.", valueName: "bytes"))
  var size = 56

  @Option(help: ArgumentHelp("How long to wait between pings.", valueName: "seconds"))
  var interval = 1.0

  @Flag(help: "End when all pings have been answered, in place of answering others'.")
  var once = false

  @Option(
    help: ArgumentHelp(
      "How long the first connection may take; by default for ever, and with --ping 30 seconds.", valueName: "seconds"))
  var timeout: Double?

  @Flag(help: "Use one event channel for both rings, also where the backend offers two.")
  var oneEventChannel = false

  @Flag(help: "Use one slot a frame, and so frames of no more than an MTU of 1500, also where the backend offers more.")
  var singleSlots = false

  @Option(
    help: ArgumentHelp(
      "How many queues the card may have, where the backend offers as many.", valueName: "number"))
  var queues = 1

  @Flag(
    help: "Have every packet finished before it crosses: with its checksums, and no longer than the MTU.")
  var noOffloads = false

  @Option(
    help: ArgumentHelp(
      "Have the backend hash each flow with this key (Toeplitz), and choose its queue by that.", valueName: "hex"),
    transform: { try value(HashKey($0), "a key has 1 to 40 bytes, each of two hexadecimal digits") })
  var hashKey: HashKey?

  @Option(help: ArgumentHelp("What to log, with all that is graver.", valueName: "level"))
  var logLevel = LogLevel.warning

  /// What an argument stands for.
  private static func value<Value>(_ value: Value?, _ sentence: String) throws -> Value {
    guard let value else { throw ValidationError(sentence) }
    return value
  }

  func validate() throws {
    guard frontendPath.hasPrefix("/"), !frontendPath.hasSuffix("/") else {
      throw ValidationError("The card's path is absolute, such as /local/domain/0/udevice/vif/0.")
    }
    guard [tap != nil, pcap != nil, address != nil].count(where: \.self) == 1 else {
      throw ValidationError("Give one of --tap, --pcap and --address.")
    }
    guard (1...64).contains(queues) else { throw ValidationError("--queues is a number from 1 to 64.") }
    for (option, seconds) in [("--interval", interval), ("--timeout", timeout ?? 1)]
    where !(0.001...86400).contains(seconds) {
      throw ValidationError("\(option) is a number of seconds from 0.001 up to a day.")
    }
    guard (1...Int(UInt16.max)).contains(count) else { throw ValidationError("--count is a number from 1 to 65535.") }
    let longest = NetIf.mtuRange.upperBound - IPv4Host.pingOverhead
    guard (0...longest).contains(size) else { throw ValidationError("--size is a number from 0 to \(longest).") }
    guard let ping else {
      guard !once else { throw ValidationError("--once goes with --ping.") }
      return
    }
    guard let address else { throw ValidationError("--ping goes with --address.") }
    guard address.contains(ping), address.canBeHost(ping), ping != address.address else {
      throw ValidationError("--ping names another host of the network \(address).")
    }
  }

  func run() throws {
    let signals = try EndSignals()
    let platform = try NativePlatform()
    var features = NetFeatures(
      splitEventChannels: !oneEventChannel, scatterGather: !singleSlots, maxQueueCount: queues)
    if noOffloads { features.offloads = [] }
    let attachment = try CardAttachment(
      frontendPath, on: platform, features: features,
      hashing: hashKey.map { NetHashConfiguration(toeplitz: $0.bytes, mapping: $0.mapping(queueCount: queues)) },
      announcing: address.map { [.address($0.address)] } ?? [], timeout: timeout ?? ping.map { _ in 30 },
      log: logLevel.logger("xen-netfront"),
      to: try end(), say: Self.say)
    while attachment.outcome == nil, !signals.isRaised {
      var waits = [signals.descriptor, attachment.descriptor].map {
        pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
      }
      _ = Wakeup.wait(for: &waits, timeout: -1)
    }
    let isClosed = attachment.close()
    for line in attachment.summary { Self.say(line) }
    switch attachment.outcome {
    case .failed(let sentence): throw Failure(description: sentence)
    case .removed: Self.say("the toolstack has removed the card")
    case .done, nil:
      guard isClosed else {
        throw Failure(description: "the backend has not let go of the card in 10 s")
      }
      Self.say("the card is closed")
    }
  }

  private func end() throws -> sending any CardEnd {
    if let tap { return TapCable(try TapInterface(name: tap)) }
    if let pcap { return try CaptureFile(path: pcap, clock: PcapTap.now) }
    guard let address else { preconditionFailure("validated") }
    let pings = ping.map { target in
      Ping(
        Ping.Plan(target: target, count: count, byteCount: size, interval: UInt64(interval * 1e9)),
        identifier: UInt16(truncatingIfNeeded: getpid()))
    }
    return HostEnd(address, ping: pings, endsWithPing: once, say: Self.say)
  }

  /// A line at once: a file may be the output.
  private static let say: @Sendable (String) -> Void = { line in
    print(line)
    fflush(nil)
  }
}

/// A key of Toeplitz's, as on a command line.
struct HashKey {
  let bytes: [UInt8]

  init?(_ text: String) {
    let digits = Array(text.utf8)
    guard (2...2 * Toeplitz.maxKeyByteCount).contains(digits.count), digits.count % 2 == 0 else { return nil }
    var bytes: [UInt8] = []
    for place in stride(from: 0, to: digits.count, by: 2) {
      let pair = String(decoding: digits[place..<place + 2], as: UTF8.self)
      guard pair.allSatisfy(\.isHexDigit), let byte = UInt8(pair, radix: 16) else { return nil }
      bytes.append(byte)
    }
    self.bytes = bytes
  }

  /// Every queue in turn.
  func mapping(queueCount: Int) -> [UInt32] {
    (0..<NetHashConfiguration.maxMappingCount).map { UInt32($0 % queueCount) }
  }
}

/// Why the program fails, as a sentence.
struct Failure: Error, CustomStringConvertible {
  let description: String
}
