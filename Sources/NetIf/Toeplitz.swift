/// The Toeplitz hash of flows under one key (io/netif.h, "Hash algorithms"; Microsoft, "RSS Hashing Functions").
///
/// A key is made into a table once: after that a hash costs one load for each four bits of the flow, and allocates nothing.
public struct Toeplitz: Sendable {
  /// The longest key: so many bytes of it reach the longest flow.
  public static let maxKeyByteCount = 40

  /// For each four bits of a flow, by their place, what each of their 16 values adds.
  private let table: [UInt32]

  /// - Parameter key: 0 to ``maxKeyByteCount`` bytes; the others count as zero, so that under an empty one each hash is zero.
  public init(key: Span<UInt8>) {
    precondition(key.count <= Self.maxKeyByteCount, "a key of more bytes than there are")
    table = (0..<NetFlow.maxWordCount * 8).flatMap { place in
      // The 35 bits of the key that the four bits from here on are multiplied by, and five more.
      var window: UInt64 = 0
      for index in place / 2..<place / 2 + 5 { window = window << 8 | (index < key.count ? UInt64(key[index]) : 0) }
      if place % 2 == 1 { window <<= 4 }
      return (0..<16).map { nibble in
        var value: UInt32 = 0
        // The highest bit takes the 32 highest bits of the window's 40, the next one those that follow.
        for bit in 0..<4 where nibble >> (3 - bit) & 1 == 1 { value ^= UInt32(truncatingIfNeeded: window >> (8 - bit)) }
        return value
      }
    }
  }

  /// The hash over a flow's addresses and, where it has them and they are wanted, its ports.
  public func value(of flow: NetFlow, withPorts: Bool) -> UInt32 {
    var hash: UInt32 = 0
    let table = table.span
    let wordCount = withPorts ? flow.wordCount : flow.addressWordCount
    for index in 0..<wordCount {
      let word = flow.words[index]
      var place = index &* 128
      var shift: UInt32 = 32
      while shift > 0 {
        shift &-= 4
        // Safe: a flow has no more words than the table has places for, eight to a word, with 16 entries each.
        hash ^= unsafe table[unchecked: place &+ Int(truncatingIfNeeded: word &>> shift & 0xF)]
        place &+= 16
      }
    }
    return hash
  }
}
