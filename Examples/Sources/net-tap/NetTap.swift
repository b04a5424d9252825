import ArgumentParser
import ExampleSupport
import Glibc
import NetBack
import NetFront
import Synchronization
import XenLoopback

@main struct NetTap: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "net-tap",
    abstract: "Joins two TAP devices by a network card's two drivers.",
    discussion: """
      What the machine sends into one TAP device goes through NetFront, its rings and NetBack, all in this process, and comes \
      out of the other one; and back. TAP devices that do not exist are created, and end with the program. It needs \
      CAP_NET_ADMIN. Two network namespaces that reach each other only through the two drivers:

        net-tap --front front0 --back back0 &
        ip netns add guest
        ip link set front0 netns guest
        ip -n guest addr add 10.9.0.2/24 dev front0
        ip -n guest link set front0 up
        ip addr add 10.9.0.1/24 dev back0
        ip link set back0 up
        ping 10.9.0.2

      With --queues, the card has several, and the TAP device at its back, which is made for it, has as many: each flow of \
      packets keeps to one. Packets cross unfinished, without their checksums and, of TCP, up to 64 KiB long, unless \
      --no-offloads says otherwise.

      Ends at SIGINT or SIGTERM, or when one of the TAP devices is removed.
      """)

  @Option(help: ArgumentHelp("The TAP device that the guest's card sends and receives by.", valueName: "tap"))
  var front: String

  @Option(help: ArgumentHelp("The TAP device that the card's backend sends and receives by.", valueName: "tap"))
  var back: String

  @Option(
    help: ArgumentHelp(
      "The largest payload of a frame, in bytes; the two TAP devices are set to it.", valueName: "bytes"))
  var mtu = NetIf.defaultMTU

  @Option(help: ArgumentHelp("How many queues the card may have; each has a thread at its back.", valueName: "number"))
  var queues = 1

  @Flag(help: "Have every packet finished before it crosses: with its checksums, and no longer than the MTU.")
  var noOffloads = false

  @Option(help: ArgumentHelp("Print what has crossed every so many seconds.", valueName: "seconds"))
  var every: Int?

  func validate() throws {
    guard front != back else { throw ValidationError("--front and --back are two different TAP devices.") }
    guard NetIf.mtuRange.contains(mtu) else {
      throw ValidationError(
        "--mtu is a number from \(NetIf.mtuRange.lowerBound) to \(NetIf.mtuRange.upperBound).")
    }
    guard (1...64).contains(queues) else { throw ValidationError("--queues is a number from 1 to 64.") }
    if let every, every <= 0 { throw ValidationError("--every is a number of seconds from 1 up.") }
  }

  func run() throws {
    let taps = (
      front: try TapInterface(name: front), back: try TapInterface(name: back, isMultiQueue: queues > 1)
    )
    for number in [SIGINT, SIGTERM] { signal(number) { _ in stopRequested.store(true, ordering: .relaxed) } }
    var features = NetFeatures(maxQueueCount: queues)
    if noOffloads { features.offloads = [] }
    let link = try Link(front: taps.front, back: taps.back, mtu: mtu, features: features)
    guard link.connect() else { throw ExampleError("the card does not connect: \(link.report)") }
    for tap in [taps.front, taps.back] { try tap.setMTU(link.mtu) }
    say("net-tap: \(front) and \(back) are joined; MTU \(link.mtu)")
    if link.queueCount < queues { say("net-tap: \(queues) queues were not agreed on:\n\(link.negotiation)") }
    if link.mtu < mtu { say("net-tap: an MTU of \(mtu) was not agreed on:\n\(link.negotiation)") }
    let start = Uptime.now
    var printed = 0
    var hasSaidTooLong = false
    while !stopRequested.load(ordering: .relaxed), !taps.front.isGone, !taps.back.isGone {
      usleep(100_000)
      let seconds = Int((Uptime.now.nanoseconds - start.nanoseconds) / 1_000_000_000)
      if let every, seconds / every > printed {
        printed = seconds / every
        for line in link.counted { say("net-tap: \(line)") }
      }
      if link.tooLongCount > 0, !hasSaidTooLong {
        hasSaidTooLong = true
        say(
          "net-tap: \(front) sends frames longer than the card's MTU of \(link.mtu) allows; they are dropped: lower its MTU again"
        )
      }
    }
    let isClosed = try link.close()
    for line in link.counted { say("net-tap: \(line)") }
    for tap in [taps.front, taps.back] where tap.isGone {
      throw ExampleError("the TAP device \(tap.name) was removed")
    }
    guard isClosed else { throw ExampleError("the card did not close in time") }
  }
}

private let stopRequested = Atomic(false)
