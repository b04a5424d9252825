import BlkIf
import Synchronization

/// What tasks ask of the disk's thread, and what it shows them.
final class BlkFrontMailbox: Sendable {
  private struct Contents {
    var calls: [BlkFrontCall] = []
    var cancelledIDs: [UInt64] = []
    /// No call is taken any more.
    var isClosed = false
    var hasEnded = false
    var waitingForEnd: [CheckedContinuation<Void, Never>] = []
    var geometry = BlockGeometry(sectorCount: 0)
    var negotiation = Negotiation()

    var isEmpty: Bool { calls.isEmpty && cancelledIDs.isEmpty }
  }

  private let contents: Mutex<Contents>
  private let lastID = Atomic<UInt64>(0)

  init() {
    var contents = Contents()
    contents.calls.reserveCapacity(64)
    contents.cancelledIDs.reserveCapacity(64)
    self.contents = Mutex(contents)
  }

  var geometry: BlockGeometry { contents.withLock(\.geometry) }
  var negotiation: Negotiation { contents.withLock(\.negotiation) }

  func newID() -> UInt64 { lastID.wrappingAdd(1, ordering: .relaxed).newValue }

  // MARK: From any task

  /// Leaves the call for the thread, or fails it when there is none.
  ///
  /// - Returns: whether the thread must be woken for it: it takes everything that has come since it was woken.
  func put(_ call: BlkFrontCall) -> Bool {
    let wake: Bool? = contents.withLock { contents in
      if contents.isClosed { return nil }
      defer { contents.calls.append(call) }
      return contents.isEmpty
    }
    if wake == nil { call.continuation.resume(throwing: BlkFrontError.notConnected) }
    return wake ?? false
  }

  /// Otherwise as ``put(_:)``.
  func cancel(_ id: UInt64) -> Bool {
    contents.withLock { contents in
      if contents.hasEnded { return false }
      defer { contents.cancelledIDs.append(id) }
      return contents.isEmpty
    }
  }

  func close() { contents.withLock { $0.isClosed = true } }

  /// Returns when the thread is over.
  func end() async {
    await withCheckedContinuation { continuation in
      let hasEnded = contents.withLock { contents in
        if !contents.hasEnded { contents.waitingForEnd.append(continuation) }
        return contents.hasEnded
      }
      if hasEnded { continuation.resume() }
    }
  }

  // MARK: From the thread

  /// Exchanges what has come for the two empty arrays, so that neither side allocates.
  ///
  /// - Returns: whether the disk has been closed.
  func take(_ calls: inout [BlkFrontCall], _ cancelledIDs: inout [UInt64]) -> Bool {
    contents.withLock { contents in
      swap(&contents.calls, &calls)
      swap(&contents.cancelledIDs, &cancelledIDs)
      return contents.isClosed
    }
  }

  func show(_ geometry: BlockGeometry, _ negotiation: Negotiation) {
    contents.withLock { ($0.geometry, $0.negotiation) = (geometry, negotiation) }
  }

  func setEnded() {
    let waiting = contents.withLock { contents in
      contents.hasEnded = true
      defer { contents.waitingForEnd = [] }
      return contents.waitingForEnd
    }
    for continuation in waiting { continuation.resume() }
  }
}
