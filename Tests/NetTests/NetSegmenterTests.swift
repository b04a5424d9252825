import NetIf
import TestSupport
import Testing

/// Packets that are cut into frames: against another way to do it, and against what a receiver makes of the frames.
struct NetSegmenterTests {
  private static let urg: UInt8 = 0x20
  private static let ack: UInt8 = 0x10

  /// A TCP packet with everything that cutting changes.
  private struct Large {
    var packet: TestPacket
    var sequence: UInt32 = 0xFFFF_F000
    var identification: UInt16 = 0xFFFE
    /// CWR, ECE, ACK, PSH, FIN.
    var flags: UInt8 = 0xD9
    var urgent: UInt16 = 0

    var bytes: [UInt8] { withFields(packet.bytes, sequence, identification, flags, urgent) }

    /// The fields that ``TestPacket`` does not have, in a frame of this packet's form.
    func withFields(
      _ frame: [UInt8], _ sequence: UInt32, _ identification: UInt16, _ flags: UInt8, _ urgent: UInt16
    ) -> [UInt8] {
      var frame = frame
      let start = packet.transportOffset
      frame.replaceSubrange(
        start + 4..<start + 8, with: big(UInt16(sequence >> 16)) + big(UInt16(sequence & 0xFFFF)))
      frame[start + 13] = flags
      frame.replaceSubrange(start + 18..<start + 20, with: big(urgent))
      if packet.network == .ipv4 {
        frame.replaceSubrange(packet.networkOffset + 4..<packet.networkOffset + 6, with: big(identification))
      }
      return frame
    }

    var kind: NetExtraInfo.SegmentKind { packet.network == .ipv4 ? .tcpv4 : .tcpv6 }

    /// Each segment made anew as a packet of its own, and then its checksums, one word after the other.
    func naive(_ payloadByteCount: Int) -> [[UInt8]] {
      var starts = Array(stride(from: 0, to: packet.payload.count, by: payloadByteCount))
      if starts.isEmpty { starts = [0] }
      return starts.enumerated().map { number, start in
        var part = packet
        part.payload = Array(packet.payload[start..<min(start + payloadByteCount, packet.payload.count)])
        part.padding = []
        part.checksumField = 0
        var flags = flags
        if number > 0 { flags &= 0x7F }
        if number < starts.count - 1 { flags &= 0xF6 }
        if flags & urg != 0, start > 0, Int(urgent) <= start { flags &= ~urg }
        let left = self.flags & urg != 0 ? UInt16(max(0, Int(urgent) - start)) : urgent
        var frame = withFields(
          part.bytes, sequence &+ UInt32(start), identification &+ UInt16(number), flags, left)
        if part.network == .ipv4 {
          let header = Array(frame[part.networkOffset..<part.transportOffset])
          frame.replaceSubrange(part.networkOffset + 10..<part.networkOffset + 12, with: big(naiveChecksum(header)))
        }
        let addresses =
          part.network == .ipv4
          ? frame[part.networkOffset + 12..<part.networkOffset + 20]
          : frame[part.networkOffset + 8..<part.networkOffset + 40]
        let segment = Array(frame[part.transportOffset...])
        let checksum = naiveChecksum(Array(addresses) + [0, 6] + big(UInt16(segment.count)) + segment)
        frame.replaceSubrange(part.transportOffset + 16..<part.transportOffset + 18, with: big(checksum))
        return frame
      }
    }
  }

  private func cut(_ bytes: [UInt8], _ kind: NetExtraInfo.SegmentKind, _ payloadByteCount: Int) throws -> [[UInt8]] {
    let segmenter = try NetSegmenter(
      bytes.span, NetPacketMetadata.Segmentation(kind, payloadByteCount: UInt16(payloadByteCount)))
    return (0..<segmenter.frameCount).map { index in
      // Longer than needed, and full of what must not stay.
      var frame = [UInt8](repeating: 0xEE, count: segmenter.byteCount(of: index) + 3)
      var span = frame.mutableSpan
      segmenter.write(index, of: bytes.span, to: &span)
      #expect(frame.suffix(3) == [0xEE, 0xEE, 0xEE])
      return Array(frame.dropLast(3))
    }
  }

  private func fault(
    _ bytes: [UInt8], _ kind: NetExtraInfo.SegmentKind = .tcpv4, _ payloadByteCount: UInt16 = 1448
  ) -> NetSegmentationFault? {
    do throws(NetSegmentationFault) {
      _ = try NetSegmenter(bytes.span, NetPacketMetadata.Segmentation(kind, payloadByteCount: payloadByteCount))
      return nil
    } catch { return error }
  }

  private static func large(_ seed: Seed) -> (Large, payloadByteCount: Int) {
    var random = SeededGenerator(seed)
    var packet = TestPacket(network: seed.modulo(2) == 0 ? .ipv4 : .ipv6)
    packet.tags = [[], [0x8100], [0x88A8, 0x8100]][Int.random(in: 0..<3, using: &random)]
    if Bool.random(using: &random) { packet.transportOptions = [1, 1] + pattern(10, seed: 5) }
    if Bool.random(using: &random) {
      switch packet.network {
      case .ipv4: packet.options = pattern(12, seed: 6)
      case .ipv6: (packet.firstExtension, packet.options) = (60, [6, 1] + pattern(14, seed: 7))
      }
    }
    let longest = 65_535 - 40 - packet.options.count - 20 - packet.transportOptions.count
    let count = seed.modulo(5) == 0 ? longest : Int.random(in: 0...9000, using: &random)
    packet.payload = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
    if Bool.random(using: &random) { packet.padding = [1, 2, 3] }
    packet.checksumField = UInt16.random(in: 0...UInt16.max, using: &random)
    packet.source = (0..<4).map { _ in UInt8.random(in: 0...255, using: &random) }
    var large = Large(packet: packet, sequence: UInt32.random(in: 0...UInt32.max, using: &random))
    large.identification = UInt16.random(in: 0...UInt16.max, using: &random)
    large.flags = UInt8.random(in: 0...UInt8.max, using: &random) & ~0x06
    large.urgent = UInt16.random(in: 0...UInt16.max, using: &random) >> UInt16.random(in: 0...8, using: &random)
    return (large, [1448, 1460, 536, 8948, 65_535, 97][Int.random(in: 0..<6, using: &random)])
  }

  @Test(arguments: seeds(1...60, of: NetSegmenterTests.self))
  func framesAreThoseOfPacketsMadeOneByOne(seed: Seed) throws {
    let (large, payloadByteCount) = Self.large(seed)
    #expect(try cut(large.bytes, large.kind, payloadByteCount) == large.naive(payloadByteCount))
  }

  /// What a receiver looks at: each frame passes the gate with right checksums, and together they are the payload.
  @Test(arguments: seeds(1...40, of: NetSegmenterTests.self))
  func framesAreWholeAndTogetherThePayload(seed: Seed) throws {
    let (large, payloadByteCount) = Self.large(seed)
    var payload: [UInt8] = []
    for frame in try cut(large.bytes, large.kind, payloadByteCount) {
      let headers = try NetHeaders(parsing: frame.span)
      #expect(headers.transport == .tcp && headers.end == frame.count)
      var again = frame
      var span = again.mutableSpan
      headers.fillChecksum(in: &span)
      #expect(again == frame, "its checksum was right")
      if headers.network == .ipv4 {
        var checksum = InternetChecksum()
        checksum.add(frame.span.extracting(headers.networkOffset..<headers.transportOffset))
        #expect(checksum.value == 0)
      }
      let start = headers.transportOffset
      let sequence = frame[start + 4..<start + 8].reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
      #expect(sequence == large.sequence &+ UInt32(payload.count))
      payload += frame[headers.payloadOffset..<headers.end]
    }
    #expect(payload == large.packet.payload)
  }

  @Test func whatEndsOrBeginsAStreamStandsInOneFrameOnly() throws {
    let large = Large(packet: TestPacket(payload: pattern(3000, seed: 1)))
    let start = large.packet.transportOffset
    let frames = try cut(large.bytes, .tcpv4, 1000)
    #expect(frames.map { $0[start + 13] } == [0xD0, 0x50, 0x59])
    // The sequence goes round at 2^32, and the identification at 2^16.
    #expect(frames.map { Array($0[start + 4..<start + 6]) } == [[0xFF, 0xFF], [0xFF, 0xFF], [0xFF, 0xFF]])
    #expect(frames.map { Array($0[18..<20]) } == [[0xFF, 0xFE], [0xFF, 0xFF], [0, 0]])
    let wrapping = Large(packet: TestPacket(payload: pattern(3000, seed: 1)), sequence: 0xFFFF_FC18)
    #expect(try cut(wrapping.bytes, .tcpv4, 1000).map { Array($0[start + 4..<start + 8]) }[1] == [0, 0, 0, 0])
  }

  @Test func whatIsUrgentIsSaidFromEachFrameOn() throws {
    let large = Large(
      packet: TestPacket(payload: pattern(3000, seed: 1)), flags: Self.ack | Self.urg, urgent: 1500)
    let start = large.packet.transportOffset
    let frames = try cut(large.bytes, .tcpv4, 1000)
    #expect(frames.map { $0[start + 13] & Self.urg != 0 } == [true, true, false])
    #expect(frames.map { Array($0[start + 18..<start + 20]) } == [big(1500), big(500), [0, 0]])
  }

  @Test(arguments: [(0, 1), (1, 1), (1447, 1), (1448, 1), (1449, 2), (2896, 2), (2897, 3)])
  func countIsThatOfFullFramesAndTheRest(payloadByteCount: Int, frameCount: Int) throws {
    let large = Large(packet: TestPacket(payload: pattern(payloadByteCount, seed: 1)))
    let frames = try cut(large.bytes, .tcpv4, 1448)
    #expect(frames.count == frameCount && frames == large.naive(1448))
  }

  /// For memory that a peer sees: nothing but headers is written.
  @Test func headersAloneAreThoseOfTheFrame() throws {
    let large = Large(packet: TestPacket(network: .ipv6, payload: pattern(2001, seed: 3)))
    let bytes = large.bytes
    let segmenter = try NetSegmenter(
      bytes.span, NetPacketMetadata.Segmentation(.tcpv6, payloadByteCount: 667))
    for (index, frame) in large.naive(667).enumerated() {
      var headers = [UInt8](repeating: 0xEE, count: segmenter.headerByteCount + 1)
      var span = headers.mutableSpan
      segmenter.writeHeaders(of: index, from: bytes.span, to: &span)
      #expect(headers == frame[..<segmenter.headerByteCount] + [0xEE])
      #expect(Array(bytes[segmenter.payload(of: index)]) == Array(frame[segmenter.headerByteCount...]))
    }
  }

  @Test func whatCannotBeCutIsRefused() {
    let packet = TestPacket(payload: pattern(3000, seed: 1))
    #expect(fault(packet.bytes) == nil)
    #expect(fault(packet.bytes, .tcpv4, 0) == .emptySegments)
    #expect(fault(packet.bytes, .tcpv6) == .otherPacket(.tcpv6))
    #expect(fault(TestPacket(network: .ipv6).bytes, .tcpv4) == .otherPacket(.tcpv4))
    #expect(fault(TestPacket(transport: .udp).bytes) == .otherPacket(.tcpv4))
    #expect(fault(Array(packet.bytes.dropLast())) == .headers(.ipLength(byteCount: 3040)))
    #expect(fault([]) == .headers(.truncated(.ethernet)))
    for flag: UInt8 in [0x02, 0x04] {
      #expect(fault(Large(packet: packet, flags: Self.ack | flag).bytes) == .flags(Self.ack | flag))
    }
    // 24 units of eight bytes are 192, and with 74 more than may be repeated.
    var long = TestPacket(network: .ipv6, options: [6, 23] + [UInt8](repeating: 0, count: 190), firstExtension: 60)
    #expect(fault(long.bytes, .tcpv6) == .headersTooLong(byteCount: 266))
    long.options = [6, 21] + [UInt8](repeating: 0, count: 174)
    #expect(fault(long.bytes, .tcpv6) == nil)
  }

  /// Whatever the bytes are, nothing traps, and what passes becomes frames that pass the gate.
  @Test(arguments: seeds(1...100, of: NetSegmenterTests.self))
  func randomBytesAreRefusedOrCutIntoWholeFrames(seed: Seed) throws {
    var random = SeededGenerator(seed)
    var passed = 0
    // The first one stays as it is.
    for changeCount in 0..<10 {
      let (large, _) = Self.large(Seed(UInt64.random(in: 1...1000, using: &random) * 5 + 1))
      var bytes = large.bytes
      for _ in 0..<min(changeCount, 6) {
        let last = min(bytes.count, large.packet.payloadOffset + 8)
        bytes[Int.random(in: 12..<last, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      bytes.removeLast(Int.random(in: 0...min(changeCount, 3), using: &random))
      let size = UInt16.random(in: 256...UInt16.max, using: &random) >> UInt16.random(in: 0...8, using: &random)
      guard fault(bytes, large.kind, size) == nil else { continue }
      passed += 1
      for frame in try cut(bytes, large.kind, Int(size)) {
        #expect(frame.count <= bytes.count)
        #expect(try NetHeaders(parsing: frame.span).end == frame.count)
      }
    }
    #expect(passed > 0)
  }
}
