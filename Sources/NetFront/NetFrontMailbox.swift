import NetIf
import Synchronization

/// What tasks ask of a card's thread, and what it has for them.
final class NetFrontMailbox: Sendable {
  private struct Receiver {
    let id: UInt64
    let continuation: CheckedContinuation<NetFrameBatch?, Never>
  }

  private struct Contents {
    var calls: [NetFrontCall] = []
    var cancelledIDs: [UInt64] = []
    /// What has arrived and has not been received.
    var arrived = NetFrameBatch()
    var lostCount: UInt64 = 0
    var receivers: [Receiver] = []
    /// No call is taken any more.
    var isClosed = false
    var hasEnded = false
    var waitingForEnd: [CheckedContinuation<Void, Never>] = []
    var facts = NetFrontFacts()
    var statistics = NetStatistics()

    var isEmpty: Bool { calls.isEmpty && cancelledIDs.isEmpty }
  }

  private let contents = Mutex(Contents())
  private let lastID = Atomic<UInt64>(0)

  var facts: NetFrontFacts { contents.withLock(\.facts) }

  var statistics: NetStatistics {
    contents.withLock { contents in
      var statistics = contents.statistics
      statistics.rx.drops &+= contents.lostCount
      return statistics
    }
  }

  func newID() -> UInt64 { lastID.wrappingAdd(1, ordering: .relaxed).newValue }

  // MARK: From any task

  /// Leaves the call for the thread, or fails it when there is none.
  ///
  /// - Returns: whether the thread must be woken for it: it takes everything that has come since it was woken.
  func put(_ call: NetFrontCall) -> Bool {
    let wake: Bool? = contents.withLock { contents in
      if contents.isClosed { return nil }
      defer { contents.calls.append(call) }
      return contents.isEmpty
    }
    if wake == nil { call.continuation.resume(throwing: NetFrontError.notConnected) }
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

  /// What has arrived, as soon as something has; nil when the card is closed or the task cancelled.
  func receive() async -> NetFrameBatch? {
    let id = newID()
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let result: NetFrameBatch?? = contents.withLock { contents in
          if !contents.arrived.isEmpty {
            var batch = NetFrameBatch()
            swap(&batch, &contents.arrived)
            return .some(batch)
          }
          if contents.isClosed { return .some(nil) }
          contents.receivers.append(Receiver(id: id, continuation: continuation))
          return nil
        }
        if let result { continuation.resume(returning: result) }
        // A cancellation that came before found nothing to cancel.
        if Task.isCancelled { cancelReceiver(id) }
      }
    } onCancel: {
      cancelReceiver(id)
    }
  }

  private func cancelReceiver(_ id: UInt64) {
    let receiver = contents.withLock { contents in
      contents.receivers.firstIndex { $0.id == id }.map { contents.receivers.remove(at: $0) }
    }
    receiver?.continuation.resume(returning: nil)
  }

  func close() {
    let receivers = contents.withLock { contents in
      contents.isClosed = true
      defer { contents.receivers = [] }
      return contents.receivers
    }
    for receiver in receivers { receiver.continuation.resume(returning: nil) }
  }

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
  /// - Returns: whether the card has been closed.
  func take(_ calls: inout [NetFrontCall], _ cancelledIDs: inout [UInt64]) -> Bool {
    contents.withLock { contents in
      swap(&contents.calls, &calls)
      swap(&contents.cancelledIDs, &cancelledIDs)
      return contents.isClosed
    }
  }

  /// Hands a batch over, or adds it to what nobody has received so far, as far as there is room; leaves it empty.
  func deliver(_ batch: inout NetFrameBatch) {
    let receiver: Receiver? = contents.withLock { contents in
      if !contents.receivers.isEmpty { return contents.receivers.removeFirst() }
      if contents.arrived.isEmpty {
        swap(&contents.arrived, &batch)
        return nil
      }
      for frame in batch {
        if contents.arrived.count < NetFrontCard.receivedCapacity,
          contents.arrived.byteCount + frame.count <= NetFrontCard.receivedByteCapacity
        {
          contents.arrived.append(frame.span)
        } else {
          contents.lostCount &+= 1
        }
      }
      batch.removeAll()
      return nil
    }
    guard let receiver else { return }
    var taken = NetFrameBatch()
    swap(&taken, &batch)
    receiver.continuation.resume(returning: taken)
  }

  func show(_ facts: NetFrontFacts) { contents.withLock { $0.facts = facts } }

  func show(_ statistics: NetStatistics, hasCarrier: Bool) {
    contents.withLock { contents in
      contents.statistics = statistics
      contents.facts.hasCarrier = hasCarrier
    }
  }

  func setEnded() {
    close()
    let waiting = contents.withLock { contents in
      contents.hasEnded = true
      defer { contents.waitingForEnd = [] }
      return contents.waitingForEnd
    }
    for continuation in waiting { continuation.resume() }
  }
}
