import XenPlatform

/// Bytes that differ from number to number and, for a quarter of a megabyte, from sector to sector.
public func pattern(_ byteCount: Int, seed number: Int) -> [UInt8] {
  let wordCount = (byteCount + 3) / 4
  return unsafe [UInt8](unsafeUninitializedCapacity: wordCount * 4) { buffer, count in
    let bytes = UnsafeMutableRawBufferPointer(buffer)
    var word: UInt32 = 0
    // Word by word, since tests make megabytes of them, and are not optimised.
    while word < wordCount {
      let low = (word ^ word &>> 8) & 0xFF
      let both = (low &* 0x0101_0101) ^ UInt32(truncatingIfNeeded: number)
      // Safe: the capacity is that of all words.
      unsafe bytes.storeBytes(of: both, toByteOffset: Int(word) * 4, as: UInt32.self)
      word += 1
    }
    count = byteCount
  }
}

extension SharedBytes {
  /// Writes a little-endian word behind the back of whoever thinks that these bytes are its own.
  public func scribble(_ word: UInt32, at offset: Int) {
    let bytes = (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
    slice(from: offset, count: 4).copy(from: bytes.span)
  }
}
