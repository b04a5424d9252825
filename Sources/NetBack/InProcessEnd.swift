import NetIf
import Synchronization

/// A card's other end in the same process: another thread, or a task, sends frames to the guest and receives what the guest
/// sends.
///
/// One at a time may use it, beside the card's queues, which share it. What is not received waits, in memory that does not
/// grow, and is lost when that is full.
///
/// Sendable: what is not under a lock belongs to one of the two sides, as it says.
public final class InProcessEnd: NetworkEnd, @unchecked Sendable {
  /// What the guest has sent, and who waits for it.
  private struct Arrivals: ~Copyable, Sendable {
    var queue: FrameQueue
    var waiting: [Waiting] = []
    var isClosed = false
  }

  private struct Waiting {
    let id: UInt64
    let continuation: CheckedContinuation<Void, Never>
  }

  public let offloads: NetOffloads
  private let toGuest: Mutex<FrameQueue>
  private let fromGuest: Mutex<Arrivals>
  private let wakesGuest: Wakeup
  private let wakesUser: Wakeup
  private let isLinkUp = Atomic(true)
  private let taken = Atomic<UInt8>(0)
  private let lastWaiting = Atomic<UInt64>(0)
  /// The card's first queue's, which alone is asked for frames: taken out of `toGuest`, to be put when the guest has room.
  private var giving: FrameQueue
  /// The user's: taken out of `fromGuest`.
  private var received: FrameQueue

  /// - Parameters:
  ///   - capacity: how many frames may wait each way; positive. Long ones may be fewer.
  ///   - offloads: what may arrive here unfinished (``NetworkFrame/metadata``).
  /// - Throws: when the process has no file descriptors left.
  public init(capacity: Int = 256, offloads: NetOffloads = []) throws(ResourceError) {
    self.offloads = offloads
    wakesGuest = try Wakeup()
    wakesUser = try Wakeup()
    toGuest = Mutex(FrameQueue(capacity: capacity))
    fromGuest = Mutex(Arrivals(queue: FrameQueue(capacity: capacity)))
    giving = FrameQueue(capacity: capacity)
    received = FrameQueue(capacity: capacity)
  }

  deinit { close() }

  // MARK: The user's side

  /// What the guest takes unfinished; nothing before it has connected. Whatever else is sent unfinished is finished on its
  /// way.
  public var guestOffloads: NetOffloads { NetOffloads(rawValue: taken.load(ordering: .relaxed)) }

  /// Sends a frame to the guest; it is copied before this returns.
  ///
  /// - Parameter metadata: what is left to do to it.
  /// - Returns: false when as many frames wait as may, or when it is no frame by its length.
  @discardableResult
  public func send(_ frame: Span<UInt8>, _ metadata: NetPacketMetadata = NetPacketMetadata()) -> Bool {
    let (isPut, isFirst) = toGuest.withLock { queue in
      let isFirst = queue.isEmpty
      return (queue.put(frame, metadata), isFirst)
    }
    if isPut, isFirst { wakesGuest.signal() }
    return isPut
  }

  /// Hands over what the guest has sent, in its order; each frame is valid during its call. Never waits.
  ///
  /// - Returns: how many there were.
  @discardableResult
  public func receive(_ body: (NetworkFrame) -> Void) -> Int {
    wakesUser.clear()
    fromGuest.withLock { swap(&$0.queue, &received) }
    let count = received.count
    while !received.isEmpty {
      body(received[0])
      received.removeFirst()
    }
    return count
  }

  /// What the guest sends, for async programs, in place of ``receive(_:)``: all that has come since the last batch, until
  /// ``close()``. No more waits than there is room for, however slow the program is.
  public var batches: Batches { Batches(end: self) }

  public struct Batches: AsyncSequence, Sendable {
    fileprivate let end: InProcessEnd

    public func makeAsyncIterator() -> Iterator { Iterator(end: end) }

    public struct Iterator: AsyncIteratorProtocol {
      fileprivate let end: InProcessEnd

      /// All frames that have come since the last batch, at least one; nil when the end is closed or the task cancelled.
      public mutating func next() async -> NetFrameBatch? { await end.nextBatch() }

      public mutating func next(isolation actor: isolated (any Actor)?) async -> NetFrameBatch? {
        await end.nextBatch()
      }
    }
  }

  /// Ends ``batches``, when what has arrived until now is through. The card goes on.
  public func close() {
    let waiting = fromGuest.withLock { arrivals in
      arrivals.isClosed = true
      return Self.removeAll(&arrivals.waiting)
    }
    for waiting in waiting { waiting.continuation.resume() }
  }

  /// Whether the link is up; it is at first. The guest is told, and frames pass either way.
  public var hasCarrier: Bool {
    get { isLinkUp.load(ordering: .acquiring) }
    set {
      isLinkUp.store(newValue, ordering: .releasing)
      wakesGuest.signal()
    }
  }

  /// Readable when ``receive(_:)`` would hand something over.
  public var descriptor: CInt { wakesUser.descriptor }

  /// Frames from the guest that found no room here.
  public var dropCount: UInt64 { fromGuest.withLock { $0.queue.dropCount } + received.dropCount }

  // MARK: The card's side

  public var wakeDescriptor: CInt? { wakesGuest.descriptor }

  public func ends(forQueues queueCount: Int, guestOffloads: NetOffloads) throws(DeviceError) -> [any NetworkEnd] {
    taken.store(guestOffloads.rawValue, ordering: .relaxed)
    return Array(repeating: self, count: queueCount)
  }

  public func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
    let (isFirst, waiting) = fromGuest.withLock { arrivals in
      let isFirst = arrivals.queue.isEmpty
      for index in frames.indices { arrivals.queue.put(frames[index]) }
      return (isFirst, arrivals.waiting.isEmpty ? [] : Self.removeAll(&arrivals.waiting))
    }
    if isFirst { wakesUser.signal() }
    for waiting in waiting { waiting.continuation.resume() }
  }

  public func give(to guest: inout FrameQueue) {
    // Also when there is no room, or the descriptor would stay readable; room is another reason to be called.
    wakesGuest.clear()
    while true {
      if giving.isEmpty { toGuest.withLock { swap(&$0, &giving) } }
      guard !giving.isEmpty, guest.hasRoom(for: giving[0].bytes.count) else { return }
      guest.put(giving[0])
      giving.removeFirst()
    }
  }

  // MARK: Tasks that wait

  private static func removeAll(_ waiting: inout [Waiting]) -> [Waiting] {
    var all: [Waiting] = []
    swap(&all, &waiting)
    return all
  }

  private func nextBatch() async -> NetFrameBatch? {
    while true {
      if Task.isCancelled { return nil }
      let (batch, isClosed) = fromGuest.withLock { ($0.queue.isEmpty ? nil : Self.takeAll(&$0.queue), $0.isClosed) }
      if let batch {
        wakesUser.clear()
        return batch
      }
      if isClosed { return nil }
      await waitForFrames()
    }
  }

  private static func takeAll(_ queue: inout FrameQueue) -> NetFrameBatch {
    var batch = NetFrameBatch()
    batch.reserveCapacity(count: queue.count, byteCount: queue.byteCount)
    for index in 0..<queue.count {
      let frame = queue[index]
      batch.append(piecesOf: frame.metadata, count: 1) { _ in frame.bytes }
    }
    queue.removeFirst(queue.count)
    return batch
  }

  /// Returns when there may be frames, when the end is closed, and when the task is cancelled.
  private func waitForFrames() async {
    let id = lastWaiting.wrappingAdd(1, ordering: .relaxed).newValue
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        let waits = fromGuest.withLock { arrivals in
          guard arrivals.queue.isEmpty, !arrivals.isClosed else { return false }
          arrivals.waiting.append(Waiting(id: id, continuation: continuation))
          return true
        }
        if !waits { continuation.resume() }
        // A cancellation that came before found nothing to cancel.
        if Task.isCancelled { stopWaiting(id) }
      }
    } onCancel: {
      stopWaiting(id)
    }
  }

  private func stopWaiting(_ id: UInt64) {
    let waiting = fromGuest.withLock { arrivals in
      arrivals.waiting.firstIndex { $0.id == id }.map { arrivals.waiting.remove(at: $0) }
    }
    waiting?.continuation.resume()
  }
}
