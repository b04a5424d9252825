import NetFront

/// Numbers and addresses in the bytes of a frame, in network order. The caller has seen that they are there.
extension [UInt8] {
  func number16(at place: Int) -> UInt16 { UInt16(self[place]) << 8 | UInt16(self[place + 1]) }

  func mac(at place: Int) -> MACAddress { MACAddress(InlineArray { self[place + $0] }) }

  func address(at place: Int) -> IPv4Address { IPv4Address(InlineArray { self[place + $0] }) }

  mutating func set(_ number: UInt16, at place: Int) {
    self[place] = UInt8(number >> 8)
    self[place + 1] = UInt8(number & 0xFF)
  }

  mutating func set(_ mac: MACAddress, at place: Int) { for index in 0..<6 { self[place + index] = mac.bytes[index] } }

  mutating func set(_ address: IPv4Address, at place: Int) {
    for index in 0..<4 { self[place + index] = address.bytes[index] }
  }

  /// The Internet checksum of a part (RFC 1071), to which `sum` is added first; zero over what holds its own right one.
  func checksum(_ range: Range<Int>, adding sum: UInt64 = 0) -> UInt16 {
    var sum = sum
    var place = range.lowerBound
    while place + 1 < range.upperBound {
      sum += UInt64(number16(at: place))
      place += 2
    }
    if place < range.upperBound { sum += UInt64(self[place]) << 8 }
    while sum >> 16 != 0 { sum = sum >> 16 + sum & 0xFFFF }
    return ~UInt16(sum)
  }
}

/// Where things stand in an Ethernet frame with an IPv4 packet without options, or with an ARP packet, and what they say
/// (RFC 826, 791, 792, 768).
enum Wire {
  static let etherType = 12
  static let headerByteCount = 14
  static let ipv4: UInt16 = 0x0800
  static let arp: UInt16 = 0x0806

  enum ARP {
    static let byteCount = 28
    static let operation = 20
    static let senderMAC = 22
    static let senderAddress = 28
    static let targetMAC = 32
    static let targetAddress = 38
    static let request: UInt16 = 1
    static let reply: UInt16 = 2
    /// Ethernet, IPv4, and how long their addresses are.
    static let kind: [UInt8] = [0, 1, 0x08, 0, 6, 4]
  }

  enum IP {
    static let headerByteCount = 20
    static let totalByteCount = 16
    static let fragment = 20
    static let timeToLive = 22
    static let proto = 23
    static let checksum = 24
    static let source = 26
    static let destination = 30
    static let payload = 34
    static let icmp: UInt8 = 1
    static let udp: UInt8 = 17
    /// All but the flag that forbids to fragment.
    static let fragmentMask: UInt16 = 0xBFFF
  }

  enum ICMP {
    static let headerByteCount = 8
    static let checksum = 36
    static let identifier = 38
    static let sequence = 40
    static let payload = 42
    static let reply: UInt8 = 0
    static let request: UInt8 = 8
  }

  enum UDP {
    static let headerByteCount = 8
    static let sourcePort = 34
    static let destinationPort = 36
    static let byteCount = 38
    static let checksum = 40
    /// The echo service (RFC 862).
    static let echoPort: UInt16 = 7
  }
}
