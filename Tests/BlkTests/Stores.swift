import BlkBack
import BlockStores
import Synchronization

/// A disk in memory whose bytes a test sees past everybody, which discards to zeros, and whose size may change.
final class ModelDisk: BlockStore {
  private let pages: PrivatePages
  private let shape: Mutex<BlockGeometry>

  /// - Parameter capacity: the sectors that it may grow to; nil for as many as it has.
  init(_ geometry: BlockGeometry, capacity: UInt64? = nil) {
    shape = Mutex(geometry)
    pages = PrivatePages(pageCount: Int((capacity ?? geometry.sectorCount) + 7) / 8)
  }

  convenience init(sectorCount: UInt64) {
    self.init(BlockGeometry(sectorCount: sectorCount, discard: DiscardLimits(granularity: 512, isSecure: true)))
  }

  var geometry: BlockGeometry { shape.withLock { $0 } }

  /// Somebody then has to call for attention.
  func resize(to sectorCount: UInt64) { shape.withLock { $0.sectorCount = sectorCount } }

  func bytes(sector: UInt64, sectorCount: Int) -> [UInt8] {
    pages.bytes.slice(from: Int(sector) * 512, count: sectorCount * 512).copied()
  }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    let size = geometry.sectorCount
    for index in requests.indices {
      let request = requests[index]
      guard request.sector + request.sectorCount <= size else {
        completions.fail(request, because: "the disk has become smaller")
        continue
      }
      let place = pages.bytes.slice(from: Int(request.offset), count: Int(request.sectorCount) * 512)
      switch request.kind {
      case .read: request.payload.copy(from: place)
      case .write, .writeBarrier: request.payload.copy(to: place)
      case .flush: break
      case .discard, .secureDiscard: place.zero()
      }
      completions.complete(request)
    }
  }
}

/// Remembers what it was asked for.
final class RecordingStore: BlockStore {
  private let shape: BlockGeometry?
  private let store: (any BlockStore)?
  private let lines = Mutex<[(line: String, sectorCount: UInt64)]>([])

  /// - Parameter store: does what it is asked for; nil for nobody.
  init(_ geometry: BlockGeometry, on store: (any BlockStore)? = nil) { (shape, self.store) = (geometry, store) }

  convenience init(sectorCount: UInt64) {
    self.init(BlockGeometry(sectorCount: sectorCount), on: MemoryStore(sectorCount: sectorCount))
  }

  /// What it is like is the other's word, which may change.
  init(_ store: any BlockStore) { (shape, self.store) = (nil, store) }

  var geometry: BlockGeometry { shape ?? store?.geometry ?? BlockGeometry(sectorCount: 0) }
  var record: [String] { lines.withLock { $0.map(\.line) } }
  var sectorCounts: [UInt64] { lines.withLock { $0.map(\.sectorCount) } }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      let request = requests[index]
      lines.withLock { $0.append(("\(request.kind) \(request.sector)", request.sectorCount)) }
      if store == nil { completions.complete(request) }
    }
    store?.submit(requests, to: &completions)
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
    var fails = false
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

  /// The same, but nothing of it is done.
  func giveUp() {
    contents.withLock { $0.fails = true }
    letGo()
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
    guard !contents.withLock(\.fails) else {
      for request in requests { completions.complete(request, succeeded: false) }
      return
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

extension FileStoreOptions {
  /// Each request is done when it is submitted: the kernel's time is not that of a simulation's scheduler.
  static var atOnce: FileStoreOptions {
    var options = FileStoreOptions()
    options.usesIOUring = false
    return options
  }
}
