import NetFront

/// A host with one IPv4 address behind a card: it answers ARP requests for it, ICMP echo requests, and UDP datagrams to
/// the echo port, 7 (RFC 862).
///
/// A value without a clock or a socket: a frame in, at most one out. Frames may be anything: what is too short, says
/// something else about its length than is true, has a wrong checksum, or comes from an address that no single host has,
/// is counted and passed over. So is what this host does not speak: VLANs, IP options, fragments, other protocols.
public struct IPv4Host: Sendable {
  /// What has become of the frames so far.
  public struct Counts: Hashable, Sendable, CustomStringConvertible {
    public var arpRequestsAnswered: UInt64 = 0
    public var echoRequestsAnswered: UInt64 = 0
    public var datagramsAnswered: UInt64 = 0
    /// For somebody else, or of a kind that is not spoken here.
    public var passedOver: UInt64 = 0
    /// Wrong in itself.
    public var malformed: UInt64 = 0
    /// Answers that the card does not send: a ping may be longer than what it takes.
    public var answersRefused: UInt64 = 0

    public init() {}

    public var description: String {
      "answered \(arpRequestsAnswered) ARP requests, \(echoRequestsAnswered) pings and \(datagramsAnswered) datagrams; "
        + "\(passedOver) other frames, \(malformed) malformed ones; \(answersRefused) answers were not taken by the card"
    }
  }

  /// What a frame asks for, or tells.
  public enum Outcome: Hashable, Sendable {
    case nothing
    /// Send this.
    case answer([UInt8])
    /// A host has answered our ARP request.
    case resolved(IPv4Address, MACAddress)
    case echoReply(EchoReply)
  }

  /// An answer to a ping of ours.
  public struct EchoReply: Hashable, Sendable {
    public let source: IPv4Address
    public let identifier: UInt16
    public let sequence: UInt16
    public let payload: ArraySlice<UInt8>
  }

  public let mac: MACAddress
  public let network: IPv4Network
  public private(set) var counts = Counts()

  public init(mac: MACAddress, network: IPv4Network) { (self.mac, self.network) = (mac, network) }

  /// Why a frame is not answered.
  private enum Refusal: Error { case passedOver, malformed }

  public mutating func take(_ frame: consuming [UInt8]) -> Outcome {
    do throws(Refusal) {
      guard frame.count >= Wire.headerByteCount, frame.mac(at: 6).namesOneCard else { throw .malformed }
      switch frame.number16(at: Wire.etherType) {
      case Wire.arp: return try takeARP(frame)
      case Wire.ipv4: return try takeIP(frame)
      default: throw .passedOver
      }
    } catch {
      switch error {
      case .passedOver: counts.passedOver &+= 1
      case .malformed: counts.malformed &+= 1
      }
      return .nothing
    }
  }

  /// The card does not send so many of the answers.
  public mutating func answersWereRefused(_ count: Int) { counts.answersRefused &+= UInt64(count) }

  // MARK: ARP

  private mutating func takeARP(_ frame: consuming [UInt8]) throws(Refusal) -> Outcome {
    guard frame.count >= Wire.headerByteCount + Wire.ARP.byteCount else { throw .malformed }
    guard Array(frame[Wire.headerByteCount..<Wire.ARP.operation]) == Wire.ARP.kind,
      frame.address(at: Wire.ARP.targetAddress) == network.address
    else { throw .passedOver }
    let destination = frame.mac(at: 0)
    guard destination == mac || destination == Self.everybody else { throw .passedOver }
    let (sender, address) = (frame.mac(at: Wire.ARP.senderMAC), frame.address(at: Wire.ARP.senderAddress))
    guard sender.namesOneCard else { throw .malformed }
    // Somebody who asks for what he says he has, our address, announces it.
    guard address != network.address else { throw .passedOver }
    switch frame.number16(at: Wire.ARP.operation) {
    case Wire.ARP.request:
      // Who has no address yet may ask who has one (RFC 5227, "ARP Probe").
      guard network.canBeHost(address) || address == IPv4Address("0.0.0.0") else { throw .malformed }
      counts.arpRequestsAnswered &+= 1
      return .answer(arpFrame(Wire.ARP.reply, to: sender, address))
    case Wire.ARP.reply:
      guard destination == mac else { throw .passedOver }
      guard network.canBeHost(address) else { throw .malformed }
      return .resolved(address, sender)
    default: throw .passedOver
    }
  }

  /// The frame that asks who has `address`.
  public func arpRequest(for address: IPv4Address) -> [UInt8] { arpFrame(Wire.ARP.request, to: nil, address) }

  private static let everybody = MACAddress(InlineArray(repeating: 0xFF))

  /// - Parameter other: nil for everybody.
  private func arpFrame(_ operation: UInt16, to other: MACAddress?, _ address: IPv4Address) -> [UInt8] {
    var frame = [UInt8](repeating: 0, count: Wire.headerByteCount + Wire.ARP.byteCount)
    frame.set(other ?? Self.everybody, at: 0)
    if let other { frame.set(other, at: Wire.ARP.targetMAC) }
    frame.set(mac, at: 6)
    frame.set(Wire.arp, at: Wire.etherType)
    frame.replaceSubrange(Wire.headerByteCount..<Wire.ARP.operation, with: Wire.ARP.kind)
    frame.set(operation, at: Wire.ARP.operation)
    frame.set(mac, at: Wire.ARP.senderMAC)
    frame.set(network.address, at: Wire.ARP.senderAddress)
    frame.set(address, at: Wire.ARP.targetAddress)
    return frame
  }

  // MARK: IPv4

  private mutating func takeIP(_ frame: consuming [UInt8]) throws(Refusal) -> Outcome {
    guard frame.count >= Wire.IP.payload, frame[Wire.headerByteCount] >> 4 == 4 else { throw .malformed }
    let headerByteCount = Int(frame[Wire.headerByteCount] & 0xF) * 4
    let end = Wire.headerByteCount + Int(frame.number16(at: Wire.IP.totalByteCount))
    guard headerByteCount >= Wire.IP.headerByteCount, end >= Wire.headerByteCount + headerByteCount,
      end <= frame.count, frame.checksum(Wire.headerByteCount..<Wire.headerByteCount + headerByteCount) == 0
    else { throw .malformed }
    guard frame.mac(at: 0) == mac, frame.address(at: Wire.IP.destination) == network.address,
      headerByteCount == Wire.IP.headerByteCount, frame.number16(at: Wire.IP.fragment) & Wire.IP.fragmentMask == 0
    else { throw .passedOver }
    let source = frame.address(at: Wire.IP.source)
    guard network.canBeHost(source), source != network.address else { throw .malformed }
    switch frame[Wire.IP.proto] {
    case Wire.IP.icmp: return try takeICMP(frame, end: end)
    case Wire.IP.udp: return try takeUDP(frame, end: end)
    default: throw .passedOver
    }
  }

  private mutating func takeICMP(_ frame: consuming [UInt8], end: Int) throws(Refusal) -> Outcome {
    guard end >= Wire.ICMP.payload, frame.checksum(Wire.IP.payload..<end) == 0 else { throw .malformed }
    guard frame[Wire.IP.payload + 1] == 0 else { throw .passedOver }
    switch frame[Wire.IP.payload] {
    case Wire.ICMP.request:
      frame[Wire.IP.payload] = Wire.ICMP.reply
      // Changed by what has changed (RFC 1624), so that the asker still finds a byte that is not as he sent it.
      let sum = UInt32(frame.number16(at: Wire.ICMP.checksum)) + UInt32(Wire.ICMP.request) << 8
      frame.set(UInt16(sum & 0xFFFF) + UInt16(sum >> 16), at: Wire.ICMP.checksum)
      counts.echoRequestsAnswered &+= 1
      return .answer(returned(frame, end: end))
    case Wire.ICMP.reply:
      return .echoReply(
        EchoReply(
          source: frame.address(at: Wire.IP.source), identifier: frame.number16(at: Wire.ICMP.identifier),
          sequence: frame.number16(at: Wire.ICMP.sequence), payload: frame[Wire.ICMP.payload..<end]))
    default: throw .passedOver
    }
  }

  private mutating func takeUDP(_ frame: consuming [UInt8], end: Int) throws(Refusal) -> Outcome {
    let byteCount = end - Wire.IP.payload
    guard byteCount >= Wire.UDP.headerByteCount, Int(frame.number16(at: Wire.UDP.byteCount)) == byteCount else {
      throw .malformed
    }
    // None is as good as a right one (RFC 768). The answer has none either: nobody vouches for its bytes.
    if frame.number16(at: Wire.UDP.checksum) != 0 {
      // Over the two addresses, the protocol and the length besides.
      let others = [UInt16(Wire.IP.udp), UInt16(byteCount)]
      guard frame.checksum(Wire.IP.source..<end, adding: others) == 0 else { throw .malformed }
    }
    let port = frame.number16(at: Wire.UDP.sourcePort)
    // Another echo service would answer the answer, for ever.
    guard frame.number16(at: Wire.UDP.destinationPort) == Wire.UDP.echoPort, port != Wire.UDP.echoPort, port != 0
    else { throw .passedOver }
    // The checksum does not care which of the two comes first.
    frame.set(Wire.UDP.echoPort, at: Wire.UDP.sourcePort)
    frame.set(port, at: Wire.UDP.destinationPort)
    counts.datagramsAnswered &+= 1
    return .answer(returned(frame, end: end))
  }

  /// The frame on its way back, without what stood behind the packet.
  private func returned(_ frame: consuming [UInt8], end: Int) -> [UInt8] {
    frame.removeSubrange(end...)
    frame.set(frame.mac(at: 6), at: 0)
    frame.set(mac, at: 6)
    frame.set(frame.address(at: Wire.IP.source), at: Wire.IP.destination)
    frame.set(network.address, at: Wire.IP.source)
    frame[Wire.IP.timeToLive] = 64
    setHeaderChecksum(&frame)
    return frame
  }

  private func setHeaderChecksum(_ frame: inout [UInt8]) {
    frame.set(0, at: Wire.IP.checksum)
    frame.set(frame.checksum(Wire.headerByteCount..<Wire.IP.payload), at: Wire.IP.checksum)
  }

  /// How many bytes a ping has besides its payload, its Ethernet header aside.
  public static let pingOverhead = Wire.IP.headerByteCount + Wire.ICMP.headerByteCount

  /// A ping of another host.
  ///
  /// - Parameter payload: at most as long as an IPv4 packet has room for.
  public func echoRequest(
    to other: MACAddress, _ address: IPv4Address, identifier: UInt16, sequence: UInt16, payload: [UInt8]
  ) -> [UInt8] {
    var frame = [UInt8](repeating: 0, count: Wire.ICMP.payload) + payload
    frame.set(other, at: 0)
    frame.set(mac, at: 6)
    frame.set(Wire.ipv4, at: Wire.etherType)
    frame[Wire.headerByteCount] = 0x45
    frame.set(UInt16(Self.pingOverhead + payload.count), at: Wire.IP.totalByteCount)
    frame[Wire.IP.timeToLive] = 64
    frame[Wire.IP.proto] = Wire.IP.icmp
    frame.set(network.address, at: Wire.IP.source)
    frame.set(address, at: Wire.IP.destination)
    setHeaderChecksum(&frame)
    frame[Wire.IP.payload] = Wire.ICMP.request
    frame.set(identifier, at: Wire.ICMP.identifier)
    frame.set(sequence, at: Wire.ICMP.sequence)
    frame.set(frame.checksum(Wire.IP.payload..<frame.count), at: Wire.ICMP.checksum)
    return frame
  }
}
