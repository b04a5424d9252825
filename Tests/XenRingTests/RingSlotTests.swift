import Testing
import XenPlatform
import XenRing

/// R12: a slot is written whole, so that no byte of an earlier message or of somebody's memory leaves in it.
struct RingSlotTests {
  /// The slot after `put`, on a page that was full of ones before.
  func slotAfter<let requestSize: Int, let responseSize: Int>(
    start: UInt32, _ put: (inout RingPair<Message<requestSize>, Message<responseSize>>) throws -> Void
  ) throws -> [UInt8] {
    var pair = RingPair<Message<requestSize>, Message<responseSize>>(at: start)
    pair.front.put(Message(0))
    pair.front.push()
    _ = try pair.back.available()
    _ = pair.back.next()
    pair.raw[bytes: 64..<4096] = [UInt8](repeating: 0xFF, count: 4032)
    try put(&pair)
    // Nothing but this slot has changed.
    let slot = pair.slotRange(start)
    #expect(pair.raw[bytes: 64..<slot.lowerBound].allSatisfy { $0 == 0xFF })
    #expect(pair.raw[bytes: slot.upperBound..<4096].allSatisfy { $0 == 0xFF })
    return pair.raw[bytes: slot]
  }

  @Test(arguments: startIndices) func responseFillsItsWholeSlot(start: UInt32) throws {
    let disk = try slotAfter(start: start) { (pair: inout RingPair<Message<112>, Message<16>>) in
      pair.back.put(Message(3))
    }
    #expect(disk == Message<16>(3).byteArray + [UInt8](repeating: 0, count: 96))
    let oldDisk = try slotAfter(start: start) { (pair: inout RingPair<Message<108>, Message<12>>) in
      pair.back.put(Message(3))
    }
    #expect(oldDisk == Message<12>(3).byteArray + [UInt8](repeating: 0, count: 96))
    let card = try slotAfter(start: start) { (pair: inout RingPair<Message<12>, Message<4>>) in
      pair.back.put(Message(3))
    }
    #expect(card == Message<4>(3).byteArray + [UInt8](repeating: 0, count: 8))
  }

  @Test func requestSmallerThanItsResponseFillsItsWholeSlot() {
    var pair = RingPair<Message<4>, Message<8>>()
    pair.raw[bytes: 64..<4096] = [UInt8](repeating: 0xFF, count: 4032)
    pair.front.put(Message(3))
    #expect(pair.raw[bytes: 64..<72] == Message<4>(3).byteArray + [0, 0, 0, 0])
    #expect(pair.raw[bytes: 72..<4096].allSatisfy { $0 == 0xFF })
  }

  @Test func tailPaddingOfAnEntryIsZeroed() throws {
    struct Odd: BitwiseCopyable { var wide: UInt32, narrow: UInt8 }
    let pages = PrivatePages(pageCount: 1)
    let raw = RawPages(pages: pages)
    var front = FrontRing<Odd, Odd>(initialising: pages.region())
    raw[bytes: 64..<4096] = [UInt8](repeating: 0xFF, count: 4032)
    front.put(Odd(wide: 0x0403_0201, narrow: 5))
    #expect(raw[bytes: 64..<72] == [1, 2, 3, 4, 5, 0, 0, 0])
  }
}
