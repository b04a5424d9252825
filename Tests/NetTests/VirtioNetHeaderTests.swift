import TestSupport
import Testing

@testable import NetBack

/// What is left to do to a packet, in netif.h's words and in the kernel's.
struct VirtioNetHeaderTests {
  // linux/virtio_net.h.
  private static let needsChecksum: UInt8 = 1
  private static let dataValid: UInt8 = 2
  private static let gsoTCPv4: UInt8 = 1
  private static let gsoUDP: UInt8 = 3
  private static let gsoTCPv6: UInt8 = 4
  private static let gsoUDPL4: UInt8 = 5
  private static let gsoECN: UInt8 = 0x80

  private let tcpv4 = NetPacketMetadata.Segmentation(.tcpv4, payloadByteCount: 1448)
  private let tcpv6 = NetPacketMetadata.Segmentation(.tcpv6, payloadByteCount: 1428)

  /// The header of an unfinished packet, the packet as it is then, and how much of it is sent.
  private func header(
    _ bytes: [UInt8], _ segmentation: NetPacketMetadata.Segmentation? = nil
  ) -> (header: VirtioNetHeader, bytes: [UInt8], byteCount: Int)? {
    var (bytes, byteCount) = (bytes, 0)
    var span = bytes.mutableSpan
    guard let header = VirtioNetHeader(unfinished: &span, segmentation, byteCount: &byteCount) else { return nil }
    return (header, bytes, byteCount)
  }

  /// What a packet with this header comes with, and the packet as it is then.
  private func given(_ bytes: [UInt8], _ header: VirtioNetHeader) -> (metadata: NetPacketMetadata?, bytes: [UInt8]) {
    var bytes = bytes
    var span = bytes.mutableSpan
    let metadata = header.metadata(of: &span)
    return (metadata, bytes)
  }

  /// The frame as a sender leaves it blank: with the pseudo-header's sum where the checksum belongs.
  private func blank(_ packet: TestPacket) throws -> [UInt8] {
    var bytes = packet.bytes
    let headers = try NetHeaders(parsing: bytes.span)
    let sum = headers.blankChecksum(of: bytes.span)
    bytes.replaceSubrange(headers.checksumOffset..<headers.checksumOffset + 2, with: big(sum))
    return bytes
  }

  @Test func whatIsFinishedSaysNothingButWhetherItIsRight() {
    let (present, validated) = (VirtioNetHeader(finished: .present), VirtioNetHeader(finished: .validated))
    #expect(present.fields.flags == 0 && validated.fields.flags == Self.dataValid)
    for fields in [present.fields, validated.fields] {
      #expect(fields.gso_type == 0 && fields.gso_size == 0 && fields.csum_start == 0)
    }
  }

  @Test(arguments: [NetHeaders.Network.ipv4, .ipv6], [NetHeaders.Transport.tcp, .udp])
  func blankChecksumSaysWhereItBelongs(network: NetHeaders.Network, transport: NetHeaders.Transport) throws {
    var packet = TestPacket(network: network, transport: transport, tags: [0x8100], payload: pattern(99, seed: 1))
    packet.padding = [9, 9, 9]
    packet.checksumField = 0xABCD
    let (header, bytes, byteCount) = try #require(self.header(packet.bytes))
    let fields = header.fields
    #expect(fields.flags == Self.needsChecksum && fields.gso_type == 0 && fields.gso_size == 0)
    #expect(Int(header.fields.csum_start) == packet.transportOffset)
    #expect(fields.csum_offset == (transport == .tcp ? 16 : 6) && Int(fields.hdr_len) == packet.payloadOffset)
    // The kernel sums up to the end of what it is given, with the pseudo-header's sum that it finds.
    #expect(byteCount == packet.bytes.count - 3)
    #expect(try bytes == blank(packet))
  }

  @Test func segmentsHaveTheKernelsKindSizeAndECN() throws {
    for (network, segmentation, type) in [
      (NetHeaders.Network.ipv4, tcpv4, Self.gsoTCPv4), (.ipv6, tcpv6, Self.gsoTCPv6),
    ] {
      let packet = TestPacket(network: network, payload: pattern(5000, seed: 1))
      var bytes = packet.bytes
      var header = try #require(self.header(bytes, segmentation)).header
      #expect(header.fields.gso_type == type && header.fields.gso_size == segmentation.payloadByteCount)
      #expect(header.fields.flags == Self.needsChecksum)
      bytes[packet.transportOffset + 13] |= 0x80
      header = try #require(self.header(bytes, segmentation)).header
      #expect(header.fields.gso_type == type | Self.gsoECN)
      // And the way back.
      #expect(given(bytes, header).metadata == NetPacketMetadata(checksum: .blank, segmentation: segmentation))
    }
  }

  @Test func whatCannotBeFinishedSoIsRefused() {
    let udp = TestPacket(transport: .udp, payload: [1, 2, 3]).bytes
    var tcp = TestPacket(payload: [1, 2, 3]).bytes
    let neither = frame(1)
    #expect(header(neither) == nil && header(udp, tcpv4) == nil && header(tcp, tcpv6) == nil)
    #expect(header(tcp, NetPacketMetadata.Segmentation(.tcpv4, payloadByteCount: 0)) == nil)
    #expect(header(tcp, tcpv4) != nil)
    tcp.removeLast()
    #expect(header(tcp, tcpv4) == nil)
  }

  @Test func whatTheKernelGivesIsSaidInNetifsWords() throws {
    let packet = TestPacket(payload: pattern(5000, seed: 1))
    var bytes = try blank(packet)
    var header = VirtioNetHeader()
    #expect(given(bytes, header).metadata == NetPacketMetadata())
    header.fields.flags = Self.dataValid
    #expect(given(bytes, header).metadata == NetPacketMetadata(checksum: .validated))
    header.fields.flags = Self.needsChecksum
    (header.fields.csum_start, header.fields.csum_offset) = (34, 16)
    #expect(given(bytes, header).metadata == NetPacketMetadata(checksum: .blank))
    (header.fields.gso_type, header.fields.gso_size) = (Self.gsoTCPv4, 1448)
    #expect(given(bytes, header).metadata == NetPacketMetadata(checksum: .blank, segmentation: tcpv4))
    #expect(given(bytes, header).bytes == bytes)
    // Put together by the machine itself, with some checksum or other.
    header.fields.flags = Self.dataValid
    bytes.replaceSubrange(50..<52, with: [1, 2])
    #expect(given(bytes, header).metadata == NetPacketMetadata(checksum: .blank, segmentation: tcpv4))
    #expect(try given(bytes, header).bytes == blank(packet))
  }

  /// The outer header of a tunnel is whole, and the checksum of the packet in it is blank: netif.h has no word for that.
  @Test func aBlankChecksumElsewhereIsFilledIn() throws {
    let inner = try blank(TestPacket(payload: pattern(100, seed: 2)))
    let outer = TestPacket(transport: .udp, payload: inner)
    var header = VirtioNetHeader()
    header.fields.flags = Self.needsChecksum
    (header.fields.csum_start, header.fields.csum_offset) = (UInt16(outer.payloadOffset + 34), 16)
    let (metadata, bytes) = given(outer.bytes, header)
    #expect(metadata == NetPacketMetadata())
    #expect(Array(bytes[outer.payloadOffset...]) == TestPacket(payload: pattern(100, seed: 2)).whole)
    #expect(Array(bytes[..<outer.payloadOffset]) == Array(outer.bytes[..<outer.payloadOffset]))
  }

  /// A protocol of which nothing is known here but where its checksum lies.
  @Test func aBlankChecksumOfAnotherProtocolIsFilledIn() {
    var frame = pattern(60, seed: 4)
    (frame[12], frame[13], frame[24], frame[25]) = (0x88, 0xB5, 0, 0)
    var header = VirtioNetHeader()
    header.fields.flags = Self.needsChecksum
    (header.fields.csum_start, header.fields.csum_offset) = (20, 4)
    let (metadata, bytes) = given(frame, header)
    #expect(metadata == NetPacketMetadata())
    var sum = InternetChecksum()
    sum.add(bytes.span.extracting(20...))
    #expect(sum.value == 0 && bytes[24..<26] != [0, 0])
    (frame[24], frame[25]) = (bytes[24], bytes[25])
    #expect(bytes == frame)
  }

  @Test func whatWasNotAskedForOrContradictsItselfIsOfNoUse() throws {
    let tcp = try blank(TestPacket(payload: pattern(3000, seed: 1)))
    for type in [Self.gsoUDP, Self.gsoUDPL4, Self.gsoTCPv6, 7] {
      var header = VirtioNetHeader()
      (header.fields.flags, header.fields.gso_type, header.fields.gso_size) = (1, type, 1448)
      #expect(given(tcp, header).metadata == nil, "\(type)")
    }
    var header = VirtioNetHeader()
    (header.fields.flags, header.fields.gso_type) = (1, Self.gsoTCPv4)
    #expect(given(tcp, header).metadata == nil, "no size")
    for (start, offset) in [(UInt16.max, UInt16.max), (3000, 100), (UInt16(tcp.count - 17), 16)] {
      (header.fields.gso_type, header.fields.csum_start, header.fields.csum_offset) = (0, start, offset)
      #expect(given(tcp, header).metadata == nil, "\(start) \(offset)")
    }
  }
}
