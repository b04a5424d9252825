import BlockStores
import Crypto
import Foundation
import _CryptoExtras

/// A disk whose sectors are encrypted on another store, as dm-crypt's `aes-cbc-essiv:sha256` has them: it hides what was
/// written, and does not tell when somebody changes it. A disk's queues each have one of their own.
public final class EncryptedStore: BlockStore, @unchecked Sendable {
  private let inner: any BlockStore
  private let (key, numberKey): (SymmetricKey, SymmetricKey)
  /// Of the writes under way: the guest's own memory stays as it is.
  private var sealed: [Int: (PrivatePages, SharedPieceTable)] = [:]

  /// - Parameter key: of 128, 192 or 256 bits.
  public init(_ inner: any BlockStore, key: SymmetricKey) {
    (self.inner, self.key) = (inner, key)
    numberKey = SymmetricKey(data: SHA256.hash(data: unsafe key.withUnsafeBytes { unsafe Data($0) }))
  }

  public var geometry: BlockGeometry {
    var geometry = inner.geometry
    geometry.discard = nil  // It would show where there is nothing.
    return geometry
  }
  public var completionDescriptor: CInt? { inner.completionDescriptor }
  public func makeQueue() throws(ResourceError) -> any BlockStore { EncryptedStore(try inner.makeQueue(), key: key) }

  public func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    var batch: [StoreRequest] = []
    for index in requests.indices { batch.append(seal(requests[index])) }
    let first = completions.count
    inner.submit(batch.span, to: &completions)
    for index in first..<completions.count { open(completions[index]) }
  }

  public func reap(into completions: inout StoreCompletions) {
    let first = completions.count
    inner.reap(into: &completions)
    for index in first..<completions.count { open(completions[index]) }
  }

  public func abandon() { inner.abandon() }

  private func seal(_ request: StoreRequest) -> StoreRequest {
    guard request.kind != .read, request.payload.byteCount > 0 else { return request }
    let (pages, table) = (
      PrivatePages(pageCount: request.payload.byteCount / xenPageSize + 1), SharedPieceTable(capacity: 1)
    )
    let place = pages.bytes.slice(from: 0, count: request.payload.byteCount)
    place.copy(from: crypt(request) { try AES._CBC.encrypt($0, using: key, iv: $1, noPadding: true) }.span)
    sealed[request.slot] = (pages, table)
    return request.with(payload: table.append(place, to: nil, at: 0))
  }

  private func open(_ done: StoreCompletions.Completion) {
    sealed[done.request.slot] = nil
    guard done.succeeded, done.request.kind == .read else { return }
    let bytes = crypt(done.request) { try AES._CBC.decrypt($0, using: key, iv: $1, noPadding: true) }
    done.request.payload.copy(from: bytes.span)
  }

  /// Each sector from its own number, encrypted; what is called fails only where a length is wrong.
  private func crypt(_ request: StoreRequest, _ work: (ArraySlice<UInt8>, AES._CBC.IV) throws -> Data) -> [UInt8] {
    let bytes = request.payload.copied()
    return stride(from: 0, to: bytes.count, by: 512).flatMap { start in
      let sector = request.sector + UInt64(start / 512)
      var number = (0..<16).map { $0 < 8 ? UInt8(truncatingIfNeeded: sector >> UInt64(8 * $0)) : 0 }
      try! AES.permute(&number, key: numberKey)
      return try! work(bytes[start..<start + 512], AES._CBC.IV(ivBytes: number))
    }
  }
}
