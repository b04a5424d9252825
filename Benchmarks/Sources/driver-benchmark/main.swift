// driver-benchmark WORKLOAD BATCH COUNT: carries COUNT requests or frames, BATCH at a time, through a frontend and a backend on
// an in-process Xen, and fails when fewer come back: all on one thread, but for block-async and net-async.
// Benchmarks/driver-thresholds counts what that costs.
// driver-benchmark connect disks|cards COUNT threads|hand: connects so many, and prints milliseconds and KiB of memory for each; by
// hand everything is on one thread. Benchmarks/growth runs it, and WORKLOAD BATCH COUNT ROUNDS, which prints the least nanoseconds each.
// driver-benchmark times ROUNDS: by the clock, beside the plain work on the same bytes. Benchmarks/driver-times runs it.
import Glibc
import Measuring
import NetFront

var workloads: [String: (Int) throws -> (Int) throws -> Int] = [
  "block-async": { batch in { try blockAsync(batch: batch, count: $0) } },
  "block-read": { try block(writing: false, batch: $0) },
  "block-write": { try block(writing: true, batch: $0) },
  // The same with the payload written in place.
  "block-place": { try block(writing: true, isInPlace: true, batch: $0) },
  // Reads of 128 KiB, each an indirect request.
  "block-long": { try block(writing: false, byteCount: 131_072, batch: $0) },
  "net-async": { batch in { try netAsync(batch: batch, count: $0) } },
  // Frames of 1500 bytes.
  "net-echo": { try netEcho(NetFeatures(splitEventChannels: false), frameByteCount: 1500, batch: $0) },
  // The same with an event channel for each ring, and so more events when there is little to do.
  "net-split": { try netEcho(NetFeatures(), frameByteCount: 1500, batch: $0) },
  // The same with blank checksums, which both ends leave blank.
  "net-blank": { try netEcho(NetFeatures(), frameByteCount: 1500, isUnfinished: true, batch: $0) },
  // The same with frames of 64 bytes.
  "net-short": { try netEcho(NetFeatures(), frameByteCount: 64, isUnfinished: true, batch: $0) },
  // Packets of 65535 bytes to be cut, which nobody cuts: 17 slots.
  "net-gso": { try netEcho(NetFeatures(), frameByteCount: 65535, isUnfinished: true, batch: $0) },
  // Such packets cut in software.
  "net-segments": { _ in netSegments() },
  // Frames of 16 slots.
  "net-long": { try netEcho(NetFeatures(), frameByteCount: 65535, batch: $0) },
]
// As many requests or frames to each of several devices, each of a guest of its own; and to each queue of one device.
for count in [1, 4, 16, 64] {
  workloads["block-devices-\(count)"] = { try blockFleet(guestCount: count, queueCount: 1, batch: $0) }
  workloads["net-devices-\(count)"] = { try netFleet(guestCount: count, queueCount: 1, batch: $0) }
}
for count in [1, 2, 4, 8] {
  workloads["block-queues-\(count)"] = { try blockFleet(guestCount: 1, queueCount: count, batch: $0) }
  workloads["net-queues-\(count)"] = { try netFleet(guestCount: 1, queueCount: count, batch: $0) }
}

let arguments = CommandLine.arguments
if arguments.count == 3, arguments[1] == "times", let rounds = Int(arguments[2]), rounds > 0 {
  try printTimes(rounds: rounds)
} else if arguments.count == 5, arguments[1] == "connect", let count = Int(arguments[3]), count > 0 {
  let onThreads = arguments[4] == "threads"
  if arguments[2] == "cards" {
    try printConnecting(guestCount: count, onThreads: onThreads) { try cardFleet(guestCount: $0, host: $1) }
  } else {
    try printConnecting(guestCount: count, onThreads: onThreads) { try diskFleet(guestCount: $0, host: $1) }
  }
} else if arguments.count == 5, let workload = workloads[arguments[1]], let batch = Int(arguments[2]), batch > 0,
  let count = Int(arguments[3]), count > 0, let rounds = Int(arguments[4]), rounds > 0
{
  let carry = try workload(batch)
  let turns = try Turns(rounds: rounds, [{ try nanosecondsEach(of: count) { try carry(count) } }])
  print(turns.least(0).fixed(0))
} else if arguments.count == 4, let workload = workloads[arguments[1]], let batch = Int(arguments[2]), batch > 0,
  let count = Int(arguments[3]), count > 0
{
  let carried = try workload(batch)(count)
  print(carried)
  exit(carried == count ? 0 : 1)
} else {
  print("usage: driver-benchmark \(workloads.keys.sorted().joined(separator: "|")) BATCH COUNT, or: times ROUNDS")
  exit(2)
}
