/// Where the headers of a frame with one whole TCP or UDP packet lie: the one gate for what a frame's own bytes say.
///
/// All offsets are in bytes from the frame's start and, however hostile the bytes, within the frame.
public struct NetHeaders: BitwiseCopyable, Hashable, Sendable {
  public enum Network: BitwiseCopyable, Hashable, Sendable {
    case ipv4, ipv6

    /// Of the source address and the destination address, in words of four bytes.
    var addressWordCount: Int { self == .ipv4 ? 2 : 8 }
  }

  /// The numbers of the protocols (RFC 9293, RFC 768).
  public enum Transport: UInt8, BitwiseCopyable, Sendable {
    case tcp = 6
    case udp = 17
  }

  public let network: Network
  public let transport: Transport
  // Narrow, so that all of it is handed over in registers: put together in memory it would have to wait there until everything
  // that was written before it, to shared pages too, has left the processor.
  private let networkStart: UInt32
  private let transportStart: UInt32
  private let payloadStart: UInt32
  private let payloadEnd: UInt32

  /// Where the IP header begins: behind the Ethernet header and up to two VLAN tags.
  public var networkOffset: Int { Int(networkStart) }
  /// Where the TCP or UDP header begins: behind IPv4's options or IPv6's extension headers.
  public var transportOffset: Int { Int(transportStart) }
  /// Where the payload begins: behind TCP's options.
  public var payloadOffset: Int { Int(payloadStart) }
  /// Where the payload ends; what follows in the frame is padding.
  public var end: Int { Int(payloadEnd) }

  /// Finds the headers (IEEE 802.1Q, RFC 791, RFC 8200, RFC 9293, RFC 768).
  ///
  /// - Parameter frame: from its Ethernet header on, in memory that nobody else can change.
  /// - Throws: when it is something else than one whole TCP or UDP packet, or its lengths contradict each other.
  public init(parsing frame: Span<UInt8>) throws(NetHeaderFault) {
    precondition(frame.count <= Int(UInt32.max), "a frame, and no more")
    if let plain = Self(plain: frame) {
      self = plain
      return
    }
    var offset = 12
    var etherType = try frame.word(at: offset, of: .ethernet)
    for _ in 0..<2 where etherType == 0x8100 || etherType == 0x88A8 {
      offset += NetIf.vlanTagByteCount
      etherType = try frame.word(at: offset, of: .vlanTag)
    }
    let networkOffset = offset + 2
    // None of these exceeds the frame's length.
    networkStart = UInt32(truncatingIfNeeded: networkOffset)
    let found: (number: UInt8, offset: Int, end: Int)
    switch etherType {
    case 0x0800: (network, found) = (.ipv4, try Self.parseIPv4(frame, at: networkOffset))
    case 0x86DD: (network, found) = (.ipv6, try Self.parseIPv6(frame, at: networkOffset))
    default: throw .notIP(etherType: etherType)
    }
    guard let transport = Transport(rawValue: found.number) else { throw .transport(number: found.number) }
    self.transport = transport
    let transportOffset = found.offset
    transportStart = UInt32(truncatingIfNeeded: transportOffset)
    let (payloadOffset, end): (Int, Int)
    // Only the packet itself counts, without the frame's padding.
    let packet = frame.extracting(..<found.end)
    switch transport {
    case .tcp:
      // Its last fixed field ends at 20.
      _ = try packet.word(at: transportOffset + 18, of: .tcp)
      let words = try packet.byte(at: transportOffset + 12, of: .tcp) >> 4
      guard words >= 5, transportOffset + Int(words) * 4 <= found.end else { throw .tcpHeaderLength(words: words) }
      payloadOffset = transportOffset + Int(words) * 4
      end = found.end
    case .udp:
      _ = try packet.word(at: transportOffset + 6, of: .udp)
      let byteCount = try packet.word(at: transportOffset + 4, of: .udp)
      payloadOffset = transportOffset + 8
      end = transportOffset + Int(byteCount)
      guard end >= payloadOffset, end <= found.end else { throw .udpLength(byteCount: byteCount) }
    }
    payloadStart = UInt32(truncatingIfNeeded: payloadOffset)
    payloadEnd = UInt32(truncatingIfNeeded: end)
  }

  /// As most frames are: TCP over IPv4 without tags or options; the same as the long way finds.
  ///
  /// - Returns: nil for all others, and for all that is wrong.
  @inline(__always) private init?(plain frame: Span<UInt8>) {
    guard let (payload, end) = Self.plainPlaces(in: frame) else { return nil }
    (network, transport, networkStart, transportStart) = (.ipv4, .tcp, 14, 34)
    (payloadStart, payloadEnd) = (payload, end)
  }

  /// Where in a frame as most are the payload begins and ends.
  ///
  /// - Returns: nil for all others, and for all that is wrong.
  @inline(__always) private static func plainPlaces(in frame: Span<UInt8>) -> (payload: UInt32, end: UInt32)? {
    guard frame.count >= 54 else { return nil }
    // Safe: the 54 bytes are there, as just seen.
    let (etherType, first, second, third, words) = unsafe (
      frame.unchecked32(at: 10), frame.unchecked32(at: 14), frame.unchecked32(at: 18), frame.unchecked32(at: 22),
      frame[unchecked: 46] &>> 4
    )
    let (end, payload) = (14 &+ (first & 0xFFFF), 34 &+ UInt32(words) &* 4)
    guard etherType & 0xFFFF == 0x0800, first &>> 24 == 0x45, second & 0x3FFF == 0, third &>> 16 & 0xFF == 6,
      words >= 5, payload <= end, end <= frame.count
    else { return nil }
    return (payload, end)
  }

  /// Whether a frame is as most are: TCP over IPv4 without tags or options, and nothing is wrong with its headers.
  public static func arePlain(in frame: Span<UInt8>) -> Bool { plainPlaces(in: frame) != nil }

  /// The same as ``blankChecksum(of:)`` of a frame as most are, without the headers' being taken apart first. Its field is at
  /// ``plainChecksumOffset``.
  ///
  /// - Returns: nil for all others, and for all that is wrong.
  public static func plainBlankChecksum(of frame: Span<UInt8>) -> UInt16? {
    guard let (_, end) = plainPlaces(in: frame) else { return nil }
    var checksum = InternetChecksum()
    // Safe: so many bytes are there, as just seen.
    unsafe checksum.add(frame.unchecked32(at: 26))
    unsafe checksum.add(frame.unchecked32(at: 30))
    checksum.add(UInt16(Transport.tcp.rawValue))
    // Its end is 14 bytes more than sixteen bits at most.
    checksum.add(UInt16(truncatingIfNeeded: end &- 34))
    return ~checksum.value
  }

  /// In bytes from the frame's start: behind 14 of Ethernet's header and 20 of IPv4's, 16 of TCP's.
  public static var plainChecksumOffset: Int { 50 }

  @inline(__always) private static func parseIPv4(
    _ frame: Span<UInt8>, at start: Int
  ) throws(NetHeaderFault) -> (number: UInt8, offset: Int, end: Int) {
    // The last fixed field ends at 20.
    guard start >= 0, start <= frame.count &- 20 else { throw .truncated(.ipv4) }
    // Safe: all three lie in the fixed part, which is there, as just seen.
    let (first, second, third) = unsafe (
      frame.unchecked32(at: start), frame.unchecked32(at: start &+ 4), frame.unchecked32(at: start &+ 8)
    )
    let version = UInt8(truncatingIfNeeded: first &>> 28)
    guard version == 4 else { throw .version(version) }
    let words = UInt8(truncatingIfNeeded: first &>> 24) & 0x0F
    let byteCount = UInt16(truncatingIfNeeded: first)
    // Sixteen bits more than what lies within the frame.
    let (offset, end) = (start &+ Int(words) &* 4, start &+ Int(byteCount))
    guard words >= 5, offset <= end else { throw .ipv4HeaderLength(words: words) }
    guard end <= frame.count else { throw .ipLength(byteCount: byteCount) }
    // The flag that more fragments follow, and the fragment's place.
    guard second & 0x3FFF == 0 else { throw .fragment }
    return (UInt8(truncatingIfNeeded: third &>> 16), offset, end)
  }

  private static func parseIPv6(
    _ frame: Span<UInt8>, at start: Int
  ) throws(NetHeaderFault) -> (number: UInt8, offset: Int, end: Int) {
    // The last field ends at 40.
    _ = try frame.word(at: start + 38, of: .ipv6)
    let version = try frame.byte(at: start, of: .ipv6) >> 4
    guard version == 6 else { throw .version(version) }
    var offset = start + 40
    let byteCount = try frame.word(at: start + 4, of: .ipv6)
    let end = offset + Int(byteCount)
    guard end <= frame.count else { throw .ipLength(byteCount: byteCount) }
    let packet = frame.extracting(..<end)
    var number = try frame.byte(at: start + 6, of: .ipv6)
    // Each header has eight bytes at least, so that this ends.
    while let kind = IPv6Extension(rawValue: number) {
      _ = try packet.word(at: offset + 6, of: .ipv6Extension)
      number = try packet.byte(at: offset, of: .ipv6Extension)
      var units = Int(try packet.byte(at: offset + 1, of: .ipv6Extension))
      switch kind {
      case .hopByHop, .destinationOptions: break
      case .routing:
        // A packet on its way has another address in its header than the one that its checksum covers.
        let segmentsLeft = try packet.byte(at: offset + 3, of: .ipv6Extension)
        guard segmentsLeft == 0 else { throw .segmentsLeft(segmentsLeft) }
      case .fragment:
        guard try packet.word(at: offset + 2, of: .ipv6Extension) & 0xFFF9 == 0 else { throw .fragment }
        units = 0
      }
      offset += 8 * (units + 1)
    }
    return (number, offset, end)
  }

  /// What may stand between IPv6's header and a packet that is neither encrypted nor authenticated (RFC 8200, section 4).
  private enum IPv6Extension: UInt8 {
    case hopByHop = 0
    case routing = 43
    case fragment = 44
    case destinationOptions = 60
  }

  /// Where the two bytes of the TCP or UDP checksum are.
  public var checksumOffset: Int { transportOffset + (transport == .tcp ? 16 : 6) }

  /// Writes the TCP or UDP checksum of the frame that these were found in, whatever stood there.
  public func fillChecksum(in frame: inout MutableSpan<UInt8>) {
    frame.write(checksum(of: frame.span), at: checksumOffset)
  }

  /// The same for the headers of a segment of its packet, whose payload lies elsewhere.
  func fillChecksum(in frame: inout MutableSpan<UInt8>, payload: Span<UInt8>) {
    var checksum = pseudoHeader(of: frame.span, byteCount: payloadOffset - transportOffset + payload.count)
    checksum.add(frame.span.extracting(transportOffset..<checksumOffset))
    // An even number: TCP's headers are whole words.
    checksum.add(frame.span.extracting(checksumOffset + 2..<payloadOffset))
    checksum.add(payload)
    frame.write(checksum.value, at: checksumOffset)
  }

  /// The TCP or UDP checksum of the frame that these were found in, whatever stands in its field (RFC 9293, section 3.1;
  /// RFC 768; RFC 8200, section 8.1).
  public func checksum(of frame: Span<UInt8>) -> UInt16 {
    var checksum = pseudoHeader(of: frame, byteCount: end - transportOffset)
    checksum.add(frame.extracting(transportOffset..<checksumOffset))
    checksum.add(frame.extracting(checksumOffset + 2..<end))
    // Zero in UDP's place means that there is none.
    return transport == .udp && checksum.value == 0 ? 0xFFFF : checksum.value
  }

  /// What the field holds when the rest is left to whoever sends the frame over a wire: the sum of the pseudo-header. Linux
  /// counts on it.
  public func blankChecksum(of frame: Span<UInt8>) -> UInt16 {
    ~pseudoHeader(of: frame, byteCount: end - transportOffset).value
  }

  /// Both addresses, the protocol, and the length, which has 16 bits as all of the packet.
  @inline(__always) private func pseudoHeader(of frame: Span<UInt8>, byteCount: Int) -> InternetChecksum {
    var checksum = InternetChecksum()
    if network == .ipv4 {
      // Two words: the loop for more would take longer than they do.
      let addresses = Int(networkStart &+ 12)
      precondition(addresses <= frame.count &- 8, "the frame that these were found in")
      // Safe: eight bytes that are there, as just seen.
      unsafe checksum.add(frame.unchecked32(at: addresses))
      unsafe checksum.add(frame.unchecked32(at: addresses &+ 4))
    } else {
      checksum.add(frame.extracting(networkOffset + 8..<networkOffset + 40))
    }
    checksum.add(UInt16(transport.rawValue))
    checksum.add(UInt16(byteCount))
    return checksum
  }
}

/// Why a frame is not one whole TCP or UDP packet.
@nonexhaustive public enum NetHeaderFault: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Header: String, Sendable {
    case ethernet = "Ethernet header"
    case vlanTag = "VLAN tag"
    case ipv4 = "IPv4 header"
    case ipv6 = "IPv6 header"
    case ipv6Extension = "IPv6 extension header"
    case tcp = "TCP header"
    case udp = "UDP header"
  }

  /// The frame, or the IP packet in it, ends in this header.
  case truncated(Header)
  case notIP(etherType: UInt16)
  case version(UInt8)
  case ipv4HeaderLength(words: UInt8)
  case ipLength(byteCount: UInt16)
  case fragment
  case segmentsLeft(UInt8)
  case transport(number: UInt8)
  case tcpHeaderLength(words: UInt8)
  case udpLength(byteCount: UInt16)

  public var description: String {
    switch self {
    case .truncated(let header): "it ends in its \(header.rawValue)"
    case .notIP(let etherType): "its EtherType 0x\(String(etherType, radix: 16)) is not that of IPv4 or IPv6"
    case .version(let version): "its IP header has version \(version), and its EtherType another"
    case .ipv4HeaderLength(let words): "its IPv4 header says that it has \(words) words"
    case .ipLength(let byteCount): "its IP header promises \(byteCount) bytes, more than follow"
    case .fragment: "it is a fragment of an IP packet"
    case .segmentsLeft(let count): "its routing header has \(count) segments left"
    case .transport(let number): "it holds protocol \(number), which is neither TCP nor UDP"
    case .tcpHeaderLength(let words): "its TCP header says that it has \(words) words"
    case .udpLength(let byteCount): "its UDP header says that it has \(byteCount) bytes"
    }
  }
}

// Inlined: a frame's headers are a dozen of them.
extension Span<UInt8> {
  @inline(__always)
  fileprivate func byte(at offset: Int, of header: NetHeaderFault.Header) throws(NetHeaderFault) -> UInt8 {
    guard offset >= 0, offset < count else { throw .truncated(header) }
    // Safe: it lies within, as just seen.
    return unsafe self[unchecked: offset]
  }

  /// Two bytes, the first one highest.
  @inline(__always)
  fileprivate func word(at offset: Int, of header: NetHeaderFault.Header) throws(NetHeaderFault) -> UInt16 {
    guard offset >= 0, offset < count &- 1 else { throw .truncated(header) }
    // Safe: both bytes lie within, as just seen, and any bits are an integer.
    return UInt16(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt16.self))
  }

  /// Four bytes, the first one highest, which must be there.
  @inline(__always)
  @unsafe fileprivate func unchecked32(at offset: Int) -> UInt32 {
    UInt32(bigEndian: unsafe bytes.unsafeLoadUnaligned(fromUncheckedByteOffset: offset, as: UInt32.self))
  }
}

extension MutableSpan<UInt8> {
  /// Two bytes, the first one highest.
  func word(at offset: Int) -> UInt16 { UInt16(self[offset]) << 8 | UInt16(self[offset + 1]) }

  mutating func write(_ word: UInt16, at offset: Int) {
    self[offset] = UInt8(truncatingIfNeeded: word >> 8)
    self[offset + 1] = UInt8(truncatingIfNeeded: word)
  }

  /// Copies all of `source` to where `offset` says; our own numbers.
  mutating func copy(_ source: Span<UInt8>, to offset: Int) {
    precondition(offset >= 0 && offset <= count && source.count <= count - offset, "source too long")
    // Safe: it lies within, as just seen, and memory that is lent for change is lent to nobody else.
    unsafe withUnsafeMutableBytes { to in
      unsafe source.withUnsafeBytes { from in
        if let start = from.baseAddress, let to = to.baseAddress {
          unsafe (to + offset).copyMemory(from: start, byteCount: from.count)
        }
      }
    }
  }
}
