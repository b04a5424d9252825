import CRingTwin
import Glibc
import XenPlatform

// Started under valgrind many times, so it reads its arguments itself: what starts with the process is counted with it.
let usage = """
  usage: ring-benchmark END PROTOCOL BATCH TRIPS PAGES
    END       swift, c, c-producer-checks or c-response-alone
    PROTOCOL  block or transmit
    BATCH     requests a push, from 1 to 32
    TRIPS     requests in all, a multiple of BATCH
    PAGES     pages of ring, from 1 to 16
  or: ring-benchmark threads swift|c PROTOCOL BATCH TRIPS spinning|eventfd
    nanoseconds a round trip with both ends on threads, for whoever looks at it with a profiler
  or: ring-benchmark times ROUNDS
    prints by the clock what a round trip costs in Swift beside C; Benchmarks/ring-times runs it
  """

func run(_ arguments: [String]) throws -> UInt64? {
  guard arguments.count == 5, let batch = UInt32(arguments[2]), let trips = UInt64(arguments[3]),
    let pageCount = Int(arguments[4]), (1...32).contains(batch), trips % UInt64(batch) == 0,
    (1...16).contains(pageCount)
  else { return nil }
  let pages = PrivatePages(pageCount: pageCount)
  switch (arguments[0], arguments[1]) {
  case ("swift", "block"): return try roundTrips(BlockShape.self, over: pages, batch: batch, trips: trips)
  case ("swift", "transmit"): return try roundTrips(TransmitShape.self, over: pages, batch: batch, trips: trips)
  default: break
  }
  let twins: [String: ring_twin] = unsafe [
    "c block": ring_twin_block, "c transmit": ring_twin_transmit,
    "c-producer-checks block": ring_twin_block_producer_checks,
    "c-producer-checks transmit": ring_twin_transmit_producer_checks,
    "c-response-alone block": ring_twin_block_response_alone,
    "c-response-alone transmit": ring_twin_transmit_response_alone,
  ]
  guard let twin = unsafe twins["\(arguments[0]) \(arguments[1])"] else { return nil }
  let front = pages.region()
  let back = pages.region()
  // Safe: the regions have that many bytes and outlive the call.
  return unsafe twin(front.baseAddress, back.baseAddress, UInt32(front.byteCount), batch, trips)
}

let arguments = Array(CommandLine.arguments.dropFirst())
if arguments.count == 2, arguments[0] == "times", let rounds = Int(arguments[1]), rounds > 0 {
  try printTimes(rounds: rounds)
} else if arguments.count == 6, arguments[0] == "threads", let batch = UInt32(arguments[3]), (1...32).contains(batch),
  let trips = UInt64(arguments[4]), trips % UInt64(batch) == 0
{
  let isBlock = arguments[2] == "block"
  let stream: Stream =
    arguments[1] == "c" ? (isBlock ? .cBlock : .cTransmit) : (isBlock ? .swiftBlock : .swiftTransmit)
  let pages = PrivatePages(pageCount: isBlock ? 8 : 1)
  print(stream.run(over: pages, batch: batch, trips: trips, sleeps: arguments[5] == "eventfd").nanosecondsEach)
} else if let sum = try run(arguments) {
  print(sum)
} else {
  print(usage)
  exit(2)
}
