import Testing
import XenPlatform
import XenRing

/// R4, R5: what is put on one end is taken on the other, on rings of any size and across the wrap.
struct RingTransferTests {
  /// Passes three rings' worth of messages through both directions, one batch at a time.
  func passThrough<let requestSize: Int, let responseSize: Int>(
    _ pair: consuming RingPair<Message<requestSize>, Message<responseSize>>
  ) throws {
    var number: UInt32 = 0
    let batch = UInt32(pair.front.entryCount) / 2 + 1
    for _ in 0..<6 {
      for offset in 0..<batch { pair.front.put(Message(number + offset)) }
      pair.front.push()
      let waiting = try pair.back.available()
      #expect(waiting == batch)
      var taken: UInt32 = 0
      while let request = pair.back.next() {
        #expect(request == Message(number + taken))
        pair.back.put(Message(~(number + taken)))
        taken += 1
      }
      #expect(taken == batch)
      pair.back.push()
      let answered = try pair.front.available()
      #expect(answered == batch)
      for offset in 0..<batch {
        let response = pair.front.next()
        #expect(response == Message(~(number + offset)))
      }
      number += batch
    }
  }

  @Test(arguments: startIndices) func messagesCrossOnePage(start: UInt32) throws {
    try passThrough(RingPair<Message<112>, Message<16>>(at: start))
    try passThrough(RingPair<Message<12>, Message<4>>(at: start))
    try passThrough(RingPair<Message<4>, Message<8>>(at: start))
  }

  @Test(arguments: [2, 4, 16], startIndices) func messagesCrossSeveralPages(pageCount: Int, start: UInt32) throws {
    try passThrough(RingPair<Message<112>, Message<16>>(pageCount: pageCount, at: start))
    try passThrough(RingPair<Message<108>, Message<12>>(pageCount: pageCount, at: start))
  }

  @Test func slotsStraddlePages() {
    var disk = DiskPair(pageCount: 4)
    disk.request(0..<128)
    let straddling = disk.slotRange(72)
    #expect(straddling == 8128..<8240)
    #expect(disk.raw[bytes: straddling] == Message<112>(72).byteArray)
    var oldDisk = RingPair<Message<108>, Message<12>>(pageCount: 2)
    for number in 0..<64 as Range<UInt32> { oldDisk.front.put(Message(number)) }
    let oldStraddling = oldDisk.slotRange(37)
    #expect(oldStraddling == 4060..<4168)
    #expect(oldDisk.raw[bytes: oldStraddling] == Message<108>(37).byteArray)
  }

  @Test(arguments: startIndices) func slotIsTheIndexModuloTheCount(start: UInt32) {
    var pair = DiskPair(at: start)
    pair.request(0..<32)
    for number in 0..<32 as Range<UInt32> {
      let slot = pair.raw[bytes: pair.slotRange(start &+ number)]
      #expect(slot == Message<112>(number).byteArray)
    }
  }

  @Test(arguments: startIndices) func requestIsInvisibleBeforeItsPush(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.front.put(Message(1))
    let before = try pair.back.available()
    #expect(before == 0)
    pair.front.push()
    let after = try pair.back.available()
    #expect(after == 1)
  }

  @Test(arguments: startIndices) func responseIsInvisibleBeforeItsPush(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<1)
    try pair.take(1)
    pair.back.put(Message(1))
    let before = try pair.front.available()
    #expect(before == 0)
    pair.back.push()
    let after = try pair.front.available()
    #expect(after == 1)
  }

  @Test(arguments: startIndices) func nothingIsTakenThatWasNotLookedFor(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<1)
    let unlooked = pair.back.next()
    #expect(unlooked == nil)
    try pair.take(1)
    pair.respond(0..<1)
    let response = pair.front.next()
    #expect(response == nil)
  }

  @Test(arguments: startIndices) func slotsGoRoundWithTheIndices(start: UInt32) throws {
    var pair = DiskPair(at: start)
    for number in 0..<70 as Range<UInt32> {
      let slot = Int((start &+ number) % 32)
      let before = (pair.front.requestSlot, pair.front.responseSlot)
      #expect(before == (slot, slot))
      pair.request(number..<number + 1)
      let requested = (pair.front.requestSlot, pair.front.responseSlot)
      #expect(requested == ((slot + 1) % 32, slot))
      try pair.take(1)
      pair.respond(number..<number + 1)
      let isThere = try pair.front.available() == 1 && pair.front.next() != nil
      #expect(isThere)
    }
  }

  @Test(arguments: startIndices) func countsFollowARequestAround(start: UInt32) throws {
    var pair = DiskPair(at: start)
    func counts(_ pair: borrowing DiskPair) -> [UInt32] {
      [pair.front.freeRequestCount, pair.front.unansweredCount, pair.back.inFlightCount]
    }
    let idle = counts(pair)
    #expect(idle == [32, 0, 0])
    pair.request(0..<32)
    let full = counts(pair)
    #expect(full == [0, 32, 0])
    try pair.take(3)
    let working = counts(pair)
    #expect(working == [0, 32, 3])
    pair.respond(0..<2)
    let responded = counts(pair)
    #expect(responded == [0, 32, 1])
    _ = try pair.front.available()
    _ = pair.front.next()
    let answered = counts(pair)
    #expect(answered == [1, 31, 1])
  }
}
