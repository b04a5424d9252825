import Testing
import XenPlatform
import XenRing

/// R1, R2: the shared page's header and how many slots follow it.
struct RingLayoutTests {
  /// A page full of old bytes that a front end has made a ring of.
  func freshRing() -> RawPages {
    let raw = RawPages(pages: PrivatePages(pageCount: 1))
    raw.all = [UInt8](repeating: 0xFF, count: raw.byteCount)
    _ = FrontRing<Message<112>, Message<16>>(initialising: raw.pages.region())
    return raw
  }

  @Test func freshRingHasProducersOfZeroAndEventsOfOne() {
    #expect(freshRing()[bytes: 0..<16] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0])
  }

  @Test func freshRingHasZeroedPrivateBytesAndPadding() {
    #expect(freshRing()[bytes: 16..<64] == [UInt8](repeating: 0, count: 48))
  }

  @Test func freshRingHasZeroedSlots() {
    #expect(freshRing()[bytes: 64..<4096].allSatisfy { $0 == 0 })
  }

  @Test(arguments: startIndices) func freshRingStartsAtItsIndex(start: UInt32) {
    let pair = DiskPair(at: start)
    #expect(pair.raw[.requestProducer] == start)
    #expect(pair.raw[.requestEvent] == start &+ 1)
    #expect(pair.raw[.responseProducer] == start)
    #expect(pair.raw[.responseEvent] == start &+ 1)
  }

  @Test func firstSlotFollowsSixtyFourBytesOfHeader() {
    var pair = DiskPair()
    pair.front.put(Message(5))
    #expect(pair.raw[bytes: 64..<176] == Message<112>(5).byteArray)
    #expect(pair.raw[bytes: 16..<64].allSatisfy { $0 == 0 })
  }

  static let goldenCounts: [(stride: Int, countsByPages: KeyValuePairs<Int, Int>)] = [
    (112, [1: 32, 2: 64, 4: 128, 8: 256, 16: 512]),
    (108, [1: 32, 2: 64, 4: 128, 8: 256, 16: 512]),
    (12, [1: 256, 2: 512, 4: 1024, 8: 2048, 16: 4096]),
    (8, [1: 256, 2: 512, 4: 1024, 8: 2048, 16: 4096]),
    (16, [1: 128, 2: 256, 4: 512, 8: 1024, 16: 2048]),
  ]

  @Test(arguments: goldenCounts) func entryCountIsGolden(stride: Int, countsByPages: KeyValuePairs<Int, Int>) {
    for (pageCount, count) in countsByPages {
      #expect(RingLayout.entryCount(byteCount: pageCount * 4096, stride: stride) == count)
    }
  }

  @Test func slotThatExactlyFitsCounts() {
    #expect(RingLayout.entryCount(byteCount: 4096, stride: 4032) == 1)
    #expect(RingLayout.entryCount(byteCount: 4096, stride: 2016) == 2)
  }

  @Test func nothingFitsInTooLittle() {
    #expect(RingLayout.entryCount(byteCount: 4096, stride: 4033) == 0)
    #expect(RingLayout.entryCount(byteCount: 64, stride: 1) == 0)
    #expect(RingLayout.entryCount(byteCount: 0, stride: 1) == 0)
  }

  @Test func strideIsThatOfTheLargerEntry() {
    #expect(RingLayout.stride(Message<112>.self, Message<16>.self) == 112)
    #expect(RingLayout.stride(Message<8>.self, Message<12>.self) == 12)
  }

  @Test(arguments: [1, 2, 4, 8, 16]) func bothEndsCountTheSameEntries(pageCount: Int) {
    let disk = RingPair<Message<108>, Message<12>>(pageCount: pageCount)
    let diskCounts = [disk.front.entryCount, disk.back.entryCount]
    #expect(diskCounts == [32 * pageCount, 32 * pageCount])
    let card = RingPair<Message<12>, Message<4>>(pageCount: pageCount)
    let cardCounts = [card.front.entryCount, card.back.entryCount]
    #expect(cardCounts == [256 * pageCount, 256 * pageCount])
  }
}
