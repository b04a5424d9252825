/// The flow that a frame belongs to: what is the same in all of its packets, and so what keeps them in order.
///
/// Less is asked of a frame here than of one whose checksum is to be filled in: fragments, and packets of any protocol, have
/// addresses.
public struct NetFlow: Sendable {
  /// Two IPv6 addresses and the ports.
  static let maxWordCount = 9
  /// How many IPv6 extension headers, and so how much of a hostile frame, are looked at.
  private static let maxExtensionCount = 15

  public let network: NetHeaders.Network
  /// What its ports belong to; nil when it has none: a fragment, another protocol, a frame that ends before them.
  public let transport: NetHeaders.Transport?
  /// As they follow one another in what is hashed, first byte highest: the source address, the destination address, both
  /// ports.
  let words: InlineArray<9, UInt32>

  var addressWordCount: Int { network == .ipv4 ? 2 : 8 }
  var wordCount: Int { transport == nil ? addressWordCount : addressWordCount &+ 1 }

  /// Finds the flow of a frame, whatever its bytes are (IEEE 802.1Q, RFC 791, RFC 8200).
  ///
  /// - Parameter frame: from its Ethernet header on, in memory that nobody else can change.
  /// - Returns: nil for a frame that is not IP, or ends before its addresses.
  public init?(of frame: Span<UInt8>) {
    var offset = 12
    var etherType = frame.word16(at: offset)
    for _ in 0..<2 where etherType == 0x8100 || etherType == 0x88A8 {
      offset &+= NetIf.vlanTagByteCount
      etherType = frame.word16(at: offset)
    }
    offset &+= 2
    switch etherType {
    case 0x0800: self.init(ipv4: frame, at: offset)
    case 0x86DD: self.init(ipv6: frame, at: offset)
    default: return nil
    }
  }

  private init?(ipv4 frame: Span<UInt8>, at start: Int) {
    guard let first = frame.word32(at: start), let source = frame.word32(at: start &+ 12),
      let destination = frame.word32(at: start &+ 16), let place = frame.word16(at: start &+ 6),
      let third = frame.word32(at: start &+ 8)
    else { return nil }
    let headerWordCount = Int(truncatingIfNeeded: first &>> 24 & 0xF)
    guard first &>> 28 == 4, headerWordCount >= 5 else { return nil }
    network = .ipv4
    var ports: UInt32?
    // No fragment, not even the first one: the others have no ports to go with it by.
    if place & 0x3FFF == 0, let transport = NetHeaders.Transport(rawValue: UInt8(truncatingIfNeeded: third &>> 16)) {
      ports = frame.word32(at: start &+ headerWordCount &* 4)
      self.transport = ports == nil ? nil : transport
    } else {
      transport = nil
    }
    words = [source, destination, ports ?? 0, 0, 0, 0, 0, 0, 0]
  }

  private init?(ipv6 frame: Span<UInt8>, at start: Int) {
    guard let first = frame.word32(at: start), let second = frame.word32(at: start &+ 4), first &>> 28 == 6 else {
      return nil
    }
    network = .ipv6
    var words = InlineArray<9, UInt32>(repeating: 0)
    for index in 0..<8 {
      guard let word = frame.word32(at: start &+ 8 &+ index &* 4) else { return nil }
      words[index] = word
    }
    let next = UInt8(truncatingIfNeeded: second &>> 8)
    if let (transport, offset) = Self.transport(in: frame, at: start &+ 40, number: next),
      let ports = frame.word32(at: offset)
    {
      words[8] = ports
      self.transport = transport
    } else {
      transport = nil
    }
    self.words = words
  }

  /// What comes behind IPv6's extension headers, and where.
  ///
  /// - Returns: nil for a fragment, whole though it may be, and for all but TCP and UDP.
  private static func transport(
    in frame: Span<UInt8>, at start: Int, number: UInt8
  ) -> (NetHeaders.Transport, offset: Int)? {
    var (number, offset) = (number, start)
    for _ in 0...maxExtensionCount {
      switch number {
      // Hop-by-hop options, routing, and destination options.
      case 0, 43, 60:
        guard let header = frame.word16(at: offset) else { return nil }
        number = UInt8(truncatingIfNeeded: header &>> 8)
        offset &+= 8 &* (Int(header & 0xFF) &+ 1)
      default: return NetHeaders.Transport(rawValue: number).map { ($0, offset) }
      }
    }
    return nil
  }

  /// Which of a card's queues the flow's packets take when nobody has said otherwise: always the same one.
  ///
  /// - Parameter queueCount: at least one, and less than 2^32.
  public func queue(of queueCount: Int) -> Int {
    precondition(queueCount > 0, "a queue at least")
    // Nobody else needs to come to the same, so it is less work than ``Toeplitz``: multiplied by 2^64 over the golden ratio, each
    // word reaches the upper half, which the next one is then mixed with.
    var hash: UInt64 = 0
    for index in 0..<wordCount {
      hash = (hash &>> 32 ^ hash ^ UInt64(words[index])) &* 0x9E37_79B9_7F4A_7C15
    }
    // The part of all hashes that lies below this one, in queues.
    return Int(truncatingIfNeeded: ((hash &>> 32) &* UInt64(queueCount)) &>> 32)
  }

  /// The same for a frame as it is; 0 where it has no flow.
  public static func queue(for frame: Span<UInt8>, of queueCount: Int) -> Int {
    queueCount > 1 ? NetFlow(of: frame)?.queue(of: queueCount) ?? 0 : 0
  }
}

extension NetFlow: Hashable {
  public static func == (left: NetFlow, right: NetFlow) -> Bool {
    guard left.network == right.network, left.transport == right.transport else { return false }
    for index in left.words.indices where left.words[index] != right.words[index] { return false }
    return true
  }

  public func hash(into hasher: inout Hasher) { for index in words.indices { hasher.combine(words[index]) } }
}

extension Span<UInt8> {
  /// Two bytes, the first one highest; nil when they are not all there.
  fileprivate func word16(at offset: Int) -> UInt16? {
    guard offset <= count &- 2 else { return nil }
    // Safe: both bytes are there, and any bits are an integer.
    return UInt16(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt16.self))
  }

  /// Four bytes, the first one highest; nil when they are not all there.
  fileprivate func word32(at offset: Int) -> UInt32? {
    guard offset <= count &- 4 else { return nil }
    // Safe: as above.
    return UInt32(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt32.self))
  }
}
