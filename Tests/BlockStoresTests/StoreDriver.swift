import BlkBack
import Glibc
import SystemPackage
import TestSupport

/// A queue of a store, worked by hand: requests with their payload in pages of our own.
final class StoreDriver {
  let queue: any BlockStore
  private let pages: PrivatePages
  private let table: SharedPieceTable
  private var requests: [StoreRequest] = []
  private var usedPieces = 0
  private(set) var results: [Int: Bool] = [:]
  /// Why the first that failed since did.
  private(set) var failure: String?

  /// - Parameter queue: the store itself, or one of its queues.
  init(_ queue: any BlockStore, pageCount: Int = 512, pieceCount: Int = 8192) {
    self.queue = queue
    pages = PrivatePages(pageCount: pageCount)
    table = SharedPieceTable(capacity: pieceCount)
  }

  /// A queue of the store's.
  convenience init(queueOf store: any BlockStore, pageCount: Int = 512, pieceCount: Int = 8192) throws {
    try self.init(store.makeQueue(), pageCount: pageCount, pieceCount: pieceCount)
  }

  /// All the memory there is for payload.
  var memory: SharedBytes { pages.bytes }

  /// Puts a request whose payload lies at these places of ``memory``; its number.
  @discardableResult func put(
    _ kind: BlkRequest.Kind, sector: UInt64, sectorCount: UInt64? = nil, _ places: [Range<Int>] = []
  ) -> Int {
    let slot = requests.count
    var payload: SharedPieces?
    for place in places {
      payload = table.append(
        memory.slice(from: place.lowerBound, count: place.count), to: payload, at: usedPieces)
    }
    usedPieces += places.count
    requests.append(
      StoreRequest(
        kind: kind, sector: sector, sectorCount: sectorCount ?? UInt64((payload?.byteCount ?? 0) / 512),
        payload: payload ?? .none, slot: slot, owner: ObjectIdentifier(self)))
    return slot
  }

  /// Gives what was put since to the store, in one batch, and takes what it completes at once.
  func submit() {
    collect { queue.submit(requests[requests.startIndex..<requests.endIndex].dropFirst(submitted).array.span, to: &$0) }
    submitted = requests.count
  }

  private var submitted = 0

  func reap() { collect { queue.reap(into: &$0) } }

  private func collect(_ body: (inout StoreCompletions) -> Void) {
    var completions = StoreCompletions(owner: ObjectIdentifier(self), capacity: 512)
    body(&completions)
    for index in 0..<completions.count {
      let completion = completions[index]
      precondition(results.updateValue(completion.succeeded, forKey: completion.request.slot) == nil, "completed twice")
    }
    failure = failure ?? completions.failure
  }

  /// Submits, and waits until everything has been completed.
  ///
  /// - Returns: whether all of it was in time.
  @discardableResult func run(seconds: Double = 300) -> Bool {
    submit()
    let deadline = Uptime.now.nanoseconds + UInt64(seconds * 1e9)
    while results.count < requests.count {
      guard Uptime.now.nanoseconds < deadline, let descriptor = queue.completionDescriptor else { return false }
      Wakeup.wait(for: descriptor, timeout: 50)
      reap()
    }
    return true
  }

  /// Forgets what has been done, and why something failed.
  func forget() {
    precondition(results.count == requests.count, "nothing is under way")
    (requests, results, failure, usedPieces, submitted) = ([], [:], nil, 0, 0)
  }

  /// One request alone: whether it succeeded.
  func perform(
    _ kind: BlkRequest.Kind, sector: UInt64, sectorCount: UInt64? = nil, _ places: [Range<Int>] = []
  ) -> Bool {
    put(kind, sector: sector, sectorCount: sectorCount, places)
    guard run() else { return false }
    defer { forget() }
    return results[0]!
  }

  /// Writes bytes from the start of the memory on.
  func write(_ bytes: [UInt8], sector: UInt64) -> Bool {
    memory.slice(from: 0, count: bytes.count).copy(from: bytes.span)
    return perform(.write, sector: sector, [0..<bytes.count])
  }

  /// Nil when it failed.
  func read(sector: UInt64, byteCount: Int) -> [UInt8]? {
    memory.slice(from: 0, count: byteCount).copy(from: [UInt8](repeating: 0xEE, count: byteCount).span)
    guard perform(.read, sector: sector, [0..<byteCount]) else { return nil }
    return memory.slice(from: 0, count: byteCount).copied()
  }
}

extension Sequence {
  var array: [Element] { Array(self) }
}

/// Runs `body` on a thread of its own, which has ended when `join()` returns.
func onThread(_ body: @escaping () -> Void) -> OneThread { OneThread(body) }

final class OneThread {
  private let body: () -> Void
  private var handle = pthread_t()

  init(_ body: @escaping () -> Void) {
    self.body = body
    // Safe: whoever made us joins.
    let result = unsafe pthread_create(
      &handle, nil,
      {
        unsafe Unmanaged<OneThread>.fromOpaque($0!).takeUnretainedValue().body()
        return nil
      }, Unmanaged.passUnretained(self).toOpaque())
    precondition(result == 0, "a thread can be made")
  }

  func join() { _ = pthread_join(handle, nil) }
}
