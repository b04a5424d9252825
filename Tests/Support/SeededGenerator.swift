/// Random numbers that repeat with their seed (xorshift, Marsaglia).
public struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  /// - Parameter seed: any number; zero, which xorshift cannot leave, is moved away from.
  public init(_ seed: Seed) {
    state = seed.value &* 0x9E37_79B9_7F4A_7C15 | 1
    for _ in 0..<8 { _ = next() }
  }

  public mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state
  }
}
