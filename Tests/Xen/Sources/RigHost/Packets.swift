import NetFront
import RigSupport

extension IPv4Address {
  /// The four bytes.
  init(_ bytes: ArraySlice<UInt8>) { self.init(InlineArray<4, UInt8> { bytes[bytes.startIndex + $0] }) }

  var array: [UInt8] { bytes.indices.map { bytes[$0] } }
}

/// The Internet checksum (RFC 1071); zero over bytes that hold their own right one.
func internetChecksum(_ bytes: ArraySlice<UInt8>) -> UInt16 {
  var sum: UInt32 = 0
  for (place, byte) in bytes.enumerated() { sum += place % 2 == 0 ? UInt32(byte) << 8 : UInt32(byte) }
  while sum >> 16 != 0 { sum = sum >> 16 + sum & 0xFFFF }
  return ~UInt16(sum)
}

func bigEndian(_ number: UInt16) -> [UInt8] { [UInt8(number >> 8), UInt8(number & 0xFF)] }

func bigEndian(_ bytes: ArraySlice<UInt8>) -> UInt16 { bytes.reduce(0) { $0 << 8 | UInt16($1) } }

extension MACAddress {
  package static let broadcast = MACAddress(InlineArray(repeating: 0xFF))

  /// The six bytes.
  init(_ bytes: ArraySlice<UInt8>) {
    self.init(InlineArray<6, UInt8> { bytes[bytes.startIndex + $0] })
  }

  var array: [UInt8] { bytes.indices.map { bytes[$0] } }
}

/// An ARP packet for Ethernet and IPv4 (RFC 826).
struct ARPPacket {
  enum Operation: UInt16 {
    case request = 1
    case reply = 2
  }

  static let headerBytes: [UInt8] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4]

  let operation: Operation
  let sender: (mac: MACAddress, address: IPv4Address)
  let target: (mac: MACAddress, address: IPv4Address)

  init(
    _ operation: Operation, from sender: (mac: MACAddress, address: IPv4Address),
    to target: (mac: MACAddress, address: IPv4Address)
  ) {
    (self.operation, self.sender, self.target) = (operation, sender, target)
  }

  /// Nil for a frame that is no such packet.
  init?(_ frame: [UInt8]) {
    guard frame.count >= 42, Array(frame[12..<20]) == Self.headerBytes,
      let operation = Operation(rawValue: bigEndian(frame[20..<22]))
    else { return nil }
    self.operation = operation
    sender = (MACAddress(frame[22..<28]), IPv4Address(frame[28..<32]))
    target = (MACAddress(frame[32..<38]), IPv4Address(frame[38..<42]))
  }

  var frame: [UInt8] {
    let asked = operation == .request ? [UInt8](repeating: 0, count: 6) : target.mac.array
    return target.mac.array + sender.mac.array + Self.headerBytes + bigEndian(operation.rawValue) + sender.mac.array
      + sender.address.array + asked + target.address.array
  }
}

/// An ICMP echo request or reply in one IPv4 packet in one Ethernet frame (RFC 792, RFC 791).
struct EchoPacket {
  enum Kind: UInt8 {
    case reply = 0
    case request = 8
  }

  /// Of the two headers.
  static let headerByteCount = 28

  let kind: Kind
  let source: (mac: MACAddress, address: IPv4Address)
  let destination: (mac: MACAddress, address: IPv4Address)
  let identifier: UInt16
  let sequence: UInt16
  let payload: [UInt8]

  init(
    _ kind: Kind, from source: (mac: MACAddress, address: IPv4Address),
    to destination: (mac: MACAddress, address: IPv4Address), identifier: UInt16, sequence: UInt16, payload: [UInt8]
  ) {
    (self.kind, self.source, self.destination) = (kind, source, destination)
    (self.identifier, self.sequence, self.payload) = (identifier, sequence, payload)
  }

  /// Nil for a frame that is no whole echo packet.
  ///
  /// - Throws: when it is one and a checksum or a length in it is wrong.
  init?(_ frame: [UInt8]) throws(Failure) {
    guard frame.count >= 14 + Self.headerByteCount, frame[12] == 0x08, frame[13] == 0, frame[14] == 0x45,
      frame[23] == 1, bigEndian(frame[20..<22]) & 0x3FFF == 0, let kind = Kind(rawValue: frame[34])
    else { return nil }
    let count = Int(bigEndian(frame[16..<18]))
    guard count >= Self.headerByteCount, 14 + count <= frame.count else {
      throw Failure("an IPv4 packet says that it has \(count) bytes, in a frame of \(frame.count)")
    }
    guard internetChecksum(frame[14..<34]) == 0 else { throw Failure("an IPv4 header has a wrong checksum") }
    guard internetChecksum(frame[34..<14 + count]) == 0 else {
      throw Failure("an ICMP packet of \(count) bytes has a wrong checksum")
    }
    self.kind = kind
    source = (MACAddress(frame[6..<12]), IPv4Address(frame[26..<30]))
    destination = (MACAddress(frame[0..<6]), IPv4Address(frame[30..<34]))
    identifier = bigEndian(frame[38..<40])
    sequence = bigEndian(frame[40..<42])
    payload = Array(frame[42..<14 + count])
  }

  var frame: [UInt8] {
    var ip: [UInt8] =
      [0x45, 0] + bigEndian(UInt16(Self.headerByteCount + payload.count)) + [0, 0, 0, 0, 64, 1, 0, 0]
      + source.address.array + destination.address.array
    ip.replaceSubrange(10..<12, with: bigEndian(internetChecksum(ip[...])))
    var icmp: [UInt8] = [kind.rawValue, 0, 0, 0] + bigEndian(identifier) + bigEndian(sequence) + payload
    icmp.replaceSubrange(2..<4, with: bigEndian(internetChecksum(icmp[...])))
    return destination.mac.array + source.mac.array + [0x08, 0] + ip + icmp
  }

  /// The frame that answers `request`, which is a valid echo request from `source`.
  ///
  /// Its checksum is the request's, changed by what changed (RFC 1624): if one byte of the payload is not what was
  /// received, the other side finds the checksum wrong.
  static func reply(to request: [UInt8]) -> [UInt8] {
    var frame = request
    frame.replaceSubrange(0..<6, with: request[6..<12])
    frame.replaceSubrange(6..<12, with: request[0..<6])
    frame.replaceSubrange(26..<30, with: request[30..<34])
    frame.replaceSubrange(30..<34, with: request[26..<30])
    frame[34] = Kind.reply.rawValue
    let sum = UInt32(bigEndian(request[36..<38])) + UInt32(Kind.request.rawValue) << 8
    frame.replaceSubrange(36..<38, with: bigEndian(UInt16(sum & 0xFFFF) + UInt16(sum >> 16)))
    return frame
  }
}

/// A question for the address of an IPv6 neighbour (RFC 4861, 4.3).
struct NeighborSolicitation {
  private let asker: (mac: [UInt8], address: [UInt8])
  private let target: [UInt8]

  /// Nil for a frame that is none, or whose asker has no address yet.
  init?(_ frame: [UInt8]) {
    guard frame.count >= 78, frame[12] == 0x86, frame[13] == 0xDD, frame[20] == 58, frame[54] == 135,
      frame[22..<38].contains(where: { $0 != 0 })
    else { return nil }
    asker = (Array(frame[6..<12]), Array(frame[22..<38]))
    target = Array(frame[62..<78])
  }

  /// The frame that says that `mac` has the address.
  func answer(from mac: MACAddress) -> [UInt8] {
    // Solicited, overriding; the option of the target's link-layer address (RFC 4861, 4.4 and 4.6.1).
    var icmp: [UInt8] = [136, 0, 0, 0, 0x60, 0, 0, 0] + target + [2, 1] + mac.array
    let pseudoHeader = target + asker.address + [0, 0, 0, UInt8(icmp.count), 0, 0, 0, 58]
    icmp.replaceSubrange(2..<4, with: bigEndian(internetChecksum((pseudoHeader + icmp)[...])))
    let ip: [UInt8] = [0x60, 0, 0, 0, 0, UInt8(icmp.count), 58, 255] + target + asker.address
    return asker.mac + mac.array + [0x86, 0xDD] + ip + icmp
  }
}
