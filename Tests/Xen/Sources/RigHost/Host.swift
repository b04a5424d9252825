import Glibc
import NetFront
import RigSupport

/// A host with one address behind one card of ours: it answers for its address, and for any of IPv6, and pings another host.
package final class Host {
  package let card: NetFrontDevice
  package let loop: FrontLoop
  let address: IPv4Address
  let peer: IPv4Address
  package private(set) var peerMAC: MACAddress?
  /// Requests of the peer that were answered.
  package private(set) var answeredCount = 0
  /// Replies that have come, by sequence number.
  private var replies: [UInt16: [UInt8]] = [:]
  private var failure: Failure?
  /// Looks at each frame before the host does, with the same copy of its bytes.
  package var look: ((_ frame: borrowing NetFrontFrame, _ bytes: [UInt8]) throws -> Void)?
  private let identifier = UInt16(truncatingIfNeeded: getpid())

  package init(at path: String, address: IPv4Address, peer: IPv4Address, features: NetFeatures) throws {
    card = NetFrontDevice(features: features)
    self.address = address
    self.peer = peer
    loop = try FrontLoop(card, at: path)
  }

  /// The largest payload of an echo packet that fits the card's MTU.
  var maxPayload: Int { (card.mtu ?? 0) - EchoPacket.headerByteCount }

  private var own: (mac: MACAddress, address: IPv4Address) {
    get throws {
      guard let mac = card.macAddress else { throw Failure("the card has no address yet") }
      return (mac, address)
    }
  }

  /// Works until `condition` holds.
  ///
  /// - Returns: false when the time is up, or SIGTERM has come.
  package func run(seconds: Double, until condition: () -> Bool) throws -> Bool {
    let held = loop.run(
      seconds: seconds, descriptor: { card.descriptor }, device: takeFrames,
      until: { failure != nil || condition() })
    if let failure { throw failure }
    return held
  }

  private func takeFrames() -> Int {
    let count = card.poll { frame in
      do {
        let bytes = frame.copied()
        try look?(frame, bytes)
        try take(bytes)
      } catch {
        failure = failure ?? Failure("\(error)")
      }
    }
    card.push()
    return count
  }

  private func take(_ frame: [UInt8]) throws {
    let own = try own
    if let packet = ARPPacket(frame) {
      guard packet.target.address == address else { return }
      switch packet.operation {
      case .request: try card.send(ARPPacket(.reply, from: own, to: packet.sender).frame.span)
      case .reply: if packet.sender.address == peer { peerMAC = packet.sender.mac }
      }
    } else if let solicitation = NeighborSolicitation(frame) {
      try card.send(solicitation.answer(from: own.mac).span)
    } else if let packet = try EchoPacket(frame), packet.destination.address == address {
      guard packet.destination.mac == own.mac else {
        throw Failure("an echo packet to \(address) came for \(packet.destination.mac), and the card is \(own.mac)")
      }
      switch packet.kind {
      case .request:
        try card.send(EchoPacket.reply(to: frame).span)
        answeredCount += 1
      case .reply:
        guard packet.source.address == peer, packet.identifier == identifier else { return }
        guard replies.updateValue(packet.payload, forKey: packet.sequence) == nil else {
          throw Failure("the reply to ping \(packet.sequence) came twice")
        }
      }
    }
  }

  // MARK: The pings

  package func connect() throws {
    guard try run(seconds: 20, until: { card.isConnected }) else {
      throw Failure("the card does not connect: \(loop.bus.report.joined(separator: "; "))")
    }
  }

  /// What Linux's backend calls the card's other end.
  private var interface: String { "vif0.\(loop.path.split(separator: "/").last ?? "")" }

  /// Asks who has the peer's address, once: the first frame of a connection must not be lost.
  package func findPeer() throws {
    try card.send(ARPPacket(.request, from: own, to: (.broadcast, peer)).frame.span)
    card.push()
    if try run(seconds: 3, until: { peerMAC != nil }) { return }
    guard card.inFlightCount > 0, let netback = LinuxNetback(interface: interface) else {
      throw Failure("nobody answers for \(peer): \(card.statistics), in flight \(card.inFlightCount)")
    }
    let before = try netback.eventCount()
    try netback.kick()
    guard try run(seconds: 3, until: { peerMAC != nil }) else {
      throw Failure("nobody answers for \(peer), kicked or not: \(card.statistics), in flight \(card.inFlightCount)")
    }
    // It is counted by whoever takes it.
    for _ in 0..<300 where try netback.eventCount() == before { usleep(10_000) }
    guard try netback.eventCount() > before else {
      throw Failure("the backend was not notified of the first frame: \(card.statistics)")
    }
    RigProgram.say("Linux had held back the event of the first frame, and took it after a kick")
  }

  /// Pings `count` times, one after the other, with payloads of many lengths from nothing to the longest.
  package func ping(count: Int) throws {
    var slowest = 0.0
    for number in 0..<count {
      let start = Uptime.now
      let sequence = UInt16(number)
      try putRequest(number)
      card.push()
      guard try run(seconds: 5, until: { replies[sequence] != nil }) else {
        throw Failure(
          "ping \(number) of \(payload(number).count) bytes is not answered: \(card.statistics), "
            + "in flight \(card.inFlightCount)")
      }
      try compare(number)
      slowest = max(slowest, Double(Uptime.now.nanoseconds - start.nanoseconds) / 1e6)
    }
    RigProgram.say("\(count) pings one by one, each reply as it was sent; the slowest took \(Int(slowest)) ms")
  }

  /// Pings in rounds with as many pings under way as Linux has memory to answer: it keeps 128 KiB for that, and a ping takes
  /// more than its bytes.
  package func pingTogether(rounds: Int) throws {
    let together = max(1, min(32, 48 * 1024 / maxPayload))
    let count = rounds * together
    for first in stride(from: 0, to: count, by: together) {
      let numbers = first..<min(first + together, count)
      for number in numbers {
        try waitForSlots()
        try putRequest(number)
      }
      card.push()
      guard try run(seconds: 10, until: { replies.count == numbers.count }) else {
        throw Failure("\(replies.count) of \(numbers.count) pings together were answered: \(card.statistics)")
      }
      for number in numbers { try compare(number) }
    }
    RigProgram.say("\(count) pings together, each reply as it was sent")
  }

  /// Sends `count` frames that nobody answers, as fast as the ring takes them.
  package func flood(count: Int) throws {
    guard let peerMAC else { throw Failure("the peer's address is not known") }
    // An EtherType that is kept for experiments (IEEE 802, 9.2.3).
    let header = peerMAC.array + (try own).mac.array + [0x88, 0xB5]
    var sent = 0
    var waits = 0
    while sent < count {
      do throws(NetFrontError) {
        try card.send((header + payload(sent)).span)
        sent += 1
      } catch {
        guard case .busy = error else { throw error }
        waits += 1
        try waitForSlots()
      }
    }
    card.push()
    guard waits > 0 else { throw Failure("a flood of \(count) frames never found the ring full") }
    RigProgram.say("\(count) frames as fast as the ring took them, which was full \(waits) times")
  }

  private func waitForSlots() throws {
    guard card.waitsForSlots else { return }
    card.push()
    guard try run(seconds: 10, until: { !card.waitsForSlots }) else {
      throw Failure("the backend takes no more frames: \(card.statistics), in flight \(card.inFlightCount)")
    }
  }

  private func putRequest(_ number: Int) throws(NetFrontError) {
    guard let mac = card.macAddress, let peerMAC else { throw .notConnected }
    let packet = EchoPacket(
      .request, from: (mac, address), to: (peerMAC, peer), identifier: identifier, sequence: UInt16(number),
      payload: payload(number))
    try card.send(packet.frame.span)
  }

  private func compare(_ number: Int) throws {
    guard let reply = replies.removeValue(forKey: UInt16(number)) else {
      throw Failure("ping \(number) was not answered")
    }
    let payload = payload(number)
    guard reply == payload else {
      let place = zip(reply, payload).enumerated().first { $1.0 != $1.1 }?.offset
      throw Failure(
        "the reply to ping \(number) has \(reply.count) bytes of \(payload.count) and differs at \(place ?? -1)")
    }
  }

  /// Bytes that no other ping has, of a length that is often an extreme one.
  private func payload(_ number: Int) -> [UInt8] {
    let byteCount =
      switch number % 6 {
      case 0: maxPayload
      case 1: number / 6 % 8
      case 2: maxPayload - number / 6 % 8
      default: number * 131 % (maxPayload + 1)
      }
    return (0..<byteCount).map { UInt8(truncatingIfNeeded: ($0 &* 31) ^ ($0 >> 8) &+ number &* 17) }
  }
}
