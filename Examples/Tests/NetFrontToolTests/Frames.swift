import NetFront
import NetFrontTool

/// Frames as another host would make them, written out byte by byte; what a test changes about one has a name.
enum Frames {
  static let ours: [UInt8] = [0x00, 0x16, 0x3E, 0, 0, 1]
  static let theirs: [UInt8] = [0x00, 0x16, 0x3E, 0, 0, 2]
  static let everybody = [UInt8](repeating: 0xFF, count: 6)
  static let mac = MACAddress(InlineArray { ours[$0] })
  static let theirMAC = MACAddress(InlineArray { theirs[$0] })

  static func host() -> IPv4Host { IPv4Host(mac: mac, network: IPv4Network("10.9.0.2/24")!) }

  static func word(_ number: Int) -> [UInt8] { [UInt8(number >> 8 & 0xFF), UInt8(number & 0xFF)] }

  /// The sum that RFC 1071 asks for, in the plainest way.
  static func sum(_ bytes: [UInt8]) -> Int {
    var sum = 0
    for (place, byte) in bytes.enumerated() { sum += place % 2 == 0 ? Int(byte) * 256 : Int(byte) }
    return ~(sum % 0xFFFF == 0 && sum > 0 ? 0xFFFF : sum % 0xFFFF) & 0xFFFF
  }

  static func arp(
    operation: Int = 1, to destination: [UInt8] = everybody, kind: [UInt8] = [0, 1, 8, 0, 6, 4],
    sender: [UInt8] = theirs, from: [UInt8] = [10, 9, 0, 1], target: [UInt8] = [10, 9, 0, 2],
    targetMAC: [UInt8] = [0, 0, 0, 0, 0, 0]
  ) -> [UInt8] {
    destination + theirs + [8, 6] + kind + word(operation) + sender + from + targetMAC + target
  }

  static func ip(
    _ proto: UInt8, _ payload: [UInt8], to destination: [UInt8] = ours, source: [UInt8] = theirs,
    from: [UInt8] = [10, 9, 0, 1], target: [UInt8] = [10, 9, 0, 2], fragment: Int = 0x4000, version: UInt8 = 0x45,
    options: [UInt8] = [], totalByteCount: Int? = nil, headerSum: Int? = nil, timeToLive: UInt8 = 63
  ) -> [UInt8] {
    let total = totalByteCount ?? 20 + options.count + payload.count
    var header: [UInt8] =
      [version, 0] + word(total) + [0x12, 0x34] + word(fragment) + [timeToLive, proto, 0, 0] + from + target + options
    header.replaceSubrange(10..<12, with: word(headerSum ?? sum(header)))
    return destination + source + [8, 0] + header + payload
  }

  static func icmp(
    _ kind: UInt8 = 8, code: UInt8 = 0, identifier: Int = 0xABCD, sequence: Int = 1,
    _ payload: [UInt8] = Array("ping!".utf8),
    checksum: Int? = nil
  ) -> [UInt8] {
    var packet = [kind, code, 0, 0] + word(identifier) + word(sequence) + payload
    packet.replaceSubrange(2..<4, with: word(checksum ?? sum(packet)))
    return packet
  }

  static func udp(
    from port: Int = 40000, to echo: Int = 7, _ payload: [UInt8] = Array("echo".utf8), byteCount: Int? = nil,
    checksum: Int? = nil, between addresses: [UInt8] = [10, 9, 0, 1, 10, 9, 0, 2]
  ) -> [UInt8] {
    let count = byteCount ?? 8 + payload.count
    var packet = word(port) + word(echo) + word(count) + [0, 0] + payload
    let right = sum(addresses + [0, 17] + word(count) + packet)
    packet.replaceSubrange(6..<8, with: word(checksum ?? (right == 0 ? 0xFFFF : right)))
    return packet
  }
}
