// driver-benchmark WORKLOAD BATCH COUNT: carries COUNT requests or frames, BATCH at a time, through a frontend and a backend on
// an in-process Xen, and fails when fewer come back: all on one thread, but for block-async. Benchmarks/driver-thresholds counts
// what that costs.
import Glibc

let workloads: [String: (Int, Int) throws -> Int] = [
  "block-async": blockAsync,
  "block-read": { try blockRequests(writing: false, batch: $0, count: $1) },
  "block-write": { try blockRequests(writing: true, batch: $0, count: $1) },
  "net-echo": netEcho,
]

let arguments = CommandLine.arguments
guard arguments.count == 4, let workload = workloads[arguments[1]], let batch = Int(arguments[2]), batch > 0,
  let count = Int(arguments[3]), count > 0
else {
  print("usage: driver-benchmark \(workloads.keys.sorted().joined(separator: "|")) BATCH COUNT")
  exit(2)
}
let carried = try workload(batch, count)
print(carried)
exit(carried == count ? 0 : 1)
