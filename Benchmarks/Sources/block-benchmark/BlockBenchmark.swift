import ArgumentParser
import BlkFront
import BlockStores
import SystemPackage

/// One measurement of a disk on the in-process Xen: BlkFront on this thread, BlkBack's queues on threads of their own, an image
/// behind them.
@main struct BlockBenchmark: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "block-benchmark",
    abstract: "Reads or writes a disk through both ends for a while, and prints what that came to.",
    discussion: """
      Prints requests a second, MiB a second, processor seconds of this process for each second, and by how many KiB its \
      resident memory has grown meanwhile. Benchmarks/block-times runs it beside fio on the same file, Benchmarks/block-growth \
      looks at the last figure.
      """)

  @Argument(help: "The image, which is written over where --workload writes.")
  var image: String

  @Option(help: ArgumentHelp("read, write, randread or randwrite, as fio has them.", valueName: "workload"))
  var workload = Workload.randread

  @Option(help: ArgumentHelp("Bytes of one request: a multiple of 4096.", valueName: "bytes"))
  var blockSize = 4096

  @Option(help: ArgumentHelp("Requests in flight.", valueName: "count"))
  var depth = 32

  @Option(help: ArgumentHelp("How long at most.", valueName: "seconds"))
  var seconds = 2.0

  @Option(help: ArgumentHelp("How many at most, when it is not for the time alone.", valueName: "count"))
  var requests = Int.max

  @Option(help: ArgumentHelp("Rings of the disk, each with a thread of the backend's.", valueName: "count"))
  var queues = 1

  @Option(
    help: ArgumentHelp(
      "How long a thread looks for work at most before it sleeps; 0 never to.", valueName: "microseconds"))
  var looking = AdaptiveSleep.defaultMaxNanoseconds / 1000

  @Flag(help: "Past the page cache (O_DIRECT).")
  var direct = false

  @Flag(help: "Copy each payload out of, or into, the pages that are shared, in place of using it there.")
  var copies = false

  @Flag(help: "Serve memory, as large as the image.")
  var memory = false

  @Flag(
    help: """
      Print instead in how many microseconds 50, 99 and 99.9 of a hundred requests were completed, the microseconds of \
      processor time for each, and how many there were a second. For --depth 1.
      """)
  var latency = false

  func validate() throws {
    guard !latency || depth == 1 else { throw ValidationError("--latency is for --depth 1.") }
    guard blockSize > 0, blockSize % 4096 == 0 else { throw ValidationError("--block-size is a multiple of 4096.") }
    guard (1...512).contains(depth) else { throw ValidationError("--depth is from 1 to 512.") }
    guard requests > 0 else { throw ValidationError("--requests is positive.") }
    guard seconds > 0 else { throw ValidationError("--seconds is positive.") }
    guard (1...64).contains(queues) else { throw ValidationError("--queues is from 1 to 64.") }
  }

  func run() throws {
    let disk = try DiskUnderTest(
      image: FilePath(image), isDirect: direct, isInMemory: memory, blockByteCount: blockSize, depth: depth,
      queueCount: queues,
      sleep: AdaptiveSleep(maxNanoseconds: min(looking, 1_000_000) * 1000))
    let figures = try disk.measure(workload, copies: copies, seconds: seconds, requests: requests)
    disk.close()
    print(latency ? "\(figures.latency) \(Int(Double(figures.requests) / figures.seconds))" : "\(figures)")
  }
}

enum Workload: String, ExpressibleByArgument, CaseIterable {
  case read, write, randread, randwrite

  var writes: Bool { self == .write || self == .randwrite }
  var isRandom: Bool { self == .randread || self == .randwrite }
}
