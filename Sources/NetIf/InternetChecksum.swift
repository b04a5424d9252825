/// The checksum of IPv4, TCP, UDP and ICMP: the complement of the sum, in one's complement, of 16-bit words (RFC 1071).
public struct InternetChecksum: Sendable {
  /// Of the words as they lie in memory, whatever the machine's byte order: the sum of swapped words is the swapped sum
  /// (RFC 1071, section 2 (B)). Folded, so that it holds any number of parts.
  private var sum: UInt64 = 0

  public init() {}

  /// Adds what lies in memory. Every part but the last one has an even number of bytes; a byte alone at the end counts as
  /// if a zero followed.
  public mutating func add(_ octets: Span<UInt8>) {
    // Safe: every bit of an octet is set to something.
    let bytes = unsafe octets.bytes
    // Halves of 64 bits leave their lanes 32 bits for carries: enough for 4 GiB.
    var lanes = SIMD4<UInt64>.zero
    var place = 0
    while bytes.byteCount &- place >= 32 {
      // Safe: 32 bytes from `place` on lie within the span, and integers have no invalid bits.
      let words = unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: place, as: SIMD4<UInt64>.self)
      lanes &+= (words & 0xFFFF_FFFF) &+ (words &>> 32)
      place &+= 32
    }
    var part = lanes.wrappedSum()
    while bytes.byteCount &- place >= 4 {
      // Safe: as above, with four bytes.
      part &+= UInt64(unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: place, as: UInt32.self))
      place &+= 4
    }
    if bytes.byteCount &- place >= 2 {
      // Safe: as above, with two bytes.
      part &+= UInt64(unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: place, as: UInt16.self))
      place &+= 2
    }
    if bytes.byteCount &- place >= 1 {
      // Safe: as above, with one byte.
      let last = unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: place, as: UInt8.self)
      part &+= UInt64(UInt16(littleEndian: UInt16(last)))
    }
    sum = UInt64(Self.folded(part)) &+ UInt64(Self.folded(sum))
  }

  /// Adds one word. Not folded: there is room for more words than anybody adds.
  public mutating func add(_ word: UInt16) { sum &+= UInt64(word.bigEndian) }

  /// Adds two words, the first one in the high half.
  mutating func add(_ words: UInt32) { sum &+= UInt64(words.bigEndian) }

  /// Zero over bytes that hold their own right checksum.
  public var value: UInt16 { ~UInt16(bigEndian: Self.folded(sum)) }

  /// Adds what leaves the low 16 bits to them.
  private static func folded(_ sum: UInt64) -> UInt16 {
    var sum = (sum & 0xFFFF_FFFF) &+ (sum &>> 32)
    sum = (sum & 0xFFFF) &+ (sum &>> 16)
    sum = (sum & 0xFFFF) &+ (sum &>> 16)
    return UInt16(truncatingIfNeeded: (sum & 0xFFFF) &+ (sum &>> 16))
  }
}
