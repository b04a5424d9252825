import CLinux
import NetIf

/// What stands before a packet on its way through a TAP device: what is left to do to it, in the kernel's words
/// (linux/virtio_net.h; Virtual I/O Device 1.2, section 5.1.6).
struct VirtioNetHeader {
  /// `VIRTIO_NET_HDR_F_*`.
  private enum Flag {
    static let needsChecksum: UInt8 = 1
    static let dataValid: UInt8 = 2
  }

  /// `VIRTIO_NET_HDR_GSO_*`.
  private enum Segments {
    static let none: UInt8 = 0
    static let tcpv4: UInt8 = 1
    static let tcpv6: UInt8 = 4
    /// A bit besides: the word that the sender has slowed down (CWR) goes with the first segment only.
    static let ecn: UInt8 = 0x80
  }

  var fields = linux_virtio_net_header()

  init() {}

  /// The header of a packet that goes to the kernel with nothing left to do.
  init(finished checksum: NetPacketMetadata.Checksum) { if checksum == .validated { fields.flags = Flag.dataValid } }

  /// The header of a packet that goes to the kernel unfinished. What the packet's own bytes have in the checksum's place is
  /// not trusted: what the kernel counts on is written there.
  ///
  /// - Parameters:
  ///   - packet: ours alone.
  ///   - byteCount: how much of it is to be sent: padding behind a packet would be summed up, too.
  /// - Returns: nil when it is no packet that can be finished so.
  init?(
    unfinished packet: inout MutableSpan<UInt8>, _ segmentation: NetPacketMetadata.Segmentation?, byteCount: inout Int
  ) {
    guard let headers = try? NetHeaders(parsing: packet.span),
      let headerByteCount = UInt16(exactly: headers.payloadOffset)
    else { return nil }
    byteCount = headers.end
    packet.write(headers.blankChecksum(of: packet.span), at: headers.checksumOffset)
    fields.flags = Flag.needsChecksum
    // Both are within the headers.
    fields.csum_start = UInt16(headers.transportOffset)
    fields.csum_offset = UInt16(headers.checksumOffset - headers.transportOffset)
    fields.hdr_len = headerByteCount
    guard let segmentation else { return }
    guard segmentation.payloadByteCount > 0, headers.isCut(as: segmentation.kind) else { return nil }
    fields.gso_size = segmentation.payloadByteCount
    fields.gso_type = segmentation.kind == .tcpv4 ? Segments.tcpv4 : Segments.tcpv6
    // CWR, in byte 13 of TCP's header (RFC 3168, section 6.1).
    if packet[headers.transportOffset + 13] & 0x80 != 0 { fields.gso_type |= Segments.ecn }
  }

  /// What the kernel says of a packet that it gives.
  ///
  /// A checksum that it has left blank where netif.h has no word for it, of a packet in a tunnel for example, is filled in.
  ///
  /// - Returns: nil for what it was not asked for, or what contradicts itself: such a packet is of no use to anybody.
  func metadata(of packet: inout MutableSpan<UInt8>) -> NetPacketMetadata? {
    let isBlank = fields.flags & Flag.needsChecksum != 0
    let kind: NetExtraInfo.SegmentKind
    switch fields.gso_type & ~Segments.ecn {
    case Segments.tcpv4: kind = .tcpv4
    case Segments.tcpv6: kind = .tcpv6
    case Segments.none:
      guard isBlank else {
        return NetPacketMetadata(checksum: fields.flags & Flag.dataValid != 0 ? .validated : .present)
      }
      if hasItsOwnPlace(in: packet.span) { return NetPacketMetadata(checksum: .blank) }
      return fillChecksum(in: &packet) ? NetPacketMetadata() : nil
    default: return nil
    }
    guard fields.gso_size > 0, let headers = try? NetHeaders(parsing: packet.span), headers.isCut(as: kind) else {
      return nil
    }
    // A large packet that the machine has put together itself may have the checksum of one of its parts.
    if !isBlank { packet.write(headers.blankChecksum(of: packet.span), at: headers.checksumOffset) }
    return NetPacketMetadata(
      checksum: .blank, segmentation: NetPacketMetadata.Segmentation(kind, payloadByteCount: fields.gso_size))
  }

  /// Whether what is blank is the checksum of the packet's TCP or UDP header.
  private func hasItsOwnPlace(in packet: Span<UInt8>) -> Bool {
    guard let headers = try? NetHeaders(parsing: packet) else { return false }
    return headers.transportOffset == Int(fields.csum_start)
      && headers.checksumOffset == Int(fields.csum_start) + Int(fields.csum_offset)
  }

  /// Sums up from where the header says, which includes what the field has, and writes it where the header says.
  private func fillChecksum(in packet: inout MutableSpan<UInt8>) -> Bool {
    let start = Int(fields.csum_start)
    let field = start + Int(fields.csum_offset)
    guard field + 2 <= packet.count else { return false }
    var checksum = InternetChecksum()
    checksum.add(packet.span.extracting(start...))
    // Zero would mean, in UDP's place, that there is none; both are the same sum.
    packet.write(checksum.value == 0 ? 0xFFFF : checksum.value, at: field)
    return true
  }
}

extension NetHeaders {
  fileprivate func isCut(as kind: NetExtraInfo.SegmentKind) -> Bool {
    transport == .tcp && network == (kind == .tcpv4 ? .ipv4 : .ipv6)
  }
}

extension MutableSpan<UInt8> {
  /// Two bytes, the first one highest.
  fileprivate mutating func write(_ word: UInt16, at offset: Int) {
    self[offset] = UInt8(truncatingIfNeeded: word >> 8)
    self[offset + 1] = UInt8(truncatingIfNeeded: word)
  }
}
