// Named for the advisories that they are about.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import NetBack
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// S14: a packet's slots and headers at their extremes.
struct NetFragmentSecurityTests {
  /// An IPv4 or IPv6 TCP packet whose checksum is left blank.
  private static func packet(isIPv6: Bool) -> [UInt8] {
    let payload = pattern(100, seed: 5)
    let segment: [UInt8] =
      [0x9C, 0x40, 0, 80, 1, 2, 3, 4, 5, 6, 7, 8, 0x50, 0x18, 0xFF, 0xFF, 0, 0, 0, 0] + payload
    let count = UInt8(segment.count)
    let header: [UInt8] =
      isIPv6
      ? [0x86, 0xDD, 0x60, 0, 0, 0, 0, count, 6, 64] + [UInt8](repeating: 0xFD, count: 16)
        + [UInt8](repeating: 0xFE, count: 16)
      : [0x08, 0, 0x45, 0, 0, 20 + count, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2]
    return [UInt8](0..<12) + header + segment
  }

  /// The headers are split between two slots at each of their bytes: the checksum is filled in as if they were in one.
  @Test(arguments: [false, true]) func XSA423_headersSplitAtEachByteAreReadWhole(isIPv6: Bool) throws {
    let stage = try NetBackStage()
    let frontend = stage.frontend!
    try frontend.connect()
    let packet = Self.packet(isIPv6: isIPv6)
    var whole: [UInt8]?
    for split in 0..<min(packet.count, 90) {
      frontend.page(0).slice(from: 4096 - split, count: split).copy(from: Array(packet[..<split]).span)
      frontend.page(1).copy(from: Array(packet[split...]).span)
      if split > 0 {
        frontend.put(
          NetIfTxRequest(
            gref: frontend.references[0], offset: UInt16(4096 - split),
            flags: NetIf.TxFlag.moreData | NetIf.TxFlag.checksumBlank, id: 1, size: UInt16(packet.count)))
        frontend.put(NetIfTxRequest(gref: frontend.references[1], id: 2, size: UInt16(packet.count - split)))
      } else {
        frontend.put(
          NetIfTxRequest(
            gref: frontend.references[1], flags: NetIf.TxFlag.checksumBlank, id: 1, size: UInt16(packet.count)))
      }
      #expect(try frontend.txResponses(split > 0 ? 2 : 1).allSatisfy { $0.status == 0 }, "split at \(split)")
      let frames = stage.end.frames()
      #expect(frames.count == 1)
      if whole == nil {
        whole = frames.first
        let frame = try #require(whole)
        let (addresses, transport) = (isIPv6 ? 22 : 26, isIPv6 ? 54 : 34)
        var sum = InternetChecksum()
        sum.add(frame.span.extracting(addresses..<transport))
        sum.add(UInt16(6))
        sum.add(UInt16(frame.count - transport))
        sum.add(frame.span.extracting(transport..<frame.count))
        #expect(sum.value == 0, "its checksum is filled in")
      }
      #expect(frames.first == whole, "split at \(split)")
    }
    try stage.check()
  }

  /// A packet that ends in the middle of its headers, at each byte: an error on it, nothing read past its end, and the next
  /// packet is one.
  @Test(arguments: [false, true]) func XSA432_packetThatEndsInItsHeadersIsRefusedAlone(isIPv6: Bool) throws {
    let stage = try NetBackStage()
    let frontend = stage.frontend!
    try frontend.connect()
    let packet = Self.packet(isIPv6: isIPv6)
    let headerCount = packet.count - 100
    for count in 0..<headerCount {
      // At the end of its page, behind which is another's.
      frontend.page(0).slice(from: 4096 - count, count: count).copy(from: Array(packet[..<count]).span)
      frontend.put(
        NetIfTxRequest(
          gref: frontend.references[0], offset: UInt16(4096 - count), flags: NetIf.TxFlag.checksumBlank, id: 1,
          size: UInt16(count)))
      frontend.put(NetIfTxRequest(gref: frontend.references[3], id: 2, size: 64))
      let responses = try frontend.txResponses(2)
      #expect(responses.map(\.id).sorted() == [1, 2] && responses.first { $0.id == 1 }?.status == -1, "\(count) bytes")
      #expect(stage.end.frames().count == 1)
    }
    try stage.check()
  }

  private static let extremes: [(sizes: [UInt16], isPacket: Bool)] = [
    // The first says how long all are.
    ([14], true), ([13], false), ([0], false), ([65535], false), ([4096], true), ([4097], false),
    // Fragments without bytes, and of one byte each.
    ([100, 0, 0, 0], true), ([17] + Array(repeating: 1, count: 16), true),
    (Array([18]) + Array(repeating: 1, count: 17), true), ([17] + Array(repeating: 1, count: 17), false),
    // As long as the whole or longer, together or alone; more than 64 KiB in the sum.
    ([100, 100], false), ([100, 99], true), ([100, 101], false), ([100, 65535], false), ([100, 60, 60], false),
    ([65535] + Array(repeating: 4095, count: 17), false), ([65535] + Array(repeating: 4096, count: 15), true),
    ([4096, 4096], false),
    // Nineteen and twenty slots.
    ([400] + Array(repeating: 1, count: 18), false), ([400] + Array(repeating: 1, count: 19), false),
  ]

  @Test(arguments: extremes) func XSA448_fragmentsAtTheirExtremesAreAPacketOrAnError(sizes: [UInt16], isPacket: Bool)
    throws
  {
    let stage = try NetBackStage()
    let frontend = stage.frontend!
    try frontend.connect()
    for (index, size) in sizes.enumerated() {
      let flags = index + 1 < sizes.count ? NetIf.TxFlag.moreData : 0
      frontend.put(
        NetIfTxRequest(gref: frontend.references[index], flags: flags, id: UInt16(index), size: size))
    }
    frontend.put(NetIfTxRequest(gref: frontend.references[31], id: 99, size: 64))
    let responses = try frontend.txResponses(sizes.count + 1)
    #expect(Set(responses.map(\.id)) == Set((0..<UInt16(sizes.count)).map { $0 } + [99]))
    #expect(responses.filter { $0.id != 99 }.allSatisfy { $0.status == (isPacket ? 0 : -1) })
    #expect(stage.end.frames().map(\.count) == (isPacket ? [Int(sizes[0])] : []) + [64])
    try stage.check()
  }
}
