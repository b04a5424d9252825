import BlkBack
import Synchronization

/// Remembers what it was asked for.
final class RecordingStore: BlockStore {
  private let memory: MemoryStore
  private let lines = Mutex<[String]>([])

  init(sectorCount: UInt64) { memory = MemoryStore(sectorCount: sectorCount) }

  var geometry: BlockGeometry { memory.geometry }
  var record: [String] { lines.withLock { $0 } }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      lines.withLock { $0.append("\(requests[index].kind) \(requests[index].sector)") }
    }
    memory.submit(requests, to: &completions)
  }
}

/// Completes later, and last come first.
final class ReorderingStore: BlockStore {
  private let store: any BlockStore
  private let waiting = Mutex<[StoreRequest]>([])
  private let wakeup = try! Wakeup()

  init(_ store: any BlockStore) { self.store = store }

  var geometry: BlockGeometry { store.geometry }
  var completionDescriptor: CInt? { wakeup.descriptor }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    waiting.withLock { for index in requests.indices { $0.append(requests[index]) } }
    wakeup.signal()
  }

  func reap(into completions: inout StoreCompletions) {
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

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices { completions.complete(requests[index], succeeded: requests[index].kind != .read) }
  }
}
