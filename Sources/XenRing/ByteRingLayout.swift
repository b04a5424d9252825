/// The arithmetic of a pair of byte-stream rings (io/ring.h, `DEFINE_XEN_FLEX_RING_AND_INTF`).
///
/// One interface page holds the indices, the order, and the grant references of the data pages; of these the first half
/// are the ring `in` (the back end writes, the front end reads), the second half the ring `out`. The protocols that have
/// an interface structure of their own (9pfs, PV Calls) have all of this in the same places.
public enum ByteRingLayout {
  /// The highest order whose references fit onto the interface page.
  public static let maximumOrder = 9

  @usableFromInline static let inConsumerOffset = 0
  @usableFromInline static let inProducerOffset = 4
  @usableFromInline static let inErrorOffset = 8
  @usableFromInline static let outConsumerOffset = 64
  @usableFromInline static let outProducerOffset = 68
  @usableFromInline static let outErrorOffset = 72
  @usableFromInline static let orderOffset = 128
  @usableFromInline static let referencesOffset = 132

  /// How many data pages both rings together have.
  ///
  /// - Parameter order: from 0 to ``maximumOrder``.
  @inlinable public static func pageCount(order: Int) -> Int {
    precondition(order >= 0 && order <= maximumOrder, "an order is from 0 to 9")
    return 1 << order
  }

  /// The size in bytes of each of the two rings, a power of two (`XEN_FLEX_RING_SIZE`).
  ///
  /// - Parameter order: from 0 to ``maximumOrder``.
  @inlinable public static func byteCount(order: Int) -> Int { pageCount(order: order) << 11 }
}
