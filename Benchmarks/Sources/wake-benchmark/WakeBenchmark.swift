import ArgumentParser
import BlkFront
import Measuring
import SystemPackage

/// How often the ends of a pair wake each other, beside ends that do so at each push.
@main struct WakeBenchmark: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wake-benchmark",
    abstract: "Prints notifications for each 1,000 requests at several depths, of a disk and a network card.",
    discussion: """
      Both ends are on threads, on the in-process Xen. What a driver without the event index would have sent is counted in the \
      same run: one at each push, and one for each entry of a ring, for both ends together. A request of a disk has two entries; a \
      frame that comes back has four. Latency is from the turn in which a request is put to the one in which its answer is found. Each row \
      is measured twice, in turns: as the drivers are, and with hold-off where they have none, or without it where they have.
      """)

  @Option(help: ArgumentHelp("How long each row is measured in a round.", valueName: "seconds"))
  var seconds = 1.0

  @Option(
    help: ArgumentHelp("How often: notifications are of all rounds, the rest is their median.", valueName: "count"))
  var rounds = 3

  @Option(
    help: ArgumentHelp(
      "How long a thread looks for work at most before it sleeps; 0 never to.", valueName: "microseconds"))
  var looking = AdaptiveSleep.defaultMaxNanoseconds / 1000

  @Option(help: ArgumentHelp("Measure reads of this image, past the page cache, as well.", valueName: "path"))
  var image: String?

  func validate() throws {
    guard seconds > 0 else { throw ValidationError("--seconds is positive.") }
    guard rounds > 0 else { throw ValidationError("--rounds is positive.") }
  }

  func run() throws {
    let sleep = AdaptiveSleep(maxNanoseconds: min(looking, 1_000_000) * 1000)
    printHead([
      "per 1,000 requests or frames" + (looking == 0 ? ", sleeping at once" : ""), "depth", "frontend", "backend",
      "both", "at each push", "for each entry",
      "both / at each push", "both / for each entry", "thousand/s", "p50, us", "p99, us",
    ])
    for image in image.map({ [nil, FilePath($0)] }) ?? [nil] {
      func measure(depth: Int, holdsOff: Bool) throws -> WakeCounts {
        try diskWakeups(of: image, depth: depth, seconds: seconds, sleep: sleep, holdsOff: holdsOff)
      }
      try printRows(
        "block, reads of 4 KiB\(image == nil ? "" : " of a file")", entries: 2,
        ("", { try measure(depth: $0, holdsOff: false) }), (", hold-off", { try measure(depth: $0, holdsOff: true) }))
    }
    try printRows(
      "net, echo of 1500 B", entries: 4,
      ("", { try cardWakeups(depth: $0, seconds: seconds, sleep: sleep, holdsOff: true) }),
      (", no hold-off", { try cardWakeups(depth: $0, seconds: seconds, sleep: sleep, holdsOff: false) }))
  }

  private typealias Variant = (name: String, measure: (_ depth: Int) throws -> WakeCounts)

  private func printRows(_ name: String, entries: Int, _ variants: Variant...) throws {
    for depth in [1, 8, 32, 128] {
      var counts = variants.map { _ in [WakeCounts]() }
      for _ in 0..<rounds {
        for index in variants.indices { counts[index].append(try variants[index].measure(depth)) }
      }
      for (variant, counts) in zip(variants, counts) { counts.printRow(name + variant.name, depth, entries: entries) }
    }
  }
}

/// What both ends of a pair have counted.
struct WakeCounts {
  var requests = 0
  var seconds = 0.0
  var front = RingStatistics()
  var back = RingStatistics()
  /// Nanoseconds of each request, as many as there is room for.
  private(set) var latencies: [UInt32] = []

  init() { latencies.reserveCapacity(1 << 21) }

  /// Requests put at these instants have now come back.
  mutating func note(_ putAts: ArraySlice<UInt64>) {
    let now = Uptime.now.nanoseconds
    for putAt in putAts where latencies.count < latencies.capacity {
      latencies.append(UInt32(clamping: now - putAt))
    }
  }

  var rate: Double { Double(requests) / seconds }

  func microseconds(_ part: Double) -> Double { quantile(part, of: latencies.map { Double($0) / 1000 }) }
}

extension [WakeCounts] {
  /// - Parameter entries: of each request, in all rings.
  func printRow(_ name: String, _ depth: Int, entries: Int) {
    let requests = reduce(0) { $0 + $1.requests }
    func each(_ count: (WakeCounts) -> UInt64) -> Double {
      Double(reduce(0) { $0 + count($1) }) * 1000 / Double(requests)
    }
    let (front, back) = (each(\.front.notificationsSent), each(\.back.notificationsSent))
    let pushes = front + back + each { $0.front.notificationsSuppressed + $0.back.notificationsSuppressed }
    Measuring.printRow([
      name, "\(depth)", front.fixed(1), back.fixed(1), (front + back).fixed(1), pushes.fixed(0), "\(entries)000",
      ((front + back) / pushes).fixed(3), ((front + back) / Double(entries) / 1000).fixed(3),
      (median(map(\.rate)) / 1000).fixed(0), median(map { $0.microseconds(0.5) }).fixed(1),
      median(map { $0.microseconds(0.99) }).fixed(1),
    ])
  }
}
