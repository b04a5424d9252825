/// What one end writes: the ring that the other end reads.
@frozen @usableFromInline struct ByteRingWriter {
  @usableFromInline let half: ByteRingHalf
  /// The next byte to write; how far the other end has been told; up to where it has read, as far as we looked.
  @usableFromInline var produced: RingIndex
  @usableFromInline var pushed: RingIndex
  @usableFromInline var consumed: RingIndex

  /// - Parameter unread: how many of the bytes before `index` the other end may not have read yet. There is no room for as
  ///   many until it has been looked at.
  @inlinable init(_ half: ByteRingHalf, at index: RingIndex, unread: UInt32) {
    self.half = half
    produced = index
    pushed = index
    consumed = RingIndex(rawValue: index.rawValue &- unread)
  }

  /// The one gate for the other end's consumer: it may have read nothing that was not pushed, and never takes back what it
  /// has read.
  @inlinable mutating func available() throws(RingViolation) -> UInt32 {
    let index = half.loadConsumer()
    let unread = pushed.distance(from: consumed)
    guard pushed.distance(from: index) <= unread else {
      throw .byteConsumerOutOfRange(consumed: index, pushed: pushed, unread: unread)
    }
    consumed = index
    return free
  }

  /// How many bytes can be written, as far as we looked.
  @inlinable var free: UInt32 { half.byteCount &- produced.distance(from: consumed) }

  /// - Parameter count: at most ``free``, which `source` has.
  @inlinable mutating func write(_ count: UInt32, from source: UnsafeRawPointer) {
    unsafe half.copyIn(at: produced, count: count, from: source)
    produced = produced.advanced(by: count)
  }

  /// Shows what was written; false when nothing was since the last time.
  @inlinable mutating func push() -> Bool {
    guard produced != pushed else { return false }
    half.storeProducer(produced)
    pushed = produced
    return true
  }
}
