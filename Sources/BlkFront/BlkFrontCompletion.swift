import BlkIf

/// Why a request was not taken or, of a ``BlkFrontDisk``, how a call failed.
@nonexhaustive public enum BlkFrontError: Error, Hashable, Sendable, CustomStringConvertible {
  /// No backend is connected, or not any more. Of a ``BlkFrontDisk``: it was closed, or its device removed, before the last
  /// part of the call was given to the backend, which may have carried out others.
  case notConnected
  /// The ring has no free slot, or the pool too few free pages: poll, then try again.
  case busy
  case outsideDisk(sector: UInt64, count: Int)
  /// Not a positive multiple of the disk's sector, or more than ``BlkFrontDevice/maxByteCount`` or, of a barrier,
  /// ``BlkFrontDevice/maxDirectByteCount``.
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
    /// The backend answered with an error, or the disk that came back has no such sectors or may only be read.
    case failed
    /// The backend does not know the operation.
    case notSupported
    /// The backend went away first; whether the request was carried out is not known.
    case disconnected
  }

  let request: BlkFrontRequest
  public let result: Result
  /// What a successful read brought, where it lies: in pages of the pool, which the backend can still write. Empty for
  /// everything else. Only during the call that hands this over.
  public let payload: SharedPieces

  init(_ request: BlkFrontRequest, _ result: Result, payload: SharedPieces) {
    (self.request, self.result, self.payload) = (request, result, payload)
  }

  /// One whose backend went away.
  init(lost tag: UInt64) {
    self.init(BlkFrontRequest(operation: BlkIf.Operation.read, tag: tag), .disconnected, payload: .none)
  }

  /// As it was given with the request.
  public var tag: UInt64 { request.tag }

  /// How much a successful read brought; zero for everything else.
  public var byteCount: Int { payload.byteCount }

  /// Copies what a read brought into `destination`, from `offset` on. Only during the call that hands this over, and once:
  /// the backend can still write the original.
  ///
  /// - Precondition: it fits.
  public func copy(to destination: inout MutableSpan<UInt8>, at offset: Int = 0) {
    payload.copy(to: &destination, at: offset)
  }

  /// What a read brought, as ``copy(to:at:)`` copies it.
  public func copied() -> [UInt8] { payload.copied() }
}
