import TestSupport
import Testing
import XenPlatform
import XenRing

/// R13 under the ring's gate: the other end writes what it likes into the interface page and the bytes.
struct ByteHostilePeerTests {
  @Test(arguments: startIndices, [2049, 1 << 16, 1 << 31, .max] as [UInt32])
  func producerOutsideTheRingIsAViolation(start: UInt32, ahead: UInt32) {
    var pair = BytePair(at: start)
    pair[.outProducer] = start &+ ahead
    pair[.inProducer] = start &+ ahead
    let expected = RingViolation.byteProducerOutOfRange(
      produced: RingIndex(rawValue: start &+ ahead), consumed: RingIndex(rawValue: start), room: 2048)
    let (back, front) = (pair.backsComplaint(), pair.frontsComplaint())
    #expect(back == expected)
    #expect(front == expected)
    let bytes = pair.back.read(upTo: 10) + pair.front.read(upTo: 10)
    #expect(bytes.isEmpty)
  }

  @Test(arguments: startIndices) func bytesReadAndNotGivenBackAreNotFree(start: UInt32) throws {
    var pair = BytePair(at: start)
    _ = try pair.front.write(bytes: pattern(2048, seed: 1))
    _ = pair.front.push()
    _ = try pair.back.readableCount()
    _ = pair.back.read(upTo: 48)
    // Within the size of the ring from what is read, but over bytes that this end has not given back.
    pair[.outProducer] = start &+ 2049
    let complaint = pair.backsComplaint()
    #expect(
      complaint
        == .byteProducerOutOfRange(
          produced: RingIndex(rawValue: start &+ 2049), consumed: RingIndex(rawValue: start &+ 48), room: 2000))
    _ = pair.back.push()
    let waiting = try pair.back.readableCount()
    #expect(waiting == 2001)
  }

  @Test(arguments: startIndices) func producerBehindWhatIsReadIsAViolation(start: UInt32) throws {
    var pair = BytePair(at: start)
    _ = try pair.front.write(bytes: pattern(100, seed: 1))
    _ = pair.front.push()
    _ = try pair.back.readableCount()
    _ = pair.back.read(upTo: 50)
    for back in 51...100 as ClosedRange<UInt32> {
      pair[.outProducer] = start &+ 100 &- back
      let complaint = pair.backsComplaint()
      #expect(complaint != nil)
    }
    // What was checked before is still there, and not one byte more.
    let left = pair.back.read(upTo: 100)
    #expect(left == Array(pattern(100, seed: 1)[50...]))
  }

  @Test(arguments: startIndices) func bytesTakenBackBeforeTheyAreReadAreGone(start: UInt32) throws {
    var pair = BytePair(at: start)
    _ = try pair.front.write(bytes: [1, 2, 3])
    _ = pair.front.push()
    _ = try pair.back.readableCount()
    pair[.outProducer] = start &+ 1
    let waiting = try pair.back.readableCount()
    #expect(waiting == 1)
    let bytes = pair.back.read(upTo: 3)
    #expect(bytes == [1])
  }

  @Test(arguments: startIndices) func consumerPastWhatIsPushedIsAViolation(start: UInt32) throws {
    var pair = BytePair(at: start)
    _ = try pair.front.write(bytes: [1, 2, 3])
    pair[.outConsumer] = start &+ 1
    let unpushed = pair.frontsComplaint(true)
    #expect(
      unpushed
        == .byteConsumerOutOfRange(
          consumed: RingIndex(rawValue: start &+ 1), pushed: RingIndex(rawValue: start), unread: 0))
    _ = pair.front.push()
    for ahead in [4, 1 << 16, 1 << 31, .max] as [UInt32] {
      pair[.outConsumer] = start &+ ahead
      let complaint = pair.frontsComplaint(true)
      #expect(complaint != nil)
    }
    // No room came of it.
    let written = pair.front.write(pattern(3000, seed: 2).span)
    #expect(written == 2045)
  }

  /// The plain arithmetic would accept it: what is queued still fits the ring.
  @Test(arguments: startIndices) func consumerThatMovesBackwardsIsAViolation(start: UInt32) throws {
    var pair = BytePair(at: start)
    _ = try pair.back.write(bytes: pattern(100, seed: 1))
    _ = pair.back.push()
    pair[.inConsumer] = start &+ 60
    let free = try pair.back.writableCount()
    #expect(free == 2008)
    pair[.inConsumer] = start &+ 59
    let complaint = pair.backsComplaint(true)
    #expect(
      complaint
        == .byteConsumerOutOfRange(
          consumed: RingIndex(rawValue: start &+ 59), pushed: RingIndex(rawValue: start &+ 100), unread: 40))
  }

  @Test(arguments: startIndices) func bytesThatAreRewrittenAreAsTheyWereRead(start: UInt32) throws {
    var pair = BytePair(at: start)
    _ = try pair.front.write(bytes: [7, 0, 0, 0, 1, 2, 3])
    _ = pair.front.push()
    _ = try pair.back.readableCount()
    let header = pair.back.read(as: UInt32.self)
    pair.data.bytes.copy(from: [UInt8](repeating: 0xEE, count: 4096).span)
    #expect(header == 7)
    let rest = pair.back.read(upTo: 10)
    #expect(rest == [0xEE, 0xEE, 0xEE])
  }

  @Test(arguments: startIndices) func ownIndicesRewrittenByThePeerDoNotMoveUs(start: UInt32) throws {
    var pair = BytePair(at: start)
    _ = try pair.front.write(bytes: [1])
    _ = pair.front.push()
    pair[.outProducer] = start &+ 500
    pair[.inConsumer] = start &+ 500
    let free = try pair.front.writableCount()
    #expect(free == 2047)
    _ = try pair.front.write(bytes: [2])
    _ = pair.front.push()
    let produced = pair[.outProducer]
    #expect(produced == start &+ 2)
  }

  @Test(arguments: [10, 31, 32, 255, 1 << 31, .max] as [UInt32]) func orderThatWasNotOfferedIsRefused(order: UInt32) {
    let pair = BytePair()
    pair[.order] = order
    #expect(throws: RingViolation.byteRingOrderOutOfRange(order: order, maximum: 9)) {
      try ByteRingInterface(reading: pair.interface.region())
    }
    pair[.order] = 1
    #expect(throws: RingViolation.byteRingOrderOutOfRange(order: 1, maximum: 0)) {
      try ByteRingInterface(reading: pair.interface.region(), maximumOrder: 0)
    }
  }

  @Test func largestOrderReadsItsReferencesWithinThePage() throws {
    let pair = BytePair(order: 9)
    let interface = try ByteRingInterface(reading: pair.interface.region())
    #expect(interface.references == BytePair.references(order: 9))
  }

  /// Anything at all in the four words, at any moment: every answer is within the ring, or a violation.
  @Test(arguments: seeds(1...4, of: ByteHostilePeerTests.self)) func randomIndicesNeverLeadOutOfTheRing(seed: Seed)
    throws
  {
    var generator = SeededGenerator(seed)
    var (accepted, refused) = (0, 0)
    for _ in 0..<200 {
      let start = UInt32.random(in: .min ... .max, using: &generator)
      var pair = BytePair(at: start)
      for _ in 0..<200 {
        let word: BytePair.Word = [.inConsumer, .inProducer, .outConsumer, .outProducer].randomElement(
          using: &generator)!
        // Most of them near, or nearly all would be refused for their size.
        pair[word] =
          Bool.random(using: &generator)
          ? UInt32.random(in: .min ... .max, using: &generator)
          : pair[word] &+ UInt32.random(in: 0...40, using: &generator) &- 8
        do throws(RingViolation) {
          let (readable, writable) = (try pair.back.readableCount(), try pair.back.writableCount())
          #expect(readable <= 2048 && writable <= 2048)
          let read = pair.back.read(upTo: Int.random(in: 0...3000, using: &generator))
          #expect(read.count <= readable)
          let written = pair.back.write([UInt8](repeating: 0, count: Int.random(in: 0...3000, using: &generator)).span)
          #expect(written <= writable)
          if Bool.random(using: &generator) { _ = pair.back.push() }
          accepted += 1
        } catch { refused += 1 }
      }
    }
    #expect(accepted > 100 && refused > 100)
  }

  @Test func violationsReadLikeSentences() {
    let (one, two) = (RingIndex(rawValue: 1), RingIndex(rawValue: 2))
    #expect(
      RingViolation.byteProducerOutOfRange(produced: two, consumed: one, room: 0).description
        == "the other end moved its producer to 2, but bytes are read up to 1 and 0 are free")
    #expect(
      RingViolation.byteConsumerOutOfRange(consumed: two, pushed: one, unread: 0).description
        == "the other end moved its consumer to 2, but bytes are written up to 1 and it had not read 0 of them")
    #expect(
      RingViolation.byteRingOrderOutOfRange(order: 10, maximum: 9).description
        == "the front end's rings have order 10, and at most 9 was offered")
  }
}
