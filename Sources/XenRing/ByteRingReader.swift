/// What one end reads: the ring that the other end writes.
@frozen @usableFromInline struct ByteRingReader {
  @usableFromInline let half: ByteRingHalf
  /// The next byte to read; how far the other end has been told; up to where bytes have passed the check.
  @usableFromInline var consumed: RingIndex
  @usableFromInline var released: RingIndex
  @usableFromInline var checked: RingIndex

  @inlinable init(_ half: ByteRingHalf, at index: RingIndex) {
    self.half = half
    consumed = index
    released = index
    checked = index
  }

  /// The one gate for the other end's producer. Against what is really free: bytes that were read and not yet given back
  /// are not.
  @inlinable mutating func available() throws(RingViolation) -> UInt32 {
    let produced = half.loadProducer()
    let waiting = produced.distance(from: consumed)
    let room = half.byteCount &- consumed.distance(from: released)
    guard waiting <= room else {
      throw .byteProducerOutOfRange(produced: produced, consumed: consumed, room: room)
    }
    checked = produced
    return waiting
  }

  /// How many bytes passed the check and were not read.
  @inlinable var unread: UInt32 { checked.distance(from: consumed) }

  /// - Parameter count: at most ``unread``, which `destination` has room for.
  @inlinable mutating func read(_ count: UInt32, to destination: UnsafeMutableRawPointer) {
    unsafe half.copyOut(from: consumed, count: count, to: destination)
    consumed = consumed.advanced(by: count)
  }

  /// Gives back what was read; false when nothing was since the last time.
  @inlinable mutating func release() -> Bool {
    guard consumed != released else { return false }
    half.storeConsumer(consumed)
    released = consumed
    return true
  }
}
