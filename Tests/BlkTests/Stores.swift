import BlkBack
import Synchronization

/// Remembers what it was asked for.
final class RecordingStore: BlockStore {
  private let memory: MemoryStore
  private let lines = Mutex<[String]>([])

  convenience init(sectorCount: UInt64) { self.init(geometry: BlockGeometry(sectorCount: sectorCount)) }

  convenience init(geometry: BlockGeometry) { self.init(MemoryStore(geometry: geometry)) }

  init(_ memory: MemoryStore) { self.memory = memory }

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

  /// Each queue has its own to complete.
  func makeQueue() throws(ResourceError) -> any BlockStore { ReorderingStore(store) }

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

/// Completes nothing before it is told to, and then everything at once.
final class HoldingStore: BlockStore {
  private struct Contents {
    var held: [StoreRequest] = []
    var submittedCount = 0
    var holds = true
  }

  private let store: any BlockStore
  private let contents = Mutex(Contents())
  private let wakeup = try! Wakeup()

  init(_ store: any BlockStore) { self.store = store }

  var geometry: BlockGeometry { store.geometry }
  var completionDescriptor: CInt? { wakeup.descriptor }
  var heldCount: Int { contents.withLock(\.held.count) }
  var submittedCount: Int { contents.withLock(\.submittedCount) }

  /// Completes what it has, and from now on everything that comes.
  func letGo() {
    contents.withLock { $0.holds = false }
    wakeup.signal()
  }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    contents.withLock { contents in
      contents.submittedCount += requests.count
      for index in requests.indices { contents.held.append(requests[index]) }
      if !contents.holds { wakeup.signal() }
    }
  }

  func reap(into completions: inout StoreCompletions) {
    wakeup.clear()
    let requests = contents.withLock { contents -> [StoreRequest] in
      guard !contents.holds else { return [] }
      defer { contents.held = [] }
      return contents.held
    }
    store.submit(requests.span, to: &completions)
  }
}

/// A flag that one task sets and another looks at.
final class Ended: Sendable {
  private let flag = Atomic(false)

  var isSet: Bool { flag.load(ordering: .acquiring) }

  func set() { flag.store(true, ordering: .releasing) }
}

/// Has more sectors from one moment to the next.
final class GrowingStore: BlockStore {
  private let memory = MemoryStore(sectorCount: 4096)
  private let state: Mutex<(sectorCount: UInt64, attention: (@Sendable () -> Void)?)>

  init(sectorCount: UInt64) { state = Mutex((sectorCount, nil)) }

  var geometry: BlockGeometry { BlockGeometry(sectorCount: state.withLock(\.sectorCount)) }

  /// A driver that serves this store, and hears of its growth.
  var driver: BlkBackDriver {
    BlkBackDriver { device in
      let attention = device.attention
      self.state.withLock { $0.attention = attention }
      return self
    }
  }

  func grow(to sectorCount: UInt64) {
    let attention = state.withLock { state in
      state.sectorCount = sectorCount
      return state.attention
    }
    attention?()
  }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    memory.submit(requests, to: &completions)
  }
}
