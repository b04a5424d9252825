import BlkIf

/// Why a request was not taken or, of a ``BlkFrontDisk``, how a call failed.
@nonexhaustive public enum BlkFrontError: Error, Hashable, Sendable, CustomStringConvertible {
  /// No backend is connected, or not any more. Of a ``BlkFrontDisk``: it was closed, or its device removed, before the last
  /// part of the call was given to the backend, which may have carried out others.
  case notConnected
  /// The ring has no free slot, or the pool too few free pages: poll, then try again.
  case busy
  case outsideDisk(sector: UInt64, count: Int)
  /// Not a positive multiple of the disk's sector, or more than ``BlkFrontDevice/maxByteCount``.
  case length(byteCount: Int)
  case readOnlyDisk
  /// The backend has not offered it.
  case notSupported(String)
  /// The backend answered with an error.
  case failed
  /// The backend went away first; whether the request was carried out is not known.
  case disconnected
  /// What a disk that does not connect waits for.
  case notConnectedInTime(String)

  public var description: String {
    switch self {
    case .notConnected: "no backend is connected"
    case .busy: "the requests in flight use every slot of the ring, or too many pages of the pool"
    case .outsideDisk(let sector, let count): "\(count) sectors from \(sector) on are not on the disk"
    case .length(let byteCount): "\(byteCount) bytes are no length of a request to this disk"
    case .readOnlyDisk: "the disk is read-only"
    case .notSupported(let what): "the backend does not offer \(what)"
    case .failed: "the backend answered with an error"
    case .disconnected: "the backend went away, and it is not known whether the request was carried out"
    case .notConnectedInTime(let report): "the disk does not connect in time: \(report)"
    }
  }
}

/// How a request ended.
public struct BlkFrontCompletion {
  public enum Result: Hashable, Sendable {
    case succeeded
    /// The backend answered with an error.
    case failed
    /// The backend does not know the operation.
    case notSupported
    /// The backend went away first; whether the request was carried out is not known.
    case disconnected
  }

  /// As it was given with the request.
  public let tag: UInt64
  public let result: Result
  /// How much a successful read brought; zero for everything else.
  public let byteCount: Int
  let pages: BlkFrontQueue.Pages
  let pool: SharedBytes

  init(tag: UInt64, result: Result, byteCount: Int, pages: BlkFrontQueue.Pages, pool: SharedBytes) {
    (self.tag, self.result, self.byteCount, self.pages, self.pool) = (tag, result, byteCount, pages, pool)
  }

  /// One whose backend went away.
  init(lost tag: UInt64) {
    self.init(tag: tag, result: .disconnected, byteCount: 0, pages: BlkFrontQueue.Pages(repeating: 0), pool: .none)
  }

  /// Copies what a read brought into `destination`, from `offset` on. Only during the call that hands this over, and once:
  /// the backend can still write the original.
  ///
  /// - Precondition: it fits.
  public func copy(to destination: inout MutableSpan<UInt8>, at offset: Int = 0) {
    precondition(offset >= 0 && byteCount <= destination.count - offset, "destination too short")
    unsafe destination.withUnsafeMutableBytes { whole in
      // Safe: the bytes from there on are as many as are copied.
      if let start = whole.baseAddress { unsafe copy(to: start + offset) }
    }
  }

  /// What a read brought, as ``copy(to:at:)`` copies it.
  public func copied() -> [UInt8] {
    guard byteCount > 0 else { return [] }
    return unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
      // Safe: the buffer has room for as many bytes as are copied.
      unsafe copy(to: UnsafeMutableRawPointer(buffer.baseAddress!))
      count = byteCount
    }
  }

  /// Page by page, since they lie anywhere in the pool.
  @unsafe private func copy(to start: UnsafeMutableRawPointer) {
    let destination = unsafe SharedBytes(baseAddress: start, count: byteCount)
    var done = 0
    while done < byteCount {
      let count = min(byteCount - done, xenPageSize)
      destination.slice(from: done, count: count).copy(
        from: BlkFrontQueue.bytes(of: pages[done / xenPageSize], in: pool, count))
      done += count
    }
  }
}
