import Pcap
import SystemPackage
import TestSupport
import Testing

struct PcapFileTests {
  /// A capture made by hand: a header, then packets.
  private func capture(
    magic: UInt32 = 0xA1B2_C3D4, bigEndian: Bool, major: UInt16 = 2, snap: UInt32 = 65535,
    packets: [(seconds: UInt32, fraction: UInt32, bytes: [UInt8], original: UInt32)]
  ) -> [UInt8] {
    func bytes(_ number: some FixedWidthInteger & UnsignedInteger) -> [UInt8] {
      let little = (0..<number.bitWidth / 8).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
      return bigEndian ? little.reversed() : little
    }
    var file = bytes(magic) + bytes(major) + bytes(UInt16(4)) + bytes(UInt32(0)) + bytes(UInt32(0)) + bytes(snap)
    file += bytes(UInt32(1))
    for packet in packets {
      file += bytes(packet.seconds) + bytes(packet.fraction) + bytes(UInt32(packet.bytes.count))
      file += bytes(packet.original) + packet.bytes
    }
    return file
  }

  private func read(_ path: FilePath) throws -> [PcapPacket] {
    var reader = try PcapReader(path: path)
    var packets: [PcapPacket] = []
    while let packet = try reader.next() { packets.append(packet) }
    return packets
  }

  /// The failure in words, with the file's name taken out.
  private func refusal(_ bytes: [UInt8]) throws -> String {
    let file = try TemporaryFile(bytes)
    do {
      _ = try read(file.path)
      return ""
    } catch {
      let words = "\(error)"
      let parts = words.split(separator: file.path.string, maxSplits: 1, omittingEmptySubsequences: false)
      #expect(parts.count == 2, "the file is named: \(words)")
      return parts.joined(separator: "FILE")
    }
  }

  @Test(arguments: [false, true], [false, true])
  func bothByteOrdersAndResolutionsAreRead(bigEndian: Bool, nanoseconds: Bool) throws {
    let file = try TemporaryFile(
      capture(
        magic: nanoseconds ? 0xA1B2_3C4D : 0xA1B2_C3D4, bigEndian: bigEndian, snap: 96,
        packets: [(10, 7, [1, 2, 3], 3), (UInt32.max, 999, [], 60)]))
    var reader = try PcapReader(path: file.path)
    let (snap, link, isFine) = (reader.snapByteCount, reader.linkType, reader.hasNanoseconds)
    #expect(snap == 96 && link == .ethernet && isFine == nanoseconds)
    let (first, second, third) = (try reader.next(), try reader.next(), try reader.next())
    let unit: UInt64 = nanoseconds ? 1 : 1000
    #expect(first == PcapPacket(nanoseconds: 10_000_000_000 + 7 * unit, bytes: [1, 2, 3]))
    #expect(
      second
        == PcapPacket(
          nanoseconds: UInt64(UInt32.max) * 1_000_000_000 + 999 * unit, bytes: [], originalByteCount: 60))
    #expect(third == nil)
  }

  @Test func writtenBytesAreTheFormats() throws {
    let file = try TemporaryFile()
    do {
      var writer = try PcapWriter(path: file.path, snapByteCount: 4)
      let packet: [UInt8] = [1, 2, 3, 4, 5]
      try writer.write(packet.span, nanoseconds: 3_000_000_009)
      try writer.flush()
    }
    #expect(
      try file.bytes() == [
        0x4D, 0x3C, 0xB2, 0xA1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0,
        3, 0, 0, 0, 9, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 1, 2, 3, 4,
      ])
  }

  /// More than the writer gathers in memory.
  @Test func whatIsWrittenIsReadBack() throws {
    let file = try TemporaryFile()
    let packets = (0..<300).map { number in
      PcapPacket(nanoseconds: UInt64(number) * 1_234_567_891, bytes: pattern(number * 7, seed: number))
    }
    do {
      var writer = try PcapWriter(path: file.path)
      for packet in packets { try writer.write(packet.bytes.span, nanoseconds: packet.nanoseconds) }
    }
    #expect(try read(file.path) == packets)
  }

  @Test func wrongMagicIsSaid() throws {
    #expect(
      try refusal(capture(magic: 0x1234_5678, bigEndian: false, packets: []))
        == "FILE is no pcap file: it begins with 0x12345678")
    #expect(try refusal(capture(magic: 0x0A0D_0D0A, bigEndian: false, packets: [])).contains("pcapng"))
  }

  @Test func unknownVersionIsSaid() throws {
    #expect(
      try refusal(capture(bigEndian: true, major: 3, packets: []))
        == "the capture FILE is of version 3.4, and only 2.4 is read")
  }

  @Test(arguments: [0, 3, 4, 23])
  func truncatedHeaderIsSaid(byteCount: Int) throws {
    #expect(
      try refusal(Array(capture(bigEndian: false, packets: []).prefix(byteCount)))
        == "the capture FILE ends after \(byteCount) bytes, within its header of 24")
  }

  @Test(arguments: [1, 2, 3, 15])
  func truncatedPacketIsSaid(missing: Int) throws {
    let whole = capture(bigEndian: false, packets: [(1, 1, [1, 2, 3], 3), (1, 1, [4, 5, 6], 3)])
    #expect(try refusal(Array(whole.dropLast(missing))) == "the capture FILE ends within packet 2")
  }

  @Test(arguments: [262_145, 0x8000_0000, UInt32.max])
  func absurdLengthIsSaid(length: UInt32) throws {
    var file = capture(bigEndian: false, packets: [(1, 1, [], 0)])
    file.replaceSubrange(32..<36, with: (0..<4).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) })
    #expect(
      try refusal(file)
        == "packet 1 of the capture FILE claims to have \(length) bytes, where at most 262144 can be")
  }

  @Test func aFileThatCannotBeOpenedIsNamed() throws {
    let path = try TemporaryFile().path
    #expect(throws: PcapError.cannotOpen(path, .noSuchFileOrDirectory)) { _ = try PcapReader(path: path) }
    let below = path.appending("below")
    #expect(throws: PcapError.cannotOpen(below, .noSuchFileOrDirectory)) { _ = try PcapWriter(path: below) }
  }

  @Test func aFileThatCannotBeWrittenIsNamed() throws {
    let path = FilePath("/dev/full")
    var writer = try PcapWriter(path: path)
    #expect(throws: PcapError.cannotWrite(path, .noSpace)) { try writer.flush() }
  }
}
