import BlkBack
import Logging
import Synchronization

extension Logger {
  /// For tests that provoke errors on purpose.
  static let silent = Logger(label: "silent") { _ in SwiftLogNoOpLogHandler() }
}

/// Bytes that differ from place to place and from seed to seed.
func pattern(_ byteCount: Int, seed: Int) -> [UInt8] {
  (0..<byteCount).map { UInt8(truncatingIfNeeded: ($0 &* 31) ^ ($0 >> 8) &+ seed &* 17) }
}

/// A generator whose whole state is its seed, so that a failing run can be repeated.
struct Random: RandomNumberGenerator {
  private var state: UInt64

  init(_ seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return (state ^ (state >> 33)) &* 0xFF51_AFD7_ED55_8CCD
  }
}

/// Remembers what it was asked for.
final class RecordingStore: BlockStore {
  private let memory: MemoryStore
  private let lines = Mutex<[String]>([])

  init(sectorCount: UInt64) { memory = MemoryStore(sectorCount: sectorCount) }

  var geometry: BlockGeometry { memory.geometry }
  var record: [String] { lines.withLock { $0 } }

  func submit(_ requests: Span<BlockRequest>, to completions: inout BlockCompletions) {
    for index in requests.indices {
      lines.withLock { $0.append("\(requests[index].kind) \(requests[index].sector)") }
    }
    memory.submit(requests, to: &completions)
  }
}

/// Completes later, and last come first.
final class ReorderingStore: BlockStore {
  private let store: any BlockStore
  private let waiting = Mutex<[BlockRequest]>([])
  private let wakeup = Wakeup()

  init(_ store: any BlockStore) { self.store = store }

  var geometry: BlockGeometry { store.geometry }
  var completionDescriptor: CInt? { wakeup.descriptor }

  func submit(_ requests: Span<BlockRequest>, to completions: inout BlockCompletions) {
    waiting.withLock { for index in requests.indices { $0.append(requests[index]) } }
    wakeup.signal()
  }

  func reap(into completions: inout BlockCompletions) {
    wakeup.clear()
    let requests = waiting.withLock { waiting in
      defer { waiting = [] }
      return Array(waiting.reversed())
    }
    store.submit(requests.span, to: &completions)
  }
}

/// Fails every read.
final class BrokenStore: BlockStore {
  let geometry = BlockGeometry(sectorCount: 64)

  func submit(_ requests: Span<BlockRequest>, to completions: inout BlockCompletions) {
    for index in requests.indices { completions.complete(requests[index], succeeded: requests[index].kind != .read) }
  }
}
