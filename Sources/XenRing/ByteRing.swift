import XenPlatform

/// One end of a pair of byte-stream rings (io/ring.h, `DEFINE_XEN_FLEX_RING_AND_INTF`; 9pfs, PV Calls).
///
/// Each end writes a stream of bytes and reads one: the front end writes the ring `out` and reads `in`, the back end the
/// other way round. That, and who initialises the pages, is all that makes the ends differ.
///
/// Nothing is shown to the other end before a ``push()``. What the other end writes is trusted nowhere: its indices are
/// checked before a byte is read or room is used, and bytes leave the ring as a copy that it can no longer change. There is
/// no way to look at a byte without taking it: a header is read once, and kept.
///
/// The protocol has no event indices: whoever has pushed something notifies, and whoever waits looks once more after it has
/// made its event channel ready.
@frozen public struct ByteRing: ~Copyable {
  @usableFromInline let pages: ByteRingPages
  @usableFromInline var reader: ByteRingReader
  @usableFromInline var writer: ByteRingWriter

  /// The front end of fresh rings: zeroes both regions, and writes the order, the references and the indices.
  ///
  /// - Parameters:
  ///   - interface: at least one page.
  ///   - data: the pages of both rings: a power of two of them, at most 512.
  ///   - references: the data pages', in order.
  ///   - index: where all four indices start. Real rings start at zero; tests start near the wrap.
  public init(
    initialising interface: consuming SharedRegion, data: consuming SharedRegion, references: [GrantReference],
    at index: RingIndex = .zero
  ) {
    let pages = ByteRingPages(interface: interface, data: data)
    pages.initialise(references: references, at: index)
    reader = ByteRingReader(pages.incoming, at: index)
    writer = ByteRingWriter(pages.outgoing, at: index, unread: 0)
    self.pages = pages
  }

  /// The back end of rings that the front end has initialised. Nothing is written: that would throw away what the front end
  /// has already put there.
  ///
  /// - Parameters:
  ///   - interface: the front end's interface page.
  ///   - data: the pages that its ``ByteRingInterface`` names: a power of two of them, at most 512.
  ///   - outIndex: zero for fresh rings; for live ones, where reading goes on (`out_cons`).
  ///   - inIndex: and where writing does (`in_prod`).
  public init(
    attaching interface: consuming SharedRegion, data: consuming SharedRegion, outIndex: RingIndex = .zero,
    inIndex: RingIndex = .zero
  ) {
    let pages = ByteRingPages(interface: interface, data: data)
    reader = ByteRingReader(pages.outgoing, at: outIndex)
    // In live rings the front end may have all of one ring still to read.
    writer = ByteRingWriter(pages.incoming, at: inIndex, unread: pages.byteCount)
    self.pages = pages
  }

  /// The size in bytes of each of the two rings: a power of two (`XEN_FLEX_RING_SIZE`).
  @inlinable public var byteCount: Int { Int(pages.byteCount) }

  /// Reads the other end's producer, checks it once, and says how many bytes can be read.
  ///
  /// - Throws: ``RingViolation/byteProducerOutOfRange(produced:consumed:room:)``; the rings are then unusable.
  @inlinable public mutating func readableCount() throws(RingViolation) -> Int { Int(try reader.available()) }

  /// Reads bytes that passed the check in ``readableCount()``, as many as there are and fit; says how many.
  @inlinable public mutating func read(into destination: inout MutableSpan<UInt8>) -> Int {
    unsafe destination.withUnsafeMutableBytes { unsafe read(to: $0.baseAddress, count: $0.count) }
  }

  /// The same into memory that a system call, or another domain, is then shown.
  @inlinable public mutating func read(into destination: SharedBytes) -> Int {
    unsafe read(to: destination.baseAddress, count: destination.count)
  }

  /// Reads a value whole, when all its bytes passed the check in ``readableCount()``; nil, and nothing is read, when not.
  /// Any bytes must be a `Value`.
  @inlinable public mutating func read<Value: BitwiseCopyable>(as type: Value.Type) -> Value? {
    guard reader.unread >= MemoryLayout<Value>.size else { return nil }
    // Safe: as many bytes as a value has are written, and then any bytes are a value.
    return unsafe withUnsafeTemporaryAllocation(
      byteCount: MemoryLayout<Value>.size, alignment: MemoryLayout<Value>.alignment
    ) { buffer in
      _ = unsafe read(to: buffer.baseAddress, count: MemoryLayout<Value>.size)
      return unsafe buffer.loadUnaligned(as: Value.self)
    }
  }

  /// Reads the other end's consumer, checks it once, and says how many bytes can be written.
  ///
  /// - Throws: ``RingViolation/byteConsumerOutOfRange(consumed:pushed:unread:)``; the rings are then unusable.
  @inlinable public mutating func writableCount() throws(RingViolation) -> Int { Int(try writer.available()) }

  /// Writes bytes, as many as there was room for in the last ``writableCount()``; says how many.
  @inlinable public mutating func write(_ source: Span<UInt8>) -> Int {
    unsafe source.withUnsafeBytes { unsafe write(from: $0.baseAddress, count: $0.count) }
  }

  /// The same from memory that another domain may be changing.
  @inlinable public mutating func write(_ source: SharedBytes) -> Int {
    unsafe write(from: UnsafeRawPointer(source.baseAddress), count: source.count)
  }

  /// Writes a value whole; false, and nothing is written, where the last ``writableCount()`` had no room for it. Every
  /// stored byte of `Value` must belong to a property: spell padding between properties out, or old memory would travel
  /// in it.
  @inlinable public mutating func write<Value: BitwiseCopyable>(_ value: Value) -> Bool {
    guard writer.free >= MemoryLayout<Value>.size else { return false }
    return unsafe withUnsafeBytes(of: value) { unsafe write(from: $0.baseAddress, count: $0.count) == $0.count }
  }

  /// Shows the other end all that was written, and gives back all that was read; true when there was any such thing, and
  /// the other end must be notified.
  @inlinable public mutating func push() -> Bool {
    let wrote = writer.push()
    let read = reader.release()
    return wrote || read
  }

  /// The error that the back end has left for the front end's reads, where the protocol has a word for it (PV Calls'
  /// `in_error`). By the protocol zero, or a negative error number of XEN_ERRNO; from a hostile peer any number. Who changes
  /// it notifies.
  @inlinable public var inError: Int32 {
    get { Int32(truncatingIfNeeded: pages[word: ByteRingLayout.inErrorOffset]) }
    nonmutating set { pages[word: ByteRingLayout.inErrorOffset] = UInt32(truncatingIfNeeded: newValue) }
  }

  /// The same for the front end's writes (`out_error`).
  @inlinable public var outError: Int32 {
    get { Int32(truncatingIfNeeded: pages[word: ByteRingLayout.outErrorOffset]) }
    nonmutating set { pages[word: ByteRingLayout.outErrorOffset] = UInt32(truncatingIfNeeded: newValue) }
  }

  /// One line for a log: this end's indices and the shared ones.
  public borrowing func dump() -> String {
    "byte rings of \(pages.byteCount): written \(writer.produced) pushed \(writer.pushed) read \(reader.consumed)"
      + " given back \(reader.released); " + pages.words()
  }

  @inlinable mutating func read(to destination: UnsafeMutableRawPointer?, count: Int) -> Int {
    let count = min(count, Int(reader.unread))
    guard count > 0, let destination = unsafe destination else { return 0 }
    unsafe reader.read(UInt32(count), to: destination)
    return count
  }

  @inlinable mutating func write(from source: UnsafeRawPointer?, count: Int) -> Int {
    let count = min(count, Int(writer.free))
    guard count > 0, let source = unsafe source else { return 0 }
    unsafe writer.write(UInt32(count), from: source)
    return count
  }
}
