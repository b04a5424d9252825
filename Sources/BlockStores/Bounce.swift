import BlkBack
import Glibc

/// Memory of our own for a request whose payload lies as direct I/O cannot take it.
final class Bounce {
  /// The request with this memory as its payload.
  let request: StoreRequest
  private let original: StoreRequest
  private let bytes: SharedBytes
  private let table = SharedPieceTable(capacity: 1)

  /// With the bytes that are to be written in it.
  ///
  /// - Parameter alignment: a power of two.
  init(_ request: StoreRequest, alignment: Int) {
    let count = request.payload.byteCount
    let memory = UnsafeMutableRawPointer.allocate(byteCount: count, alignment: alignment)
    // Safe: memory of our own, of as many bytes, until it is deallocated.
    bytes = unsafe SharedBytes(baseAddress: memory, count: count)
    original = request
    if request.kind != .read { request.payload.copy(to: bytes) }
    self.request = request.with(payload: table.append(bytes, to: nil, at: 0))
  }

  /// Gives what was read to whom it was read for.
  func finish() { if original.kind == .read { original.payload.copy(from: bytes) } }

  /// Not while the kernel has the request.
  func deallocate() {
    // Safe: allocated above, and nobody has it any more.
    unsafe bytes.baseAddress.deallocate()
  }
}

extension ImageFile {
  /// Nil when the payload can go to the file as it lies.
  func bounce(for request: StoreRequest) -> Bounce? {
    guard let direct, !suits(request) else { return nil }
    return Bounce(request, alignment: max(direct.memory, direct.offset))
  }
}

extension SharedPieces {
  /// Whether one system call takes it as slices (limits.h, `IOV_MAX`) and gains from it.
  var isVectored: Bool { count > 1 && count <= 1024 }

  /// The slice that byte `offset` lies in, from there on.
  func piece(after offset: Int) -> SharedBytes {
    var (skip, index) = (offset, 0)
    while skip >= self[index].count {
      skip -= self[index].count
      index += 1
    }
    return self[index].slice(from: skip, count: self[index].count - skip)
  }
}
