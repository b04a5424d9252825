import NetIf

/// What a card's frames go to and come from: the one type that a user of ``NetBackDriver`` writes.
///
/// Each queue of a card calls it from its own thread, so it must be safe to call from several. It never blocks. Nothing
/// has to be allocated for a frame: a frame for the guest is copied into the queue's own memory when it is put there.
public protocol NetworkEnd: AnyObject, Sendable {
  /// What may be handed to ``take(_:answering:)`` unfinished. The guest is offered no more than that, and what it sends
  /// unfinished all the same is finished before.
  var offloads: NetOffloads { get }

  /// The end of each of a card's queues, when the card connects. The same one for each, as it is unless said otherwise, is
  /// asked for frames by the first queue only, which hands them on to the others, each flow to the same one.
  ///
  /// - Parameters:
  ///   - queueCount: at least one.
  ///   - guestOffloads: what may be put for the guest unfinished.
  /// - Returns: `queueCount` ends.
  func ends(forQueues queueCount: Int, guestOffloads: NetOffloads) throws(DeviceError) -> [any NetworkEnd]

  /// Takes frames that the guest has sent, in its order. They are valid during the call.
  ///
  /// - Parameter guest: where answers to the guest may be put.
  func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue)

  /// Puts the frames that have come from elsewhere. Called at each turn of the queue, and again when it has got room.
  func give(to guest: inout FrameQueue)

  /// Readable when ``give(to:)`` would put something, or ``hasCarrier`` has changed; nil for an end that only answers. It
  /// may become nil, when nothing will ever come any more, but never another one.
  var wakeDescriptor: CInt? { get }

  /// Whether the link is up. The guest is told when it connects, and whenever that has changed at a turn of the queue.
  var hasCarrier: Bool { get }
}

extension NetworkEnd {
  public var offloads: NetOffloads { [] }
  public func ends(forQueues queueCount: Int, guestOffloads: NetOffloads) throws(DeviceError) -> [any NetworkEnd] {
    Array(repeating: self, count: queueCount)
  }
  public func give(to guest: inout FrameQueue) {}
  public var wakeDescriptor: CInt? { nil }
  public var hasCarrier: Bool { true }
}

/// One frame: an Ethernet header and what follows it, without the trailing checksum.
public struct NetworkFrame: BitwiseCopyable, Sendable {
  /// In memory of this process alone.
  public let bytes: SharedBytes
  /// What is left to do to it, as far as the end takes that (``NetworkEnd/offloads``), and what is known about it.
  public let metadata: NetPacketMetadata

  /// - Parameter bytes: ours alone. Nobody outside makes frames, so that nobody lends a peer's memory as if it were ours.
  init(_ bytes: SharedBytes, _ metadata: NetPacketMetadata = NetPacketMetadata()) {
    self.bytes = bytes
    self.metadata = metadata
  }

  /// Lends the bytes to be looked at in place, since no peer can change them.
  public func withSpan<Result: ~Copyable, Failure: Error>(
    _ body: (Span<UInt8>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let start = unsafe UnsafePointer(bytes.baseAddress.assumingMemoryBound(to: UInt8.self))
    // Safe: the frame is valid during the call that handed it over, and so during this one.
    return try body(unsafe Span(_unsafeStart: start, count: bytes.count))
  }
}

/// Sends every frame back as it came.
public final class EchoEnd: NetworkEnd {
  public init() {}

  public func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
    for index in frames.indices { guest.put(frames[index]) }
  }
}
