import CRingTwin
import Measuring
import XenPlatform

private let batches: [UInt32] = [1, 8, 32]

/// Prints what a round trip costs by the clock, Swift and C in turns in one process: on one thread, then on two.
func printTimes(rounds: Int) throws {
  try printSingleThread(rounds: rounds)
  try printTwoThreads(rounds: rounds)
}

private func printSingleThread(rounds: Int) throws {
  let trips: UInt64 = 640_000
  printHead(["one thread", "batch", "C, least ns", "Swift, least ns", "Swift / C", "the rounds' median ratio"])
  var worst = 0.0
  for isBlock in [true, false] {
    // As ring-thresholds has them.
    let pages = PrivatePages(pageCount: 1)
    for batch in batches {
      let c = {
        let front = pages.region()
        let back = pages.region()
        return try nanosecondsEach(of: trips) {
          // Safe: the regions have that many bytes and outlive the call.
          unsafe isBlock
            ? ring_twin_block(front.baseAddress, back.baseAddress, UInt32(front.byteCount), batch, trips)
            : ring_twin_transmit(front.baseAddress, back.baseAddress, UInt32(front.byteCount), batch, trips)
        }
      }
      let swift = {
        try nanosecondsEach(of: trips) {
          try isBlock
            ? roundTrips(BlockShape.self, over: pages, batch: batch, trips: trips)
            : roundTrips(TransmitShape.self, over: pages, batch: batch, trips: trips)
        }
      }
      let turns = try Turns(rounds: rounds, [c, swift])
      let ratio = turns.ratio(1, to: 0)
      worst = max(worst, ratio)
      printRow([
        isBlock ? "block" : "transmit", "\(batch)", turns.least(0).fixed(1), turns.least(1).fixed(1),
        (turns.least(1) / turns.least(0)).fixed(2), ratio.fixed(2),
      ])
    }
  }
  printGoal("ring, one thread, at most 1.05 of C in the median", reached: worst <= 1.05, "\(worst.fixed(2)) at most")
}

private func nanosecondsEach(of trips: UInt64, _ body: () throws -> UInt64) throws -> Double {
  let start = ContinuousClock.now
  let sum = try body()
  precondition(sum != 0, "nothing was carried, or with too many notifications")
  return (ContinuousClock.now - start) / .nanoseconds(1) / Double(trips)
}

private func printTwoThreads(rounds: Int) throws {
  print()
  printHead([
    "two threads", "batch", "C, million/s", "Swift, million/s", "Swift / C", "front Swift, back C / C",
    "front C, back Swift / C", "C, wake-ups per 1,000", "Swift, wake-ups per 1,000",
  ])
  let kinds = ["spinning", "eventfd"]
  var worst = [Double.infinity, .infinity]
  for (kind, sleeps) in [false, true].enumerated() {
    for isBlock in [true, false] {
      // 256 slots, as a network card has.
      let pages = PrivatePages(pageCount: isBlock ? 8 : 1)
      let (c, swift): (Stream, Stream) = isBlock ? (.cBlock, .swiftBlock) : (.cTransmit, .swiftTransmit)
      let streams = [c, swift, swift.with(backOf: c), c.with(backOf: swift)]
      for batch in batches {
        // Some tenth of a second.
        let trips: UInt64 = sleeps ? 640_000 : batch == 1 ? 1_280_000 : 5_120_000
        var wakeups = streams.map { _ in [Double]() }
        let turns = try Turns(
          rounds: rounds,
          streams.indices.map { index in
            {
              let figures = streams[index].run(over: pages, batch: batch, trips: trips, sleeps: sleeps)
              wakeups[index].append(figures.notificationsPerThousand)
              return figures.nanosecondsEach
            }
          })
        let ratio = 1 / turns.ratio(1, to: 0)
        worst[kind] = min(worst[kind], ratio)
        printRow(
          ["\(isBlock ? "block" : "transmit"), \(kinds[kind])", "\(batch)"]
            + [0, 1].map { (1000 / turns.middle($0)).fixed(1) } + [ratio.fixed(2)]
            + [2, 3].map { (1 / turns.ratio($0, to: 0)).fixed(2) }
            + [0, 1].map { sleeps ? median(wakeups[$0]).fixed(1) : "-" })
      }
    }
  }
  for (kind, name) in kinds.enumerated() {
    printGoal(
      "ring, two threads, \(name), at least 1.0 of C", reached: worst[kind] >= 1, "\(worst[kind].fixed(2)) at least")
  }
}
