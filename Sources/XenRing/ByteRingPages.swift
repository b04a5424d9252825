import Synchronization
import XenPlatform

/// Both rings of a byte stream with the pages that they lie on: a pair of halves, and who holds the memory.
@frozen @usableFromInline @safe struct ByteRingPages: ~Copyable {
  @usableFromInline let interface: SharedRegion
  @usableFromInline let data: SharedRegion
  /// The size of each ring.
  @usableFromInline let byteCount: UInt32

  @inlinable init(interface: consuming SharedRegion, data: consuming SharedRegion) {
    let pageCount = data.byteCount / xenPageSize
    precondition(
      pageCount & (pageCount - 1) == 0 && pageCount <= ByteRingLayout.pageCount(order: ByteRingLayout.maximumOrder),
      "the data pages are a power of two, and their references fit onto the interface page")
    byteCount = UInt32(data.byteCount / 2)
    self.interface = interface
    self.data = data
  }

  // Safe, both: the interface region is at least a page, and the data region twice as long as a ring. The halves live no
  // longer than the pages, in the same ring.
  @inlinable var incoming: ByteRingHalf {
    unsafe ByteRingHalf(
      bytes: data.baseAddress, producer: interface.baseAddress + ByteRingLayout.inProducerOffset,
      consumer: interface.baseAddress + ByteRingLayout.inConsumerOffset, byteCount: byteCount)
  }

  @inlinable var outgoing: ByteRingHalf {
    unsafe ByteRingHalf(
      bytes: data.baseAddress + Int(byteCount), producer: interface.baseAddress + ByteRingLayout.outProducerOffset,
      consumer: interface.baseAddress + ByteRingLayout.outConsumerOffset, byteCount: byteCount)
  }

  /// The word at one of the layout's offsets.
  @inlinable subscript(word offset: Int) -> UInt32 {
    // Safe: a word of the interface page.
    get { unsafe ByteRingHalf.load(interface.baseAddress + offset).rawValue }
    nonmutating set { unsafe ByteRingHalf.store(RingIndex(rawValue: newValue), at: interface.baseAddress + offset) }
  }

  /// Zeroes everything, so that no old byte stays (XSA-403), and fills the interface page.
  func initialise(references: [GrantReference], at index: RingIndex) {
    precondition(references.count == data.byteCount / xenPageSize, "a reference for each data page")
    interface.bytes.zero()
    data.bytes.zero()
    self[word: ByteRingLayout.orderOffset] = UInt32(references.count.trailingZeroBitCount)
    for (number, reference) in references.enumerated() {
      self[word: ByteRingLayout.referencesOffset + 4 * number] = reference.rawValue
    }
    for offset in [
      ByteRingLayout.inConsumerOffset, ByteRingLayout.inProducerOffset, ByteRingLayout.outConsumerOffset,
      ByteRingLayout.outProducerOffset,
    ] { self[word: offset] = index.rawValue }
  }

  /// Both ends' indices as the shared page has them, as one line.
  func words() -> String {
    "shared in_prod \(self[word: ByteRingLayout.inProducerOffset]) in_cons \(self[word: ByteRingLayout.inConsumerOffset])"
      + " out_prod \(self[word: ByteRingLayout.outProducerOffset]) out_cons \(self[word: ByteRingLayout.outConsumerOffset])"
  }
}

/// What a front end's interface page says of its rings: which pages the back end is to map. A copy, made once.
public struct ByteRingInterface: Hashable, Sendable {
  /// From 0 to ``ByteRingLayout/maximumOrder``: there are two to the power of it data pages.
  public let order: Int
  /// The data pages', in order.
  public let references: [GrantReference]

  /// Reads a front end's interface page (`ring_order`, `ref`).
  ///
  /// - Parameters:
  ///   - interface: the page, mapped.
  ///   - maximumOrder: what the back end has offered, from 0 to ``ByteRingLayout/maximumOrder``.
  /// - Throws: ``RingViolation/byteRingOrderOutOfRange(order:maximum:)``.
  public init(
    reading interface: borrowing SharedRegion, maximumOrder: Int = ByteRingLayout.maximumOrder
  ) throws(RingViolation) {
    precondition(maximumOrder >= 0 && maximumOrder <= ByteRingLayout.maximumOrder, "an order is from 0 to 9")
    // Safe, here and below: words of the interface page, which the order that passed the check keeps them on.
    let order = unsafe ByteRingHalf.load(interface.baseAddress + ByteRingLayout.orderOffset).rawValue
    guard order <= UInt32(maximumOrder) else { throw .byteRingOrderOutOfRange(order: order, maximum: maximumOrder) }
    self.order = Int(order)
    var references: [GrantReference] = []
    for number in 0..<ByteRingLayout.pageCount(order: self.order) {
      let offset = ByteRingLayout.referencesOffset + 4 * number
      references.append(GrantReference(rawValue: unsafe ByteRingHalf.load(interface.baseAddress + offset).rawValue))
    }
    self.references = references
  }
}
