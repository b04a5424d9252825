import Glibc

/// Slices of memory that the other end may be changing right now, which together are one run of bytes.
///
/// As with ``SharedBytes``, the bytes can be copied in or out, or handed to a system call, and never looked at in place.
/// It owns nothing: it is valid as long as the ``SharedPieceTable`` it lies in stays as it is, and the memory with it.
@safe public struct SharedPieces: @unchecked Sendable {
  /// As readv(2) and io_uring take them.
  @unsafe public let vectors: UnsafeMutablePointer<iovec>
  /// How many slices there are.
  public let count: Int
  /// The sum of their lengths.
  public let byteCount: Int

  @unsafe init(vectors: UnsafeMutablePointer<iovec>, count: Int, byteCount: Int) {
    unsafe self.vectors = vectors
    self.count = count
    self.byteCount = byteCount
  }

  /// No bytes at all.
  public static var none: SharedPieces {
    // Safe: nothing is ever read or written through it.
    unsafe SharedPieces(vectors: UnsafeMutablePointer(bitPattern: xenPageSize)!, count: 0, byteCount: 0)
  }

  /// - Precondition: `index` is below ``count``.
  public subscript(index: Int) -> SharedBytes {
    precondition(index >= 0 && index < count, "piece out of range")
    // Safe: the table's entries below `count` are slices that somebody has put there.
    return unsafe SharedBytes(baseAddress: vectors[index].iov_base!, count: vectors[index].iov_len)
  }

  /// Copies all bytes to the start of `destination`, which must be at least as long.
  public func copy(to destination: SharedBytes) { copy(byteCount, from: 0, to: destination) }

  /// Copies as many bytes as `destination` has, from `offset` of these on.
  ///
  /// - Precondition: there are as many.
  public func copy(from offset: Int, to destination: SharedBytes) {
    copy(destination.count, from: offset, to: destination)
  }

  /// Copies all of `source` into the bytes from `offset` on.
  ///
  /// - Precondition: there are as many.
  public func copy(from source: SharedBytes, at offset: Int = 0) {
    var done = 0
    forEachPiece(from: offset, count: source.count) { piece in
      piece.copy(from: source.slice(from: done, count: piece.count))
      done += piece.count
    }
  }

  /// Copies all of `source` into the bytes from `offset` on.
  ///
  /// - Precondition: there are as many.
  public func copy(from source: Span<UInt8>, at offset: Int = 0) {
    var done = 0
    forEachPiece(from: offset, count: source.count) { piece in
      piece.copy(from: source.extracting(done..<done + piece.count))
      done += piece.count
    }
  }

  /// Copies all bytes into `destination`, from `offset` of it on.
  ///
  /// - Precondition: they fit.
  public func copy(to destination: inout MutableSpan<UInt8>, at offset: Int = 0) {
    precondition(offset >= 0 && byteCount <= destination.count - offset, "destination too short")
    unsafe destination.withUnsafeMutableBytes { whole in
      // Safe: the bytes from there on are as many as are copied.
      if let start = whole.baseAddress { copy(to: unsafe SharedBytes(baseAddress: start + offset, count: byteCount)) }
    }
  }

  /// A copy of the bytes, made once.
  public func copied() -> [UInt8] {
    guard byteCount > 0 else { return [] }
    return unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
      // Safe: the buffer has room for as many bytes as are copied.
      copy(to: unsafe SharedBytes(baseAddress: UnsafeMutableRawPointer(buffer.baseAddress!), count: byteCount))
      count = byteCount
    }
  }

  /// Sets every byte to zero.
  public func zero() { for index in 0..<count { self[index].zero() } }

  private func copy(_ count: Int, from offset: Int, to destination: SharedBytes) {
    var done = 0
    forEachPiece(from: offset, count: count) { piece in
      destination.slice(from: done, count: piece.count).copy(from: piece)
      done += piece.count
    }
  }

  /// The slices that the `count` bytes from `offset` on lie in, the first and the last cut to what is asked for.
  private func forEachPiece(from offset: Int, count: Int, _ body: (SharedBytes) -> Void) {
    precondition(offset >= 0 && count >= 0 && offset <= byteCount && count <= byteCount - offset, "bytes out of range")
    var (skip, left, index) = (offset, count, 0)
    while left > 0 {
      let piece = self[index]
      index += 1
      guard skip < piece.count else {
        skip -= piece.count
        continue
      }
      let part = min(piece.count - skip, left)
      body(piece.slice(from: skip, count: part))
      (skip, left) = (0, left - part)
    }
  }
}

/// Room for slices, of which runs are used as ``SharedPieces``: one table for all requests of a queue.
///
/// Sendable: a queue's thread alone uses it; whoever is lent pieces reads only those.
@safe public final class SharedPieceTable: @unchecked Sendable {
  private let vectors: UnsafeMutablePointer<iovec>
  /// How many slices there is room for.
  public let capacity: Int

  /// - Parameter capacity: positive.
  public init(capacity: Int) {
    precondition(capacity > 0, "a table has room")
    self.capacity = capacity
    unsafe vectors = .allocate(capacity: capacity)
    unsafe vectors.initialize(repeating: iovec(), count: capacity)
  }

  deinit { unsafe vectors.deallocate() }

  /// Adds `bytes` to the run of `pieces`, which begins at `start` and has room there: as a slice more or, when they follow the
  /// last one in memory, as its end.
  public func append(_ bytes: SharedBytes, to pieces: SharedPieces?, at start: Int) -> SharedPieces {
    let count = pieces?.count ?? 0
    let byteCount = (pieces?.byteCount ?? 0) + bytes.count
    precondition(start >= 0 && start <= capacity - count, "a run lies in its table")
    // Safe: within the table, as just checked.
    let first = unsafe vectors + start
    if count > 0 {
      let last = unsafe first + (count - 1)
      if unsafe last.pointee.iov_base! + last.pointee.iov_len == bytes.baseAddress {
        unsafe last.pointee.iov_len += bytes.count
        return unsafe SharedPieces(vectors: first, count: count, byteCount: byteCount)
      }
    }
    precondition(count < capacity - start, "a run lies in its table")
    unsafe first[count] = iovec(iov_base: bytes.baseAddress, iov_len: bytes.count)
    return unsafe SharedPieces(vectors: first, count: count + 1, byteCount: byteCount)
  }
}
