/// What is fuzzed. Each takes any bytes, and traps where a gate has let something through, or an answer is wrong; its
/// corpus lies in the folder of its name.
public enum FuzzTarget: String, CaseIterable, Sendable {
  /// Both ends of a ring, whose page the other end writes as it likes.
  case ring
  /// The same of byte-stream rings.
  case bytes
  /// A slot of a block ring, in each layout, and an indirect request's pages.
  case blkRequest = "blk-request"
  /// Slots of the network rings, until they are packets, and extra infos.
  case netSlots = "net-slots"
  /// A frame's own bytes.
  case netHeaders = "net-headers"
  /// Requests of a card's control ring.
  case netControl = "net-control"
  /// The other end's xenstore keys, of each of the four drivers.
  case storeKeys = "store-keys"
  /// A disk with both its ends, and an order of events.
  case blkPair = "blk-pair"
  /// A card with both its ends, and an order of events.
  case netPair = "net-pair"

  public func run(_ bytes: [UInt8]) {
    var input = FuzzInput(bytes)
    switch self {
    case .ring: fuzzRing(&input)
    case .bytes: fuzzByteRing(&input)
    case .blkRequest: fuzzBlkRequest(&input)
    case .netSlots: fuzzNetSlots(&input)
    case .netHeaders: fuzzNetHeaders(&input)
    case .netControl: fuzzNetControl(&input)
    case .storeKeys: fuzzStoreKeys(&input)
    case .blkPair: fuzzBlkPair(&input)
    case .netPair: fuzzNetPair(&input)
    }
  }
}

/// Bytes, taken one number after the other; zeros when there are no more.
struct FuzzInput {
  private let bytes: [UInt8]
  private var place = 0

  init(_ bytes: [UInt8]) { self.bytes = bytes }

  var isEmpty: Bool { place >= bytes.count }

  mutating func next<Number: FixedWidthInteger>(_ type: Number.Type = Number.self) -> Number {
    var number: UInt64 = 0
    for shift in 0..<MemoryLayout<Number>.size where place < bytes.count {
      number |= UInt64(bytes[place]) << (8 * UInt64(shift))
      place += 1
    }
    return Number(truncatingIfNeeded: number)
  }

  /// From zero to below `bound`, which is from 1 to 65536.
  mutating func below(_ bound: Int) -> Int {
    bound <= 256 ? Int(next(UInt8.self)) % bound : Int(next(UInt16.self)) % bound
  }

  mutating func flag() -> Bool { next(UInt8.self) & 1 == 1 }

  mutating func pick<Value>(_ values: [Value]) -> Value { values[below(values.count)] }

  mutating func take(_ count: Int) -> [UInt8] {
    let taken = Array(bytes[min(place, bytes.count)..<min(place + count, bytes.count)])
    place += count
    return taken + [UInt8](repeating: 0, count: count - taken.count)
  }

  /// All that is left.
  mutating func rest() -> [UInt8] { take(max(bytes.count - place, 0)) }

  /// A word for a ring's index: near `index` mostly, since a producer that is anywhere is nearly always refused for its
  /// distance.
  mutating func index(near index: UInt32) -> UInt32 {
    let kind = next(UInt8.self)
    return kind < 16 ? next(UInt32.self) : index &+ UInt32(truncatingIfNeeded: Int32(kind) - 64)
  }
}

/// Traps with a sentence in every build.
func require(_ condition: Bool, _ sentence: @autoclosure () -> String, line: Int = #line, file: StaticString = #fileID)
{
  guard condition else { fatalError("\(file):\(line): \(sentence())") }
}
