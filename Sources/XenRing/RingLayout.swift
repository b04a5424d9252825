/// The arithmetic of the shared page (io/ring.h, `DEFINE_RING_TYPES` and `__RING_SIZE`).
///
/// A ring is a header of 64 bytes, then a power of two of equal slots. A slot holds a request, or later the response to
/// one, so its stride is that of the larger. On a ring of several pages a slot may straddle two of them.
public enum RingLayout {
  /// Bytes before the first slot: four indices, four private bytes, 44 of padding.
  public static let headerByteCount = 64

  @usableFromInline static let requestProducerOffset = 0
  @usableFromInline static let requestEventOffset = 4
  @usableFromInline static let responseProducerOffset = 8
  @usableFromInline static let responseEventOffset = 12

  /// The bytes from one slot to the next.
  @inlinable public static func stride<Request: BitwiseCopyable, Response: BitwiseCopyable>(
    _ request: Request.Type, _ response: Response.Type
  ) -> Int { max(MemoryLayout<Request>.stride, MemoryLayout<Response>.stride) }

  /// How many slots fit: the largest power of two, or 0 when not even one does.
  ///
  /// - Parameters:
  ///   - byteCount: the ring's whole size, header included.
  ///   - stride: the bytes from one slot to the next; positive.
  public static func entryCount(byteCount: Int, stride: Int) -> Int {
    precondition(stride > 0, "a slot has a size")
    let room = (byteCount - headerByteCount) / stride
    return room < 1 ? 0 : 1 << (Int.bitWidth - 1 - room.leadingZeroBitCount)
  }
}
