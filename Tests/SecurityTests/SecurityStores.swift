import BlkBack
import Synchronization

/// A disk that has a test's say before and after each batch, while its requests are being processed.
final class AttackedStore: BlockStore {
  private let store: any BlockStore
  private let hook: Mutex<(@Sendable () -> Void)?>
  private let seen = Mutex<[StoreRequest]>([])

  init(_ store: any BlockStore = MemoryStore(sectorCount: 64)) {
    self.store = store
    hook = Mutex(nil)
  }

  /// Called when a batch has been handed over, before it is done.
  func whenSubmitted(_ body: (@Sendable () -> Void)?) { hook.withLock { $0 = body } }

  var geometry: BlockGeometry { store.geometry }
  var kinds: [BlkRequest.Kind] { seen.withLock { $0.map(\.kind) } }
  var sectors: [UInt64] { seen.withLock { $0.map(\.sector) } }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    seen.withLock { for index in requests.indices { $0.append(requests[index]) } }
    hook.withLock { $0 }?()
    store.submit(requests, to: &completions)
  }
}

/// Completes nothing before it is told to.
final class WaitingStore: BlockStore {
  private let store: any BlockStore
  private let held = Mutex<(requests: [StoreRequest], isOpen: Bool)>(([], false))
  private let wakeup = try! Wakeup()

  init(_ store: any BlockStore = MemoryStore(sectorCount: 64)) { self.store = store }

  var geometry: BlockGeometry { store.geometry }
  var completionDescriptor: CInt? { wakeup.descriptor }
  var count: Int { held.withLock(\.requests.count) }

  /// Completes what it has and whatever comes.
  func open() {
    held.withLock { $0.isOpen = true }
    wakeup.signal()
  }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    held.withLock { for index in requests.indices { $0.requests.append(requests[index]) } }
    wakeup.signal()
  }

  func reap(into completions: inout StoreCompletions) {
    wakeup.clear()
    let requests = held.withLock { held -> [StoreRequest] in
      guard held.isOpen else { return [] }
      defer { held.requests = [] }
      return held.requests
    }
    store.submit(requests.span, to: &completions)
  }
}

/// Fails reads from some sector on, without having touched their payload.
final class FailingStore: BlockStore {
  private let store: any BlockStore
  private let firstBad: UInt64

  init(_ store: any BlockStore = MemoryStore(sectorCount: 64), from firstBad: UInt64) {
    (self.store, self.firstBad) = (store, firstBad)
  }

  var geometry: BlockGeometry { store.geometry }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      if requests[index].kind == .read, requests[index].sector >= firstBad {
        completions.complete(requests[index], succeeded: false)
      } else {
        store.submit(requests.extracting(index..<index + 1), to: &completions)
      }
    }
  }
}

/// A box for what a closure that may run anywhere has to reach; here everything runs on one thread.
final class OnOneThread<Value>: @unchecked Sendable {
  var value: Value

  init(_ value: Value) { self.value = value }
}
