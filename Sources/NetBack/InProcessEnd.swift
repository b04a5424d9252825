import NetIf
import Synchronization

/// A card's other end in the same process: another thread sends frames to the guest and receives what the guest sends.
///
/// One thread at a time may use it, beside the card's queue.
///
/// Sendable: what is not under a lock belongs to one of the two sides, as it says.
public final class InProcessEnd: NetworkEnd, @unchecked Sendable {
  private let toGuest: Mutex<FrameQueue>
  private let fromGuest: Mutex<FrameQueue>
  private let wakesGuest: Wakeup
  private let wakesUser: Wakeup
  private let isLinkUp = Atomic(true)
  /// The card's queue's: taken out of `toGuest`, to be put when the guest has room.
  private var giving: FrameQueue
  /// The user's: taken out of `fromGuest`.
  private var received: FrameQueue

  /// - Parameter capacity: how many frames may wait each way; positive. Long ones may be fewer.
  /// - Throws: when the process has no file descriptors left.
  public init(capacity: Int = 256) throws(ResourceError) {
    wakesGuest = try Wakeup()
    wakesUser = try Wakeup()
    toGuest = Mutex(FrameQueue(capacity: capacity))
    fromGuest = Mutex(FrameQueue(capacity: capacity))
    giving = FrameQueue(capacity: capacity)
    received = FrameQueue(capacity: capacity)
  }

  // MARK: The user's side

  /// Sends a frame to the guest; it is copied before this returns.
  ///
  /// - Returns: false when as many frames wait as may, or when it is no frame by its length.
  @discardableResult
  public func send(_ frame: Span<UInt8>) -> Bool {
    let (isPut, isFirst) = toGuest.withLock { queue in
      let isFirst = queue.isEmpty
      return (queue.put(frame), isFirst)
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
    fromGuest.withLock { swap(&$0, &received) }
    let count = received.count
    while !received.isEmpty {
      body(received[0])
      received.removeFirst()
    }
    return count
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
  public var dropCount: UInt64 { fromGuest.withLock { $0.dropCount } + received.dropCount }

  // MARK: The card's side

  public var wakeDescriptor: CInt? { wakesGuest.descriptor }

  public func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
    let isFirst = fromGuest.withLock { queue in
      let isFirst = queue.isEmpty
      for index in frames.indices { queue.put(frames[index]) }
      return isFirst
    }
    if isFirst { wakesUser.signal() }
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
}
