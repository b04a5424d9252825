import NetIf

/// What tells flows from one another.
enum NetFrontFlow {
  /// The same for all packets of a flow: of a pair of addresses and, with TCP and UDP, of ports. Zero for what is not IP.
  static func hash(of frame: Span<UInt8>) -> UInt32 {
    var offset = 12
    guard var etherType = word(frame, offset) else { return 0 }
    for _ in 0..<2 where etherType == 0x8100 || etherType == 0x88A8 {
      offset += NetIf.vlanTagByteCount
      guard let inner = word(frame, offset) else { return 0 }
      etherType = inner
    }
    let start = offset + 2
    let addresses: Range<Int>
    var (number, transport) = (UInt8(0), start)
    switch etherType {
    case 0x0800:
      guard frame.count >= start + 20, frame[start] >> 4 == 4 else { return 0 }
      addresses = start + 12..<start + 20
      transport += Int(frame[start] & 0x0F) * 4
      // Of a fragmented packet only the first part has ports: none count.
      if word(frame, start + 6)! & 0x3FFF == 0 { number = frame[start + 9] }
    case 0x86DD:
      guard frame.count >= start + 40, frame[start] >> 4 == 6 else { return 0 }
      addresses = start + 8..<start + 40
      transport += 40
      number = frame[start + 6]
    default: return 0
    }
    var hash: UInt32 = 0x811C_9DC5
    for place in stride(from: addresses.lowerBound, to: addresses.upperBound, by: 2) {
      mix(word(frame, place)!, into: &hash)
    }
    if number == NetHeaders.Transport.tcp.rawValue || number == NetHeaders.Transport.udp.rawValue,
      let source = word(frame, transport), let destination = word(frame, transport + 2)
    {
      mix(source, into: &hash)
      mix(destination, into: &hash)
    }
    // The low bits choose the queue: every bit has a say in them.
    hash ^= hash &>> 16
    hash &*= 0x85EB_CA6B
    return hash ^ hash &>> 13
  }

  private static func mix(_ word: UInt16, into hash: inout UInt32) { hash = (hash ^ UInt32(word)) &* 0x0100_0193 }

  /// Two bytes; nil when the frame ends before.
  private static func word(_ frame: Span<UInt8>, _ offset: Int) -> UInt16? {
    guard offset + 2 <= frame.count else { return nil }
    return UInt16(frame[offset]) << 8 | UInt16(frame[offset + 1])
  }
}
