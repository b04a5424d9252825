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

  var addressWordCount: Int { network.addressWordCount }
  var wordCount: Int { transport == nil ? addressWordCount : addressWordCount &+ 1 }

  /// Finds the flow of a frame, whatever its bytes are (IEEE 802.1Q, RFC 791, RFC 8200).
  ///
  /// - Parameter frame: from its Ethernet header on, in memory that nobody else can change.
  /// - Returns: nil for a frame that is not IP, or ends before its addresses.
  public init?(of frame: Span<UInt8>) {
    guard let place = Place(in: frame) else { return nil }
    (network, transport) = (place.network, place.transport)
    var words = InlineArray<9, UInt32>(repeating: 0)
    let addressWordCount = place.network.addressWordCount
    for index in 0..<addressWordCount { words[index] = frame.word32(at: place.addresses &+ index &* 4) ?? 0 }
    if place.transport != nil { words[addressWordCount] = frame.word32(at: place.ports) ?? 0 }
    self.words = words
  }

  /// Where in a frame lies what tells its flow. All of it is there.
  private struct Place {
    let network: NetHeaders.Network
    /// Nil when the flow has no ports.
    let transport: NetHeaders.Transport?
    let addresses: Int
    let ports: Int

    @inline(__always) init?(in frame: Span<UInt8>) {
      var start = 14
      var etherType = frame.word16(at: 12)
      for _ in 0..<2 where etherType == 0x8100 || etherType == 0x88A8 {
        etherType = frame.word16(at: start &+ 2)
        start &+= NetIf.vlanTagByteCount
      }
      switch etherType {
      case 0x0800:
        guard start &+ 20 <= frame.count, let first = frame.word16(at: start), first &>> 12 == 4,
          let fragment = frame.word16(at: start &+ 6), let number = frame.word16(at: start &+ 8)
        else { return nil }
        let headerByteCount = Int(first &>> 8 & 0xF) &* 4
        guard headerByteCount >= 20 else { return nil }
        (network, addresses, ports) = (.ipv4, start &+ 12, start &+ headerByteCount)
        // No fragment, not even the first one: the others have no ports to go with it by.
        transport =
          fragment & 0x3FFF == 0 && ports &+ 4 <= frame.count
          ? NetHeaders.Transport(rawValue: UInt8(truncatingIfNeeded: number)) : nil
      case 0x86DD:
        guard start &+ 40 <= frame.count, let first = frame.word16(at: start), first &>> 12 == 6,
          let number = frame.word16(at: start &+ 6)
        else { return nil }
        (network, addresses) = (.ipv6, start &+ 8)
        let next = UInt8(truncatingIfNeeded: number &>> 8)
        if let (transport, offset) = NetFlow.transport(in: frame, at: start &+ 40, number: next),
          offset &+ 4 <= frame.count
        {
          (self.transport, ports) = (transport, offset)
        } else {
          (transport, ports) = (nil, 0)
        }
      default: return nil
      }
    }
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

  /// Which of a card's queues the packets of a frame's flow take when nobody has said otherwise: always the same one.
  ///
  /// - Parameters:
  ///   - frame: from its Ethernet header on, in memory that nobody else can change.
  ///   - queueCount: at least one, and less than 2^32.
  /// - Returns: 0 for a frame that has no flow.
  public static func queue(for frame: Span<UInt8>, of queueCount: Int) -> Int {
    precondition(queueCount > 0, "a queue at least")
    // Nobody else needs to come to the same, so it is less work than ``Toeplitz``, and the words stay in registers.
    guard queueCount > 1, let hash = plainHash(of: frame) ?? anyHash(of: frame) else { return 0 }
    // The part of all hashes that lies below this one, in queues.
    return Int(truncatingIfNeeded: ((hash &>> 32) &* UInt64(queueCount)) &>> 32)
  }

  /// As most frames are: IPv4 without tags or options, and ports; the same as ``anyHash(of:)`` finds.
  ///
  /// - Returns: nil for all others.
  @inline(__always) private static func plainHash(of frame: Span<UInt8>) -> UInt64? {
    guard frame.count >= 38, let etherType = frame.word16(at: 12), etherType == 0x0800,
      let first = frame.word32(at: 14), first &>> 24 == 0x45,
      // No fragment, and TCP or UDP.
      let second = frame.word64(at: 18), second & 0x3FFF_0000_0000 == 0,
      NetHeaders.Transport(rawValue: UInt8(truncatingIfNeeded: second &>> 16)) != nil,
      let addresses = frame.word64(at: 26), let ports = frame.word32(at: 34)
    else { return nil }
    return hash(addresses, ports)
  }

  private static func anyHash(of frame: Span<UInt8>) -> UInt64? {
    guard let place = Place(in: frame) else { return nil }
    var addresses = frame.word64(at: place.addresses) ?? 0
    if place.network == .ipv6 {
      for index in 1..<4 {
        let (high, low) = product(addresses, frame.word64(at: place.addresses &+ index &* 8) ?? 0)
        addresses = high ^ low
      }
    }
    return hash(addresses, place.transport == nil ? 0 : frame.word32(at: place.ports) ?? 0)
  }

  /// Twice: a word that goes up by one takes the first product up by one step, and flows whose ports follow one another in
  /// steps, as those of one program do, would share a queue.
  @inline(__always) private static func hash(_ addresses: UInt64, _ ports: UInt32) -> UInt64 {
    let first = product(addresses, UInt64(ports))
    let second = product(first.high, first.low)
    return second.high ^ second.low
  }

  /// Each number is met with another one first, so that neither is small: 2^64 over the golden ratio, and the digits of pi.
  @inline(__always) private static func product(_ left: UInt64, _ right: UInt64) -> (high: UInt64, low: UInt64) {
    let (high, low) = (left ^ 0x9E37_79B9_7F4A_7C15).multipliedFullWidth(by: right ^ 0x243F_6A88_85A3_08D3)
    return (high, low)
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

  /// Eight bytes, the first one highest; nil when they are not all there.
  fileprivate func word64(at offset: Int) -> UInt64? {
    guard offset <= count &- 8 else { return nil }
    // Safe: as above.
    return UInt64(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt64.self))
  }
}
