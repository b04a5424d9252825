import CSharedMemory
import Synchronization
import XenPlatform

/// The shared page as both ends see it: four index words that either may write at any time, and the slots.
///
/// Everything that touches shared memory is here. No pointer and no reference into it leaves this type.
@frozen @usableFromInline @safe struct RingPage {
  @usableFromInline let baseAddress: UnsafeMutableRawPointer
  @usableFromInline let mask: UInt32

  @inlinable init(_ region: borrowing SharedRegion, stride: Int) {
    let entryCount = RingLayout.entryCount(byteCount: region.byteCount, stride: stride)
    precondition(entryCount > 0, "the region is too small for one slot")
    unsafe baseAddress = region.baseAddress
    mask = UInt32(entryCount - 1)
  }

  @inlinable var entryCount: UInt32 { mask &+ 1 }

  /// Every access to an index is one 4-byte atomic, so a peer's write is seen whole or not at all. Acquiring: what an index covers is
  /// read after it.
  @inlinable func load(_ offset: Int) -> RingIndex {
    // Safe: the region is page-aligned and longer than its header, and Atomic<UInt32> has UInt32's layout.
    let word = unsafe (baseAddress + offset).assumingMemoryBound(to: Atomic<UInt32>.self)
    return RingIndex(rawValue: unsafe word.pointee.load(ordering: .acquiring))
  }

  /// Releasing: the slots' bytes are visible before the index that covers them.
  @inlinable func store(_ index: RingIndex, at offset: Int) {
    // Safe: as in `load`.
    let word = unsafe (baseAddress + offset).assumingMemoryBound(to: Atomic<UInt32>.self)
    unsafe word.pointee.store(index.rawValue, ordering: .releasing)
  }

  /// As `store(_:at:)`, and before every later load (`xen_mb`): an end that stores an index and then loads the other's, against
  /// the other end, which does the reverse, must not miss it.
  ///
  /// A store and a barrier, and not one exchange: an exchange fetches its line only once all earlier stores are done, while a
  /// store's line comes over from the other core together with the slot's.
  @inlinable func storeBeforeLoads(_ index: RingIndex, at offset: Int) {
    store(index, at: offset)
    atomicMemoryFence(ordering: .sequentiallyConsistent)
  }

  /// Copies a slot out exactly once: the compiler may not load it again (`RING_COPY_REQUEST`, XSA-155).
  @inlinable func take<Entry: BitwiseCopyable>(_ type: Entry.Type, at index: RingIndex, stride: Int) -> Entry {
    // Safe: the mask keeps the offset below entryCount * stride, which the region holds; any bytes are a valid Entry.
    let slot = unsafe baseAddress + slotOffset(index, stride: stride)
    // One word is copied by one atomic load. Behind any other copy stands a barrier, which has all that the caller holds in registers
    // written to memory.
    if MemoryLayout<Entry>.size == 8, stride & 7 == 0 {
      let word = unsafe slot.assumingMemoryBound(to: Atomic<UInt64>.self)
      return unsafe unsafeBitCast(word.pointee.load(ordering: .relaxed), to: Entry.self)
    }
    if MemoryLayout<Entry>.size == 4, stride & 3 == 0 {
      let word = unsafe slot.assumingMemoryBound(to: Atomic<UInt32>.self)
      return unsafe unsafeBitCast(word.pointee.load(ordering: .relaxed), to: Entry.self)
    }
    // The copy outlives the call that is given its address.
    var entry = unsafe slot.loadUnaligned(as: Entry.self)
    // A large entry is copied to memory whole: held in registers, every field would be loaded here, wanted or not.
    if MemoryLayout<Entry>.size > 32 { unsafe shared_memory_copied(&entry) } else { shared_memory_compiler_barrier() }
    return entry
  }

  /// Writes a slot whole: the entry, then zeros up to the stride, so that no old byte stays (XSA-216).
  @inlinable func put<Entry: BitwiseCopyable>(_ entry: Entry, at index: RingIndex, stride: Int) {
    // Safe: as in `take`.
    let slot = unsafe baseAddress + slotOffset(index, stride: stride)
    let size = MemoryLayout<Entry>.size
    // One word by one store, and not field by field.
    if size == 8 {
      unsafe slot.storeBytes(of: unsafe unsafeBitCast(entry, to: UInt64.self), as: UInt64.self)
    } else if size == 4 {
      unsafe slot.storeBytes(of: unsafe unsafeBitCast(entry, to: UInt32.self), as: UInt32.self)
    } else {
      unsafe slot.storeBytes(of: entry, as: Entry.self)
    }
    if size < stride { unsafe (slot + size).initializeMemory(as: UInt8.self, repeating: 0, count: stride - size) }
  }

  /// Has the lines of `count` slots brought near, to be written too: each slot is answered, or used again. Waits for nothing.
  @inlinable func expect(_ count: UInt32, at index: RingIndex, stride: Int) {
    var offset: UInt32 = 0
    // A slot that lies in two lines has its second one brought with the next slot.
    while offset < count {
      unsafe shared_memory_expect_write(baseAddress + slotOffset(index.advanced(by: offset), stride: stride))
      offset &+= UInt32(truncatingIfNeeded: max(1, 64 / stride))
    }
  }

  @inlinable func slot(of index: RingIndex) -> Int { Int(truncatingIfNeeded: index.rawValue & mask) }

  @inlinable func slotOffset(_ index: RingIndex, stride: Int) -> Int {
    RingLayout.headerByteCount &+ slot(of: index) &* stride
  }

  /// `SHARED_RING_INIT`, and every slot zeroed as well (XSA-403): the front end's, once, before it tells anybody.
  @inlinable func initialise(region: borrowing SharedRegion, at index: RingIndex) {
    region.bytes.zero()
    store(index, at: RingLayout.requestProducerOffset)
    store(index.advanced(by: 1), at: RingLayout.requestEventOffset)
    store(index, at: RingLayout.responseProducerOffset)
    store(index.advanced(by: 1), at: RingLayout.responseEventOffset)
  }
}
