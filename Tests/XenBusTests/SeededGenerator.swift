/// Random numbers that repeat with their seed (xorshift, Marsaglia).
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  /// - Parameter seed: any number; zero, which xorshift cannot leave, is moved away from.
  init(seed: UInt64) {
    state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    for _ in 0..<8 { _ = next() }
  }

  mutating func next() -> UInt64 {
    state ^= state << 13
    state ^= state >> 7
    state ^= state << 17
    return state
  }
}
