import ArgumentParser
import BlkFront
import Measuring

/// How often the ends of a pair wake each other, beside ends that do so at each push.
@main struct WakeBenchmark: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wake-benchmark",
    abstract: "Prints notifications for each 1,000 requests at several depths, of a disk and a network card.",
    discussion: """
      Both ends are on threads, on the in-process Xen. What a driver without the event index would have sent is counted in the \
      same run: one at each push, and one for each entry of a ring, for both ends together. A request of a disk has two entries; a \
      frame that comes back has four.
      """)

  @Option(help: ArgumentHelp("How long each row is measured.", valueName: "seconds"))
  var seconds = 1.0

  @Option(
    help: ArgumentHelp(
      "How long a thread looks for work at most before it sleeps; 0 never to.", valueName: "microseconds"))
  var looking = AdaptiveSleep.defaultMaxNanoseconds / 1000

  func validate() throws {
    guard seconds > 0 else { throw ValidationError("--seconds is positive.") }
  }

  func run() throws {
    let sleep = AdaptiveSleep(maxNanoseconds: min(looking, 1_000_000) * 1000)
    printHead([
      "per 1,000 requests or frames", "depth", "frontend", "backend", "both", "at each push", "for each entry",
      "both / at each push", "both / for each entry", "thousand/s",
    ])
    for depth in [1, 8, 32, 128] {
      try diskWakeups(depth: depth, seconds: seconds, sleep: sleep).printRow("block, reads of 4 KiB", depth, entries: 2)
    }
    for depth in [1, 8, 32, 128] {
      try cardWakeups(depth: depth, seconds: seconds, sleep: sleep).printRow("net, echo of 1500 B", depth, entries: 4)
    }
  }
}

/// What both ends of a pair have counted.
struct WakeCounts {
  var requests = 0
  var seconds = 0.0
  var front = RingStatistics()
  var back = RingStatistics()

  func printRow(_ name: String, _ depth: Int, entries: Int) {
    let each = { (count: UInt64) in Double(count) * 1000 / Double(requests) }
    let both = front.notificationsSent + back.notificationsSent
    let pushes = both + front.notificationsSuppressed + back.notificationsSuppressed
    Measuring.printRow([
      name, "\(depth)", each(front.notificationsSent).fixed(1), each(back.notificationsSent).fixed(1),
      each(both).fixed(1), each(pushes).fixed(0), "\(entries)000", (Double(both) / Double(pushes)).fixed(3),
      (each(both) / Double(entries) / 1000).fixed(3), (Double(requests) / seconds / 1000).fixed(0),
    ])
  }
}
