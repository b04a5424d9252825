import NetIf

/// A TCP or UDP packet in a frame, made field by field; its checksum is the naive one of ``checksum(of:)``.
struct TestPacket {
  var network = NetHeaders.Network.ipv4
  var transport = NetHeaders.Transport.tcp
  /// EtherTypes of VLAN tags.
  var tags: [UInt16] = []
  /// IPv4's options, a multiple of four bytes; or IPv6's extension headers, with the number of the first one.
  var options: [UInt8] = []
  var firstExtension: UInt8?
  /// TCP's options, a multiple of four bytes.
  var transportOptions: [UInt8] = []
  var payload: [UInt8] = []
  /// Behind the packet, as short ones have it in Ethernet.
  var padding: [UInt8] = []
  /// What stands where the checksum belongs.
  var checksumField: UInt16 = 0
  var source: [UInt8] = [10, 9, 0, 1]
  var destination: [UInt8] = [10, 9, 0, 2]
  var ports: (UInt16, UInt16) = (40_000, 80)

  private var addresses: (source: [UInt8], destination: [UInt8]) {
    network == .ipv4
      ? (source, destination)
      : ([UInt8](repeating: 0xFD, count: 12) + source, [UInt8](repeating: 0xFE, count: 12) + destination)
  }

  var networkOffset: Int { 14 + 4 * tags.count }
  var transportOffset: Int { networkOffset + (network == .ipv4 ? 20 : 40) + options.count }
  var payloadOffset: Int { transportOffset + (transport == .tcp ? 20 : 8) + transportOptions.count }

  private func segment(checksum: UInt16) -> [UInt8] {
    var bytes = big(ports.0) + big(ports.1)
    switch transport {
    case .tcp:
      bytes += [1, 2, 3, 4, 5, 6, 7, 8, UInt8(5 + transportOptions.count / 4) << 4, 0x18, 0xFF, 0xFF] + big(checksum)
      bytes += [0, 0] + transportOptions
    case .udp: bytes += big(UInt16(8 + payload.count)) + big(checksum)
    }
    return bytes + payload
  }

  var bytes: [UInt8] { frame(checksum: checksumField) }

  /// The frame as a sender with nothing left blank would send it.
  var whole: [UInt8] {
    let segment = segment(checksum: 0)
    let pseudo = addresses.source + addresses.destination + [0, transport.rawValue] + big(UInt16(segment.count))
    let checksum = naiveChecksum(pseudo + segment)
    return frame(checksum: transport == .udp && checksum == 0 ? 0xFFFF : checksum)
  }

  private func frame(checksum: UInt16) -> [UInt8] {
    let segment = segment(checksum: checksum)
    var bytes = [UInt8](0..<12)
    for tag in tags { bytes += big(tag) + [0, 7] }
    switch network {
    case .ipv4:
      bytes += [0x08, 0, UInt8(0x45 + options.count / 4), 0] + big(UInt16(20 + options.count + segment.count))
      bytes += [0, 1, 0x40, 0, 64, transport.rawValue, 0, 0] + addresses.source + addresses.destination + options
    case .ipv6:
      bytes += [0x86, 0xDD, 0x60, 0, 0, 0] + big(UInt16(options.count + segment.count))
      bytes += [firstExtension ?? transport.rawValue, 64] + addresses.source + addresses.destination + options
    }
    return bytes + segment + padding
  }
}

func big(_ word: UInt16) -> [UInt8] { [UInt8(word >> 8), UInt8(word & 0xFF)] }

/// RFC 1071, one word after the other.
func naiveChecksum(_ bytes: [UInt8]) -> UInt16 {
  var sum = 0
  for (place, byte) in bytes.enumerated() { sum += place % 2 == 0 ? Int(byte) << 8 : Int(byte) }
  while sum > 0xFFFF { sum = (sum & 0xFFFF) + (sum >> 16) }
  return ~UInt16(sum)
}
