import CSharedMemory
import Synchronization
import XenPlatform

/// One of the two rings of bytes as both its ends see it: two index words and the bytes, all of which either may write at
/// any time.
///
/// Everything that touches a byte-stream ring's shared memory is here and in ``ByteRingPages``. No pointer into it leaves
/// the module.
@frozen @usableFromInline @safe struct ByteRingHalf {
  @usableFromInline let bytes: UnsafeMutableRawPointer
  @usableFromInline let producer: UnsafeMutableRawPointer
  @usableFromInline let consumer: UnsafeMutableRawPointer
  @usableFromInline let byteCount: UInt32

  @unsafe @inlinable init(
    bytes: UnsafeMutableRawPointer, producer: UnsafeMutableRawPointer, consumer: UnsafeMutableRawPointer,
    byteCount: UInt32
  ) {
    unsafe self.bytes = bytes
    unsafe self.producer = producer
    unsafe self.consumer = consumer
    self.byteCount = byteCount
  }

  /// Acquiring: the bytes that a producer covers are read after it, and those that a consumer gives back written after it.
  @inlinable func loadProducer() -> RingIndex { unsafe Self.load(producer) }
  @inlinable func loadConsumer() -> RingIndex { unsafe Self.load(consumer) }

  /// Releasing: the bytes are visible before the producer that covers them, and read before the consumer that gives them
  /// back.
  @inlinable func storeProducer(_ index: RingIndex) { unsafe Self.store(index, at: producer) }
  @inlinable func storeConsumer(_ index: RingIndex) { unsafe Self.store(index, at: consumer) }

  @inlinable static func load(_ word: UnsafeMutableRawPointer) -> RingIndex {
    // Safe: a word of the interface page, aligned; Atomic<UInt32> has UInt32's layout.
    RingIndex(rawValue: unsafe word.assumingMemoryBound(to: Atomic<UInt32>.self).pointee.load(ordering: .acquiring))
  }

  @inlinable static func store(_ index: RingIndex, at word: UnsafeMutableRawPointer) {
    // Safe: as in `load`.
    unsafe word.assumingMemoryBound(to: Atomic<UInt32>.self).pointee.store(index.rawValue, ordering: .releasing)
  }

  /// Copies bytes out, each exactly once: after the barrier the compiler may not read them in the ring again.
  ///
  /// - Parameter count: at most ``byteCount``.
  @inlinable func copyOut(from index: RingIndex, count: UInt32, to destination: UnsafeMutableRawPointer) {
    let offset = index.rawValue & (byteCount &- 1)
    let first = min(count, byteCount &- offset)
    // Safe: the mask keeps the offset within the ring, and each of the two parts ends within it; the caller answers for
    // the destination.
    unsafe destination.copyMemory(from: bytes + Int(offset), byteCount: Int(first))
    unsafe (destination + Int(first)).copyMemory(from: bytes, byteCount: Int(count &- first))
    unsafe shared_memory_copied(destination)
  }

  /// Copies bytes in.
  ///
  /// - Parameter count: at most ``byteCount``.
  @inlinable func copyIn(at index: RingIndex, count: UInt32, from source: UnsafeRawPointer) {
    let offset = index.rawValue & (byteCount &- 1)
    let first = min(count, byteCount &- offset)
    // Safe: as in `copyOut`.
    unsafe (bytes + Int(offset)).copyMemory(from: source, byteCount: Int(first))
    unsafe bytes.copyMemory(from: source + Int(first), byteCount: Int(count &- first))
  }
}
