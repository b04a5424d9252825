import NetIf
import TestSupport
import Testing

/// The checksum against what is published, and against one word after the other.
struct InternetChecksumTests {
  private func checksum(_ parts: [UInt8]...) -> UInt16 {
    var checksum = InternetChecksum()
    for part in parts { checksum.add(part.span) }
    return checksum.value
  }

  /// RFC 1071, section 3: the sum of these words is 0xDDF2.
  @Test func theExampleOfItsRFCHolds() {
    #expect(checksum([0x00, 0x01, 0xF2, 0x03, 0xF4, 0xF5, 0xF6, 0xF7]) == ~0xDDF2)
    var words = InternetChecksum()
    for word: UInt16 in [0x0001, 0xF203, 0xF4F5, 0xF6F7] { words.add(word) }
    #expect(words.value == ~0xDDF2)
  }

  /// An IPv4 header whose checksum is known to be 0xB861.
  @Test func aHeaderWithItsChecksumComesToZero() {
    let header: [UInt8] = [
      0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0xB8, 0x61, 0xC0, 0xA8, 0x00, 0x01, 0xC0, 0xA8, 0x00,
      0xC7,
    ]
    #expect(checksum(header) == 0)
    var blank = header
    (blank[10], blank[11]) = (0, 0)
    #expect(checksum(blank) == 0xB861)
  }

  @Test func nothingAddsNothing() {
    #expect(
      checksum() == 0xFFFF && checksum([]) == 0xFFFF && checksum([0, 0]) == 0xFFFF && checksum([0xFF, 0xFF]) == 0)
    #expect(checksum([0xAB]) == ~0xAB00)
  }

  /// Every length over the ends of each loop, at every alignment, the highest sums among them.
  @Test(arguments: seeds(1...20, of: InternetChecksumTests.self))
  func itIsThatOfOneWordAfterTheOther(seed: Seed) {
    var random = SeededGenerator(seed)
    let largest = seed.modulo(3) == 0
    let bytes: [UInt8] = (0..<70_000).map { _ in largest ? 0xFF : UInt8.random(in: 0...255, using: &random) }
    let lengths = Array(0...130) + [1460, 4095, 9001, 65_535]
    for length in lengths {
      let start = Int.random(in: 0...64, using: &random)
      let part = Array(bytes[start..<start + length])
      var whole = InternetChecksum()
      whole.add(bytes.span.extracting(start..<start + length))
      #expect(whole.value == naiveChecksum(part), "\(length) bytes from \(start) on")
      let cut = Int.random(in: 0...length / 2, using: &random) * 2
      #expect(checksum(Array(part[..<cut]), Array(part[cut...])) == whole.value, "\(length) bytes cut at \(cut)")
    }
  }
}
