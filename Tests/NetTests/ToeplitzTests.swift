import CRingOracle
import NetIf
import TestSupport
import Testing

/// The Toeplitz hash, against what is published and against other ways to reckon it.
struct ToeplitzTests {
  private func find(_ frame: [UInt8]) -> NetFlow? { NetFlow(of: frame.span) }

  /// A packet with these addresses and ports, as much of it as a flow is found by.
  private func frame(_ source: [UInt8], _ destination: [UInt8], ports: (UInt16, UInt16)) -> [UInt8] {
    let segment = big(ports.0) + big(ports.1) + [UInt8](repeating: 0, count: 16)
    let ethernet = [UInt8](repeating: 2, count: 12)
    return source.count == 4
      ? ethernet + [0x08, 0, 0x45, 0, 0, 40, 0, 1, 0x40, 0, 64, 6, 0, 0] + source + destination + segment
      : ethernet + [0x86, 0xDD, 0x60, 0, 0, 0, 0, 20, 6, 64] + source + destination + segment
  }

  private func address(_ groups: [UInt16]) -> [UInt8] { groups.flatMap(big) }

  /// Microsoft, "Verifying the RSS Hash Calculation": every one of its vectors, under its key.
  @Test(
    arguments: [
      ([66, 9, 149, 187], 2794, [161, 142, 100, 80], 1766, 0x323E_8FC2, 0x51CC_C178),
      ([199, 92, 111, 2], 14230, [65, 69, 140, 83], 4739, 0xD718_262A, 0xC626_B0EA),
      ([24, 19, 198, 95], 12898, [12, 22, 207, 184], 38024, 0xD2D0_A5DE, 0x5C2B_394A),
      ([38, 27, 205, 30], 48228, [209, 142, 163, 6], 2217, 0x8298_9176, 0xAFC7_327F),
      ([153, 39, 163, 191], 44251, [202, 188, 127, 2], 1303, 0x5D18_09C5, 0x10E8_28A2),
    ] as [([UInt8], UInt16, [UInt8], UInt16, UInt32, UInt32)])
  func thePublishedIPv4VectorsHold(
    source: [UInt8], sourcePort: UInt16, destination: [UInt8], port: UInt16, addresses: UInt32, withPorts: UInt32
  ) throws {
    let flow = try #require(find(frame(source, destination, ports: (sourcePort, port))))
    #expect(flow.network == .ipv4 && flow.transport == .tcp)
    #expect(Toeplitz.standard.value(of: flow, withPorts: false) == addresses)
    #expect(Toeplitz.standard.value(of: flow, withPorts: true) == withPorts)
  }

  @Test(
    arguments: [
      (
        [0x3FFE, 0x2501, 0x200, 0x1FFF, 0, 0, 0, 7], 2794, [0x3FFE, 0x2501, 0x200, 3, 0, 0, 0, 1], 1766,
        0x2CC1_8CD5, 0x4020_7D3D
      ),
      (
        [0x3FFE, 0x501, 8, 0, 0x260, 0x97FF, 0xFE40, 0xEFAB], 14230, [0xFF02, 0, 0, 0, 0, 0, 0, 1], 4739,
        0x0F0C_461C, 0xDDE5_1BBF
      ),
      (
        [0x3FFE, 0x1900, 0x4545, 3, 0x200, 0xF8FF, 0xFE21, 0x67CF], 44251,
        [0xFE80, 0, 0, 0, 0x200, 0xF8FF, 0xFE21, 0x67CF], 38024, 0x4B61_E985, 0x02D1_FEEF
      ),
    ] as [([UInt16], UInt16, [UInt16], UInt16, UInt32, UInt32)])
  func thePublishedIPv6VectorsHold(
    source: [UInt16], sourcePort: UInt16, destination: [UInt16], port: UInt16, addresses: UInt32, withPorts: UInt32
  ) throws {
    let bytes = frame(address(source), address(destination), ports: (sourcePort, port))
    let flow = try #require(find(bytes))
    #expect(flow.network == .ipv6 && flow.transport == .tcp)
    #expect(Toeplitz.standard.value(of: flow, withPorts: false) == addresses)
    #expect(Toeplitz.standard.value(of: flow, withPorts: true) == withPorts)
  }

  /// The definition, bit by bit.
  private func naive(key: [UInt8], _ input: [UInt8]) -> UInt32 {
    let bit = { (bytes: [UInt8], place: Int) in place / 8 < bytes.count && bytes[place / 8] >> (7 - place % 8) & 1 == 1
    }
    var hash: UInt32 = 0
    for place in 0..<input.count * 8 where bit(input, place) {
      for offset in 0..<32 where bit(key, place + offset) { hash ^= 1 << UInt32(31 - offset) }
    }
    return hash
  }

  /// Keys of every length, random and of ones only.
  @Test(arguments: seeds(1...4, of: ToeplitzTests.self))
  func itIsTheDefinitionsUnderKeysOfEveryLength(seed: Seed) throws {
    var random = SeededGenerator(seed)
    for length in 0...Toeplitz.maxKeyByteCount {
      let key: [UInt8] = (0..<length).map { _ in seed.modulo(4) == 0 ? 0xFF : .random(in: 0...255, using: &random) }
      let toeplitz = Toeplitz(key: key.span)
      for byteCount in [4, 16] {
        let input = (0..<2 * byteCount + 4).map { _ in UInt8.random(in: 0...255, using: &random) }
        let ports = (
          UInt16(input[2 * byteCount]) << 8 | UInt16(input[2 * byteCount + 1]),
          UInt16(input[2 * byteCount + 2]) << 8 | UInt16(input[2 * byteCount + 3])
        )
        let bytes = frame(Array(input[..<byteCount]), Array(input[byteCount..<2 * byteCount]), ports: ports)
        let flow = try #require(find(bytes))
        let addresses = toeplitz.value(of: flow, withPorts: false)
        let withPorts = toeplitz.value(of: flow, withPorts: true)
        #expect(addresses == naive(key: key, Array(input[..<(2 * byteCount)])), "\(length) bytes of key")
        #expect(withPorts == naive(key: key, input), "\(length) bytes of key")
        if net_oracle_available() {
          // Safe: both arrays are as long as is said.
          let theirs = unsafe control_oracle_toeplitz(key, UInt32(length), input, UInt32(input.count))
          #expect(withPorts == theirs)
        }
      }
    }
  }

  /// io/netif.h: a key of size zero ensures that the hash is zero.
  @Test func underAnEmptyKeyEachHashIsZero() throws {
    let flow = try #require(find(TestPacket().bytes))
    let hash = Toeplitz(key: [UInt8]().span).value(of: flow, withPorts: true)
    #expect(hash == 0)
  }
}

extension Toeplitz {
  /// The key of Microsoft's verification suite.
  static let standard = Toeplitz(
    key: [
      0x6D, 0x5A, 0x56, 0xDA, 0x25, 0x5B, 0x0E, 0xC2, 0x41, 0x67, 0x25, 0x3D, 0x43, 0xA3, 0x8F, 0xB0, 0xD0, 0xCA, 0x2B,
      0xCB, 0xAE, 0x7B, 0x30, 0xB4, 0x77, 0xCB, 0x2D, 0xA3, 0x80, 0x30, 0xF2, 0x0C, 0x6A, 0x42, 0xB7, 0x3B, 0xBE, 0xAC,
      0x01, 0xFA,
    ].span)
}
