import XenPlatform

/// Bytes that differ from number to number and, for a quarter of a megabyte, from sector to sector.
public func pattern(_ byteCount: Int, seed number: Int) -> [UInt8] {
  (0..<byteCount).map { UInt8(truncatingIfNeeded: (number >> (8 * ($0 & 3))) ^ ($0 >> 2) ^ ($0 >> 10)) }
}

extension SharedBytes {
  /// Writes a little-endian word behind the back of whoever thinks that these bytes are its own.
  public func scribble(_ word: UInt32, at offset: Int) {
    let bytes = (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) }
    slice(from: offset, count: 4).copy(from: bytes.span)
  }
}
