import CSharedMemory

/// A slice of memory that the other end may be changing right now.
///
/// Its bytes can be copied in or out, or handed to a system call by address; they can never be looked at in place, so
/// no check on them can be undone by the peer afterwards. It owns nothing: it is valid as long as the ``SharedRegion``
/// or buffer it was cut from.
///
/// Sendable: an address and a length, which never change; the bytes may change under whoever copies them anyway.
@frozen @safe public struct SharedBytes: BitwiseCopyable, @unchecked Sendable {
  /// For system calls and grant operations only.
  @unsafe public let baseAddress: UnsafeMutableRawPointer
  public let count: Int

  @inlinable @unsafe public init(baseAddress: UnsafeMutableRawPointer, count: Int) {
    precondition(count >= 0, "a slice has no negative length")
    unsafe self.baseAddress = baseAddress
    self.count = count
  }

  /// No bytes at all.
  @inlinable public static var none: SharedBytes {
    // Safe: nothing is ever read or written through it.
    unsafe SharedBytes(baseAddress: UnsafeMutableRawPointer(bitPattern: xenPageSize)!, count: 0)
  }

  /// The `count` bytes from `offset` on, both our own numbers: a slice outside these bytes is a programming error.
  @inlinable public func slice(from offset: Int, count: Int) -> SharedBytes {
    precondition(
      offset >= 0 && count >= 0 && offset <= self.count && count <= self.count - offset, "slice out of range")
    return unsafe SharedBytes(baseAddress: baseAddress + offset, count: count)
  }

  /// Copies all bytes into `destination`, which must be at least as long.
  public func copy(to destination: inout MutableSpan<UInt8>) {
    precondition(destination.count >= count, "destination too short")
    unsafe destination.withUnsafeMutableBytes { unsafe $0.baseAddress?.copyMemory(from: baseAddress, byteCount: count) }
  }

  /// Copies all of `source`, which must be no longer than this slice, to its start.
  @inlinable public func copy(from source: Span<UInt8>) {
    precondition(source.count <= count, "source too long")
    unsafe source.withUnsafeBytes { bytes in
      if let from = bytes.baseAddress { unsafe baseAddress.copyMemory(from: from, byteCount: bytes.count) }
    }
  }

  /// Copies all of `source`, which must be no longer than this slice, to its start.
  @inlinable public func copy(from source: SharedBytes) {
    precondition(source.count <= count, "source too long")
    unsafe baseAddress.copyMemory(from: source.baseAddress, byteCount: source.count)
  }

  /// Has the first bytes brought near, to be written soon, since the other end has read them meanwhile. A hint, which does not
  /// wait: a frame is written while the pages of the next ones are on their way.
  @inlinable public func expectWrite() { unsafe shared_memory_expect_write(baseAddress) }

  /// The same for as many bytes as will be written, if there are so many.
  @inlinable public func expectWrite(of byteCount: Int) {
    unsafe shared_memory_expect_write_all(baseAddress, UInt(bitPattern: min(byteCount, count)))
  }

  /// Sets every byte to zero.
  public func zero() { unsafe baseAddress.initializeMemory(as: UInt8.self, repeating: 0, count: count) }

  /// A copy of the bytes, made once.
  public func copied() -> [UInt8] {
    unsafe [UInt8](UnsafeRawBufferPointer(start: baseAddress, count: count))
  }
}
