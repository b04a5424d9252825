import CRingOracle
import NetIf
import TestSupport
import Testing

/// Extra infos: the header's bytes, and the gate.
struct NetExtraInfoTests {
  private func parse(_ raw: NetIfExtraInfo) -> Result<NetExtraInfo, NetExtraInfoFault> {
    do throws(NetExtraInfoFault) { return .success(try NetExtraInfo(parsing: raw)) } catch { return .failure(error) }
  }

  /// The installed header's struct, filled in by C, laid into a slot of either ring.
  private func slots(_ bytes: UInt64) -> (transmit: NetIfExtraInfo, receive: NetIfExtraInfo) {
    let half = { (shift: UInt64) in UInt16(truncatingIfNeeded: bytes >> shift) }
    return (
      NetIfExtraInfo(
        NetIfTxRequest(
          gref: GrantReference(rawValue: UInt32(truncatingIfNeeded: bytes)), offset: half(32), flags: half(48),
          id: 0xFFFF,
          size: 0xFFFF)),
      NetIfExtraInfo(
        NetIfRxResponse(id: half(0), offset: half(16), flags: half(32), status: Int16(bitPattern: half(48))))
    )
  }

  @Test(.enabled(if: net_oracle_available(), "needs libxen-dev"))
  func theHeadersBytesAreReadFromEitherRing() throws {
    let group = MACAddress("33:33:00:01:02:03")!
    let cases: [(NetExtraInfo, UInt64)] = [
      (.segmentation(.tcpv4, payloadByteCount: 1448), net_oracle_gso(1448, 1, false)),
      (.segmentation(.tcpv6, payloadByteCount: 0xFFFF), net_oracle_gso(0xFFFF, 2, true)),
      (.addMulticast(group), net_oracle_multicast(true, 0x33, 0x33, 0, 1, 2, 3)),
      (.removeMulticast(group), net_oracle_multicast(false, 0x33, 0x33, 0, 1, 2, 3)),
      (.hash(.ipv6TCP, value: 0x8765_4321), net_oracle_hash(3, 1, 0x8765_4321)),
    ]
    for (expected, bytes) in cases {
      let slots = slots(bytes)
      #expect(try parse(slots.transmit).get() == expected)
      #expect(try parse(slots.receive).get() == expected)
    }
    #expect(slots(net_oracle_gso(1, 1, true)).transmit.hasMore)
    #expect(!slots(net_oracle_gso(1, 1, false)).receive.hasMore)
  }

  /// Linux's header has it, the installed one has not: two bytes from the third on.
  @Test func headroomIsRead() throws {
    #expect(try parse(NetIfExtraInfo(type: 5, words: (256, 0, 0))).get() == .headroom(byteCount: 256))
    #expect(try parse(NetIfExtraInfo(type: 5, words: (0x7FFF, 0, 0))).get() == .headroom(byteCount: 0x7FFF))
    #expect(throws: NetExtraInfoFault.headroom(byteCount: 0x8000)) {
      try parse(NetIfExtraInfo(type: 5, words: (0x8000, 0, 0))).get()
    }
  }

  @Test func whatMeansNothingIsRefused() {
    for type in [0, 6, 7, 0xFF] as [UInt8] {
      #expect(throws: NetExtraInfoFault.unknownType(type)) {
        try parse(NetIfExtraInfo(type: type, words: (1, 1, 1))).get()
      }
    }
    for type in [0, 3, 0xFF] as [UInt8] {
      #expect(throws: NetExtraInfoFault.segmentation(type: type, features: 0)) {
        try parse(NetIfExtraInfo(type: 1, words: (1448, UInt16(type), 0))).get()
      }
    }
    #expect(throws: NetExtraInfoFault.segmentation(type: 1, features: 2)) {
      try parse(NetIfExtraInfo(type: 1, words: (1448, 1, 2))).get()
    }
    #expect(throws: NetExtraInfoFault.emptySegments) { try parse(NetIfExtraInfo(type: 1, words: (0, 1, 0))).get() }
    #expect(throws: NetExtraInfoFault.noGroup(MACAddress("00:16:3e:00:00:01")!)) {
      try parse(NetIfExtraInfo(type: 2, words: (0x1600, 0x003E, 0x0100))).get()
    }
    #expect(throws: NetExtraInfoFault.hash(type: 4, algorithm: 1)) {
      try parse(NetIfExtraInfo(type: 4, words: (0x0104, 0, 0))).get()
    }
    #expect(throws: NetExtraInfoFault.hash(type: 1, algorithm: 0)) {
      try parse(NetIfExtraInfo(type: 4, words: (0x0001, 0, 0))).get()
    }
  }

  @Test func aSlotHoldsItsEightBytes() {
    let raw = NetIfExtraInfo(type: 0x01, flags: 0x02, words: (0x0403, 0x0605, 0x0807))
    let slot = raw.transmitSlot
    // Safe: every byte of a slot belongs to a property.
    #expect(unsafe withUnsafeBytes(of: slot) { unsafe Array($0) } == Array(1...8) + [0, 0, 0, 0])
  }

  @Test(arguments: seeds(1...50, of: NetExtraInfoTests.self))
  func randomBytesNeverTrap(seed: Seed) {
    var random = SeededGenerator(seed)
    for _ in 0..<200 {
      let word = { UInt16.random(in: 0 ... .max, using: &random) }
      let raw = NetIfExtraInfo(
        type: UInt8.random(in: 0...7, using: &random), flags: UInt8.random(in: 0 ... .max, using: &random),
        words: (word(), word(), word()))
      if case .success(.segmentation(_, let byteCount)) = parse(raw) { #expect(byteCount > 0) }
    }
  }
}
