import BlkIf

/// Why a request was not taken or, of a ``BlkFrontDisk``, how a call failed.
@nonexhaustive public enum BlkFrontError: Error, Hashable, Sendable, CustomStringConvertible {
  /// No backend is connected, or not any more.
  case notConnected
  /// As many requests as the ring has slots are in flight: poll, then try again.
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
    case .busy: "every slot of the ring is in use"
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
  /// What a successful read brought; empty for everything else. Valid during the call that hands it over; the backend
  /// can still write it, so copy it out once and look at the copy.
  public let bytes: SharedBytes

  /// Copies all of it into `destination`, from `offset` on.
  ///
  /// - Precondition: it fits.
  public func copy(to destination: inout MutableSpan<UInt8>, at offset: Int = 0) {
    precondition(offset >= 0 && bytes.count <= destination.count - offset, "destination too short")
    let bytes = bytes
    unsafe destination.withUnsafeMutableBytes { whole in
      // Safe: the bytes from there on are as many as are copied.
      guard let start = whole.baseAddress else { return }
      unsafe SharedBytes(baseAddress: start + offset, count: bytes.count).copy(from: bytes)
    }
  }
}
