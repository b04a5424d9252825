/// The other end broke the ring's protocol. The ring must not be used any more; nothing else is affected.
@nonexhaustive public enum RingViolation: Error, Hashable, Sendable, CustomStringConvertible {
  /// The front end says it produced more requests than there are free slots, or moved its producer backwards
  /// (io/ring.h, `RING_REQUEST_PROD_OVERFLOW`).
  case requestProducerOutOfRange(produced: RingIndex, consumed: RingIndex, room: UInt32)
  /// The back end says it produced more responses than there are unanswered requests, or moved its producer backwards
  /// (io/ring.h, `RING_RESPONSE_PROD_OVERFLOW`).
  case responseProducerOutOfRange(produced: RingIndex, consumed: RingIndex, unanswered: UInt32)
  /// A live ring's response producer is not where a back end that had consumed that many requests can have left it.
  case takenUpOutOfRange(produced: RingIndex, consumed: RingIndex, entryCount: UInt32)
  /// The other end says that it wrote more bytes than were free, or moved its producer backwards.
  case byteProducerOutOfRange(produced: RingIndex, consumed: RingIndex, room: UInt32)
  /// The other end says that it read bytes that were not there, or moved its consumer backwards.
  case byteConsumerOutOfRange(consumed: RingIndex, pushed: RingIndex, unread: UInt32)
  /// The front end's byte-stream rings are larger than was offered (`ring_order`).
  case byteRingOrderOutOfRange(order: UInt32, maximum: Int)

  public var description: String {
    switch self {
    case .requestProducerOutOfRange(let produced, let consumed, let room):
      "the front end moved its request producer to \(produced), but requests are consumed up to \(consumed) and "
        + "\(room) slots are free"
    case .responseProducerOutOfRange(let produced, let consumed, let unanswered):
      "the back end moved its response producer to \(produced), but responses are consumed up to \(consumed) and "
        + "\(unanswered) requests are unanswered"
    case .takenUpOutOfRange(let produced, let consumed, let entryCount):
      "the ring of \(entryCount) slots has responses up to \(produced), which cannot be when requests were consumed up to "
        + "\(consumed)"
    case .byteProducerOutOfRange(let produced, let consumed, let room):
      "the other end moved its producer to \(produced), but bytes are read up to \(consumed) and \(room) are free"
    case .byteConsumerOutOfRange(let consumed, let pushed, let unread):
      "the other end moved its consumer to \(consumed), but bytes are written up to \(pushed) and it had not read "
        + "\(unread) of them"
    case .byteRingOrderOutOfRange(let order, let maximum):
      "the front end's rings have order \(order), and at most \(maximum) was offered"
    }
  }
}
