import Testing
import XenPlatform
import XenRing

/// The first gate, fault by fault: what each index may not be, said with the numbers that make it so.
struct RingGateTests {
  private typealias Front = FrontRing<UInt64, UInt64>
  private typealias Back = BackRing<UInt64, UInt64>

  /// A page of a ring, and its words as whoever maps it writes them.
  private let pages = PrivatePages(pageCount: 1)

  private func write(_ value: UInt32, at offset: Int) {
    let bytes = (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    pages.region().bytes.slice(from: offset, count: 4).copy(from: bytes.span)
  }

  private func violation(_ body: () throws(RingViolation) -> Void) -> RingViolation? {
    do throws(RingViolation) {
      try body()
      return nil
    } catch { return error }
  }

  private func index(_ value: UInt32) -> RingIndex { RingIndex(rawValue: value) }

  @Test func requestProducerOutOfRange() {
    _ = Front(initialising: pages.region(), at: index(.max))
    var back = Back(attaching: pages.region(), at: index(.max))
    let room = UInt32(back.entryCount)
    write(room, at: 0)
    let found = violation { () throws(RingViolation) in _ = try back.available() }
    #expect(found == .requestProducerOutOfRange(produced: index(room), consumed: index(.max), room: room))
    #expect("\(found!)".contains("moved its request producer to \(room)"))
    // One less is a full ring.
    write(room - 1, at: 0)
    let full = violation { () throws(RingViolation) in _ = try back.available() }
    #expect(full == nil)
  }

  @Test func responseProducerOutOfRange() {
    var front = Front(initialising: pages.region(), at: index(.max))
    front.put(1)
    front.push()
    write(1, at: 8)
    let found = violation { () throws(RingViolation) in _ = try front.available() }
    #expect(found == .responseProducerOutOfRange(produced: index(1), consumed: index(.max), unanswered: 1))
    #expect("\(found!)".contains("moved its response producer to 1"))
    write(0, at: 8)
    let one = violation { () throws(RingViolation) in _ = try front.available() }
    #expect(one == nil)
  }

  @Test(arguments: [(0, 1), (5, 4), (.max, .max - 1)] as [(UInt32, UInt32)])
  func takenUpOutOfRange(produced: UInt32, consumed: UInt32) {
    _ = Front(initialising: pages.region())
    write(produced, at: 8)
    let found = violation { () throws(RingViolation) in
      _ = try Back(takingUp: pages.region(), requestsConsumed: index(consumed &+ 1000))
    }
    let entryCount = UInt32(Back(attaching: pages.region()).entryCount)
    #expect(
      found
        == .takenUpOutOfRange(produced: index(produced), consumed: index(consumed &+ 1000), entryCount: entryCount))
    #expect("\(found!)".contains("which cannot be when requests were consumed up to \(consumed &+ 1000)"))
    // Also the other way round: more answers than were taken.
    let behind = violation { () throws(RingViolation) in
      _ = try Back(takingUp: pages.region(), requestsConsumed: index(produced &- 1))
    }
    #expect(behind != nil)
    let right = violation { () throws(RingViolation) in
      _ = try Back(takingUp: pages.region(), requestsConsumed: index(produced &+ entryCount))
    }
    #expect(right == nil)
  }

  private func byteRing(data: PrivatePages) -> ByteRing {
    ByteRing(
      initialising: pages.region(), data: data.region(),
      references: (0..<2).map { GrantReference(rawValue: UInt32($0)) })
  }

  @Test func byteProducerOutOfRange() {
    let data = PrivatePages(pageCount: 2)
    var ring = byteRing(data: data)
    // `in_prod` of the one end, `out_prod` of the other.
    write(4097, at: 4)
    write(4097, at: 68)
    var back = ByteRing(attaching: pages.region(), data: data.region())
    let expected = RingViolation.byteProducerOutOfRange(produced: index(4097), consumed: .zero, room: 4096)
    let front = violation { () throws(RingViolation) in _ = try ring.readableCount() }
    let other = violation { () throws(RingViolation) in _ = try back.readableCount() }
    #expect(front == expected && other == expected)
    #expect("\(expected)".contains("moved its producer to 4097"))
  }

  @Test func byteConsumerOutOfRange() {
    let data = PrivatePages(pageCount: 2)
    var ring = byteRing(data: data)
    write(1, at: 64)
    let found = violation { () throws(RingViolation) in _ = try ring.writableCount() }
    #expect(found == .byteConsumerOutOfRange(consumed: index(1), pushed: .zero, unread: 0))
    #expect("\(found!)".contains("moved its consumer to 1"))
  }

  @Test(arguments: [(10, 9), (3, 2), (.max, 9)] as [(UInt32, Int)])
  func byteRingOrderOutOfRange(order: UInt32, maximum: Int) {
    write(order, at: 128)
    let found = violation { () throws(RingViolation) in
      _ = try ByteRingInterface(reading: pages.region(), maximumOrder: maximum)
    }
    #expect(found == .byteRingOrderOutOfRange(order: order, maximum: maximum))
    #expect("\(found!)".contains("at most \(maximum) was offered"))
  }
}
