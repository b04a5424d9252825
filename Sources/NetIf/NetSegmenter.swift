/// Cuts a TCP packet that came with a segment size into whole frames, as a card that knows how does it.
///
/// It holds where things lie and no bytes: they are read from the packet for each frame, and written to memory of the
/// caller's. Each frame has the packet's headers, but for its own lengths, its place in the stream, IPv4's identification
/// counted on, and checksums that are right; the end of a stream (FIN), the wish to be handed on (PSH) and the word that the
/// sender has slowed down (CWR) stand in one of them only (RFC 9293, section 3.1; RFC 3168, section 6.1.2). What the packet
/// has for its checksums is not looked at.
public struct NetSegmenter: Sendable {
  /// The longest headers that are repeated in each frame, in bytes: all of Ethernet's, IPv4's and TCP's, and of IPv6's
  /// extensions those that occur. So a packet of 64 KiB does not become gigabytes.
  public static let maxHeaderByteCount = 256

  private let headers: NetHeaders
  private let payloadByteCount: Int
  /// How many frames it becomes: at least one, and no more than it has bytes of payload.
  public let frameCount: Int

  /// - Parameter packet: from its Ethernet header on, in memory that nobody else can change.
  /// - Throws: when it cannot be cut so, whatever its bytes are.
  public init(
    _ packet: Span<UInt8>, _ segmentation: NetPacketMetadata.Segmentation
  ) throws(NetSegmentationFault) {
    do throws(NetHeaderFault) { headers = try NetHeaders(parsing: packet) } catch { throw .headers(error) }
    payloadByteCount = Int(segmentation.payloadByteCount)
    guard payloadByteCount > 0 else { throw .emptySegments }
    guard headers.transport == .tcp, headers.network == (segmentation.kind == .tcpv4 ? .ipv4 : .ipv6) else {
      throw .otherPacket(segmentation.kind)
    }
    guard headers.payloadOffset <= Self.maxHeaderByteCount else {
      throw .headersTooLong(byteCount: headers.payloadOffset)
    }
    // SYN has a number of its own in the stream, and what follows RST has none.
    let flags = packet[headers.transportOffset + 13]
    guard flags & (TCPFlag.syn | TCPFlag.rst) == 0 else { throw .flags(flags) }
    frameCount = max(1, (headers.end - headers.payloadOffset + payloadByteCount - 1) / payloadByteCount)
  }

  /// How long the headers of each frame are, in bytes; at most ``maxHeaderByteCount``.
  public var headerByteCount: Int { headers.payloadOffset }

  /// Where in the packet the payload of a frame lies.
  ///
  /// - Precondition: `index` is below ``frameCount``.
  public func payload(of index: Int) -> Range<Int> {
    precondition(index >= 0 && index < frameCount, "frame out of range")
    let start = headers.payloadOffset + index * payloadByteCount
    return start..<min(start + payloadByteCount, headers.end)
  }

  /// How long a frame is, in bytes: never longer than the packet.
  public func byteCount(of index: Int) -> Int { headerByteCount + payload(of: index).count }

  /// Writes a frame to the start of `frame`.
  ///
  /// - Parameters:
  ///   - packet: as it was when this was made.
  ///   - frame: at least ``byteCount(of:)`` bytes.
  public func write(_ index: Int, of packet: Span<UInt8>, to frame: inout MutableSpan<UInt8>) {
    let payload = payload(of: index)
    precondition(frame.count >= headerByteCount + payload.count, "no room for the frame")
    writeHeaders(of: index, from: packet, to: &frame)
    frame.copy(packet.extracting(payload), to: headerByteCount)
  }

  /// Writes a frame's headers alone to the start of `frame`, its payload's checksum among them: for memory that somebody
  /// else can read or write already, into which both are then copied.
  ///
  /// - Parameters:
  ///   - packet: as it was when this was made.
  ///   - frame: at least ``headerByteCount`` bytes, ours alone.
  public func writeHeaders(of index: Int, from packet: Span<UInt8>, to frame: inout MutableSpan<UInt8>) {
    precondition(frame.count >= headerByteCount, "no room for the headers")
    frame.copy(packet.extracting(..<headers.payloadOffset), to: 0)
    let payload = payload(of: index)
    switch headers.network {
    case .ipv4: finishIPv4(index, payloadByteCount: payload.count, in: &frame)
    case .ipv6:
      // Its length is that of the whole packet at most, which has 16 bits.
      let byteCount = headers.payloadOffset - headers.networkOffset - 40 + payload.count
      frame.write(UInt16(byteCount), at: headers.networkOffset + 4)
    }
    finishTCP(index, in: &frame)
    headers.fillChecksum(in: &frame, payload: packet.extracting(payload))
  }

  private func finishIPv4(_ index: Int, payloadByteCount: Int, in frame: inout MutableSpan<UInt8>) {
    let start = headers.networkOffset
    // No longer than that of the whole packet, which has 16 bits.
    frame.write(UInt16(headers.payloadOffset - start + payloadByteCount), at: start + 2)
    // As many numbers follow each other as there are frames; they are 16 bits wide and go round.
    frame.write(frame.word(at: start + 4) &+ UInt16(truncatingIfNeeded: index), at: start + 4)
    frame.write(0, at: start + 10)
    var checksum = InternetChecksum()
    checksum.add(frame.span.extracting(start..<headers.transportOffset))
    frame.write(checksum.value, at: start + 10)
  }

  private func finishTCP(_ index: Int, in frame: inout MutableSpan<UInt8>) {
    let start = headers.transportOffset
    // Less than the payload, and so than 16 bits. Sequence numbers go round.
    let distance = UInt32(index * payloadByteCount)
    let sequence = UInt32(frame.word(at: start + 4)) << 16 | UInt32(frame.word(at: start + 6))
    frame.write(UInt16(truncatingIfNeeded: (sequence &+ distance) >> 16), at: start + 4)
    frame.write(UInt16(truncatingIfNeeded: sequence &+ distance), at: start + 6)
    var flags = frame[start + 13]
    if index > 0 { flags &= ~TCPFlag.cwr }
    if index < frameCount - 1 { flags &= ~(TCPFlag.fin | TCPFlag.psh) }
    // It counts from the frame's own sequence number; what is urgent may lie before this frame.
    let urgent = UInt32(frame.word(at: start + 18))
    if flags & TCPFlag.urg != 0, distance > 0 {
      if urgent <= distance { flags &= ~TCPFlag.urg }
      frame.write(urgent > distance ? UInt16(urgent - distance) : 0, at: start + 18)
    }
    frame[start + 13] = flags
  }

  /// In byte 13 of TCP's header (RFC 9293, section 3.1).
  private enum TCPFlag {
    static let fin: UInt8 = 0x01
    static let syn: UInt8 = 0x02
    static let rst: UInt8 = 0x04
    static let psh: UInt8 = 0x08
    static let urg: UInt8 = 0x20
    static let cwr: UInt8 = 0x80
  }
}

/// Why a packet cannot be cut into segments.
@nonexhaustive public enum NetSegmentationFault: Error, Hashable, Sendable, CustomStringConvertible {
  case headers(NetHeaderFault)
  case emptySegments
  /// It is no packet of the kind that its segmentation names.
  case otherPacket(NetExtraInfo.SegmentKind)
  case headersTooLong(byteCount: Int)
  /// TCP's, which begin or break off a connection.
  case flags(UInt8)

  public var description: String {
    switch self {
    case .headers(let fault): "it cannot be cut into segments: \(fault)"
    case .emptySegments: "it is to be cut into segments with nothing in them"
    case .otherPacket(let kind): "it is to be cut as \(kind), which it is not"
    case .headersTooLong(let byteCount):
      "its headers have \(byteCount) bytes, more than the \(NetSegmenter.maxHeaderByteCount) that each segment may repeat"
    case .flags(let flags):
      "it is to be cut into segments, and begins or breaks off a connection (TCP flags 0x\(String(flags, radix: 16)))"
    }
  }
}
