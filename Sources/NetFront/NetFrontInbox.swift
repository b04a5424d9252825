import NetIf
import Synchronization

/// What has arrived at a card, and the tasks that wait for it.
final class NetFrontInbox: Sendable {
  private struct Receiver {
    let id: UInt64
    let continuation: CheckedContinuation<NetFrameBatch?, Never>
  }

  private struct Contents {
    /// What nobody has received yet.
    var arrived = NetFrameBatch()
    var lostCount: UInt64 = 0
    var receivers: [Receiver] = []
    /// Nobody waits any more; or not while the card is gone.
    var isClosed = false
    var isGone = false
  }

  private let contents = Mutex(Contents())
  private let lastID = Atomic<UInt64>(0)

  /// Frames that found no room.
  var lostCount: UInt64 { contents.withLock(\.lostCount) }

  /// What has arrived, as soon as something has; nil when the card is closed or gone, or the task cancelled.
  func receive() async -> NetFrameBatch? {
    let id = lastID.wrappingAdd(1, ordering: .relaxed).newValue
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let result: NetFrameBatch?? = contents.withLock { contents in
          if !contents.arrived.isEmpty {
            var batch = NetFrameBatch()
            swap(&batch, &contents.arrived)
            return .some(batch)
          }
          if contents.isClosed || contents.isGone { return .some(nil) }
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

  /// Hands a batch over, or adds it to what nobody has received so far, as far as there is room; leaves it empty.
  func deliver(_ batch: inout NetFrameBatch) {
    let receiver: Receiver? = contents.withLock { contents in
      if !contents.receivers.isEmpty { return contents.receivers.removeFirst() }
      if contents.arrived.isEmpty, batch.count <= NetFrontCard.receivedCapacity,
        batch.byteCount <= NetFrontCard.receivedByteCapacity
      {
        swap(&contents.arrived, &batch)
        return nil
      }
      for index in batch.indices {
        let frame = batch[index]
        if contents.arrived.count < NetFrontCard.receivedCapacity,
          contents.arrived.byteCount + frame.count <= NetFrontCard.receivedByteCapacity
        {
          contents.arrived.append(frame.span, batch.metadata(at: index))
        } else {
          contents.lostCount &+= 1
        }
      }
      batch.removeAll()
      return nil
    }
    guard let receiver else { return }
    // The next batch is likely as large: its memory is allocated at once, and not as it grows.
    var taken = NetFrameBatch(capacityOf: batch)
    swap(&taken, &batch)
    receiver.continuation.resume(returning: taken)
  }

  /// Nothing more arrives: what is there can still be received.
  func close() { end { $0.isClosed = true } }

  /// The same, until the card is there again.
  func setGone(_ isGone: Bool) {
    if isGone { end { $0.isGone = true } } else { contents.withLock { $0.isGone = false } }
  }

  private func end(_ change: (inout Contents) -> Void) {
    let receivers = contents.withLock { contents in
      change(&contents)
      defer { contents.receivers = [] }
      return contents.receivers
    }
    for receiver in receivers { receiver.continuation.resume(returning: nil) }
  }
}
