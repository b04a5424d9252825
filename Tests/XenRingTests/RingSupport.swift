import XenPlatform
import XenRing

/// Where index tests start: at zero, shortly before the indices wrap, and with the very next slot past the wrap.
let startIndices: [UInt32] = [0, .max - 20, .max]

/// A request or response that is nothing but its size, so that one type stands for every protocol's entries.
struct Message<let byteCount: Int>: BitwiseCopyable, Equatable {
  var bytes: InlineArray<byteCount, UInt8>

  /// Each byte depends on `number` and on its place: a message that is torn or shifted equals no other.
  init(_ number: UInt32) {
    bytes = InlineArray { UInt8(truncatingIfNeeded: number &* 31 &+ (number >> 8) &+ UInt32($0) &* 7) }
  }

  init(using generator: inout some RandomNumberGenerator) {
    bytes = InlineArray(repeating: 0)
    for place in bytes.indices { bytes[place] = UInt8.random(in: .min ... .max, using: &generator) }
  }

  var byteArray: [UInt8] { bytes.indices.map { bytes[$0] } }

  static func == (left: Self, right: Self) -> Bool {
    left.bytes.indices.allSatisfy { left.bytes[$0] == right.bytes[$0] }
  }
}

/// The ring's pages as a peer reaches them that knows no rules: any byte, at any time.
struct RawPages {
  /// The offsets of the shared words, written out here once more so that the tests do not lean on the code they check.
  enum Word: Int {
    case requestProducer = 0
    case requestEvent = 4
    case responseProducer = 8
    case responseEvent = 12
  }

  let pages: PrivatePages

  var byteCount: Int { pages.pageCount * xenPageSize }

  subscript(bytes range: Range<Int>) -> [UInt8] {
    get { pages.region().bytes.slice(from: range.lowerBound, count: range.count).copied() }
    nonmutating set {
      precondition(newValue.count == range.count, "as many bytes as the range has")
      pages.region().bytes.slice(from: range.lowerBound, count: range.count).copy(from: newValue.span)
    }
  }

  var all: [UInt8] {
    get { self[bytes: 0..<byteCount] }
    nonmutating set { self[bytes: 0..<byteCount] = newValue }
  }

  subscript(word: Word) -> UInt32 {
    get { self[bytes: word.rawValue..<word.rawValue + 4].reversed().reduce(0) { $0 << 8 | UInt32($1) } }
    nonmutating set {
      self[bytes: word.rawValue..<word.rawValue + 4] = (0..<4).map { UInt8(truncatingIfNeeded: newValue >> (8 * $0)) }
    }
  }
}

/// Both ends of one ring, over pages that a test can also reach around them.
struct RingPair<Request: BitwiseCopyable, Response: BitwiseCopyable>: ~Copyable {
  let raw: RawPages
  var front: FrontRing<Request, Response>
  var back: BackRing<Request, Response>

  init(pageCount: Int = 1, at start: UInt32 = 0) {
    let pages = PrivatePages(pageCount: pageCount)
    raw = RawPages(pages: pages)
    front = FrontRing(initialising: pages.region(), at: RingIndex(rawValue: start))
    back = BackRing(attaching: pages.region(), at: RingIndex(rawValue: start))
  }

  /// The bytes of the slot at `index`, by arithmetic that is the test's own.
  func slotRange(_ index: UInt32) -> Range<Int> {
    let stride = max(MemoryLayout<Request>.size, MemoryLayout<Response>.size)
    let from = 64 + Int(index) % front.entryCount * stride
    return from..<from + stride
  }

  /// What the back end says of the front end's producer when it looks in one of its ways; nil when it accepts it.
  mutating func backEndsComplaint(
    in look: (inout BackRing<Request, Response>) throws(RingViolation) -> Void = { ring throws(RingViolation) in
      _ = try ring.available()
    }
  ) -> RingViolation? {
    do { try look(&back) } catch { return error }
    return nil
  }

  /// What the front end says of the back end's producer; otherwise as ``backEndsComplaint(in:)``.
  mutating func frontEndsComplaint(
    in look: (inout FrontRing<Request, Response>) throws(RingViolation) -> Void = { ring throws(RingViolation) in
      _ = try ring.available()
    }
  ) -> RingViolation? {
    do { try look(&front) } catch { return error }
    return nil
  }
}

/// A disk's ring: 32 slots of 112 bytes on one page.
typealias DiskPair = RingPair<Message<112>, Message<16>>

extension RingPair where Request == Message<112>, Response == Message<16> {
  /// Puts and pushes requests with these numbers.
  mutating func request(_ numbers: Range<UInt32>) {
    for number in numbers { front.put(Message(number)) }
    front.push()
  }

  /// Takes `count` requests, leaving them in flight.
  mutating func take(_ count: UInt32) throws {
    _ = try back.available()
    for _ in 0..<count { _ = back.next() }
  }

  /// Puts and pushes responses with these numbers.
  mutating func respond(_ numbers: Range<UInt32>) {
    for number in numbers { back.put(Message(number)) }
    back.push()
  }
}
