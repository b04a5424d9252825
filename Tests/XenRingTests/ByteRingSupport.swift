import TestSupport
import XenPlatform
import XenRing

/// Both ends of a pair of byte-stream rings, over pages that a test can also reach around them.
struct BytePair: ~Copyable {
  /// The offsets of the interface page's words, written out here once more.
  enum Word: Int {
    case inConsumer = 0
    case inProducer = 4
    case inError = 8
    case outConsumer = 64
    case outProducer = 68
    case outError = 72
    case order = 128
  }

  let interface = PrivatePages(pageCount: 1)
  let data: PrivatePages
  var front: ByteRing
  var back: ByteRing

  init(order: Int = 0, at start: UInt32 = 0) {
    let index = RingIndex(rawValue: start)
    data = PrivatePages(pageCount: 1 << order)
    front = ByteRing(
      initialising: interface.region(), data: data.region(), references: Self.references(order: order), at: index)
    back = ByteRing(attaching: interface.region(), data: data.region(), outIndex: index, inIndex: index)
  }

  static func references(order: Int) -> [GrantReference] {
    (0..<1 << order).map { GrantReference(rawValue: 0xA000_0000 + UInt32($0) * 3) }
  }

  subscript(word: Word) -> UInt32 {
    get {
      interface.bytes.slice(from: word.rawValue, count: 4).copied().reversed().reduce(0) { $0 << 8 | UInt32($1) }
    }
    nonmutating set { interface.bytes.scribble(newValue, at: word.rawValue) }
  }

  /// What an end says of the other one's indices when it looks; nil when it accepts them.
  mutating func frontsComplaint(_ writing: Bool = false) -> RingViolation? {
    do { _ = writing ? try front.writableCount() : try front.readableCount() } catch { return error }
    return nil
  }

  mutating func backsComplaint(_ writing: Bool = false) -> RingViolation? {
    do { _ = writing ? try back.writableCount() : try back.readableCount() } catch { return error }
    return nil
  }
}

extension ByteRing {
  /// Writes as much as there is room for; says how much that was.
  mutating func write(bytes: [UInt8]) throws -> Int {
    _ = try writableCount()
    return write(bytes.span)
  }

  /// Reads at most `count` bytes of what was found when it last looked.
  mutating func read(upTo count: Int) -> [UInt8] {
    var bytes = [UInt8](repeating: 0xEE, count: count)
    var span = bytes.mutableSpan
    let done = read(into: &span)
    return Array(bytes.prefix(done))
  }

  /// Looks, and reads all there is.
  mutating func readAll() throws -> [UInt8] { read(upTo: try readableCount()) }
}
