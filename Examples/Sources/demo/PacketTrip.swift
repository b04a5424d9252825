import ExampleSupport
import Foundation
import NetBack
import NetFront
import Pcap

/// Sends the packets of a capture file through a network card and back, and compares each.
struct PacketTrip {
  /// Where everything that crosses goes.
  private let crossed: String
  private let packets: [PcapPacket]

  private let tap: PcapTap
  private let backends = Told<NetStatistics>()

  /// What the guest says of packets that are all back.
  struct Sent {
    fileprivate let counts: Counts
    fileprivate let seconds: Double
    fileprivate let negotiation: Negotiation
    fileprivate let front: NetStatistics
  }

  fileprivate struct Counts {
    var returned = 0
    var bytes = 0
    var tooLong = 0
    var tooShort = 0
    var longest = 0
  }

  /// - Parameters:
  ///   - source: the capture whose packets are sent.
  ///   - crossed: the capture of what crosses, both ways.
  init(source: String, crossed: String) throws {
    self.crossed = crossed
    let packets = try Self.naming { () throws(PcapError) in
      var reader = try PcapReader(path: .init(source))
      var packets: [PcapPacket]? = reader.linkType == .ethernet ? [] : nil
      while packets != nil, let packet = try reader.next() { packets?.append(packet) }
      return packets
    }
    guard let packets else { throw ExampleError("the capture \(source) does not hold Ethernet frames") }
    self.packets = packets
    let writer = try Self.naming { () throws(PcapError) in try PcapWriter(path: .init(crossed)) }
    tap = PcapTap(EchoEnd(), into: writer)
  }

  private static func naming<Result: ~Copyable>(_ body: () throws(PcapError) -> Result) throws -> Result {
    do throws(PcapError) { return try body() } catch { throw ExampleError("\(error)") }
  }

  /// What the driver domain serves.
  func register(on bus: Bus) throws(XenstoreError) {
    let (tap, backends) = (tap, backends)
    try bus.register(NetBackDriver(whenClosed: { backends.tell($1.total) }) { _ in tap })
  }

  /// Sends all, and leaves the card connected.
  func run(on guest: Guest) throws -> Sent {
    let card = NetFrontDevice()
    try guest.add(card, mac: "00:16:3e:00:00:01")
    try guest.connect { card.isConnected }
    let start = Date()
    let counts = try send(packets, through: card, guest)
    return Sent(
      counts: counts, seconds: Date().timeIntervalSince(start), negotiation: card.negotiation, front: card.statistics)
  }

  private func send(_ packets: [PcapPacket], through card: NetFrontDevice, _ guest: Guest) throws -> Counts {
    var counts = Counts()
    var meter = Meter("crossed", total: packets.count)
    /// Sent and not come back, in order.
    var expected: [[UInt8]] = []
    var next = 0
    var failure: String?
    while next < packets.count || !expected.isEmpty, failure == nil {
      // As many on the way as the guest has pages for, so that none is dropped.
      while next < packets.count, expected.count < 128 {
        let frame = packets[next].bytes
        do throws(NetFrontError) {
          try card.send(frame.span)
          expected.append(frame)
        } catch {
          switch error {
          case .tooLong:
            counts.tooLong += 1
            counts.longest = max(counts.longest, frame.count)
          case .tooShort: counts.tooShort += 1
          default: throw ExampleError("packet \(next + 1): \(error)")
          }
        }
        next += 1
      }
      card.push()
      var returned = 0
      card.poll { frame in
        let bytes = frame.copied()
        if returned < expected.count, bytes != expected[returned] {
          failure = "packet \(counts.returned + 1) came back changed"
        }
        if returned >= expected.count { failure = "a packet came back that nobody sent" }
        returned += 1
        counts.returned += 1
        counts.bytes += bytes.count
      }
      expected.removeFirst(min(returned, expected.count))
      meter.show(counts.returned + counts.tooLong + counts.tooShort)
      if returned == 0, !expected.isEmpty { guest.sleep(card.descriptor) }
    }
    if let failure { throw ExampleError(failure) }
    meter.end()
    return counts
  }

  /// When the backend is closed, so that it has told what it counted.
  func summary(_ sent: Sent) throws -> String {
    tap.flush()
    if let failure = tap.failure { throw ExampleError("\(failure)") }
    let (counts, front) = (sent.counts, sent.front)
    let back = backends.all.reduce(into: NetStatistics()) { $0 += $1 }
    var lines = [
      "All \(counts.returned) packets came back as they were sent; what crossed, both ways, is in \(crossed).", "",
      "What the two ends of the card agreed on:", "\(sent.negotiation)", "",
      "packets there and back           \(counts.returned)",
      "bytes there and back             \(counts.bytes)",
      "packets a second                 \(String(format: "%.0f", Double(counts.returned) / max(sent.seconds, 1e-6)))",
      "errors, drops                    \(front.tx.errors + front.rx.errors + back.tx.errors + back.rx.errors), "
        + "\(front.tx.drops + front.rx.drops + back.tx.drops + back.rx.drops)",
      notifications("frontend", front), notifications("backend", back),
    ]
    if counts.tooLong > 0 {
      lines.insert(
        "\(counts.tooLong) packets were left out because they are longer than what was agreed (the longest has "
          + "\(counts.longest) bytes).", at: 1)
    }
    if counts.tooShort > 0 {
      lines.insert("\(counts.tooShort) packets were left out because they are shorter than an Ethernet header.", at: 1)
    }
    return lines.joined(separator: "\n")
  }

  private func notifications(_ end: String, _ statistics: NetStatistics) -> String {
    let both = [statistics.txRing, statistics.rxRing].reduce(into: RingStatistics()) { $0 += $1 }
    return "notifications by the \(end)".padding(toLength: 33, withPad: " ", startingAt: 0)
      + "\(both.notificationsSent) sent, \(both.notificationsSuppressed) suppressed"
  }
}

/// A capture file of made-up UDP packets of every length from 60 to 1514 bytes.
enum MadeUpCapture {
  static func make(in folder: URL, count: Int = 5000) throws -> URL {
    let file = folder.appending(path: "packets.pcap")
    say("making a capture of \(count) packets")
    do throws(PcapError) {
      var writer = try PcapWriter(path: .init(file.path))
      for number in 0..<count {
        let packet = udp(byteCount: 60 + number * 7 % 1455, number: number)
        try writer.write(packet.span, nanoseconds: 1_700_000_000_000_000_000 + UInt64(number) * 1_000_000)
      }
      try writer.flush()
    } catch { throw ExampleError("\(error)") }
    return file
  }

  /// Ethernet, IPv4 from 10.0.0.1 to 10.0.0.2, UDP to the discard port, and a payload that tells packets apart.
  private static func udp(byteCount: Int, number: Int) -> [UInt8] {
    let ip = byteCount - 14
    var header: [UInt8] = [0x45, 0, UInt8(ip >> 8), UInt8(ip & 0xFF)]
    header += [UInt8(number >> 8 & 0xFF), UInt8(number & 0xFF), 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]
    var sum = stride(from: 0, to: 20, by: 2).reduce(0) { $0 + Int(header[$1]) << 8 + Int(header[$1 + 1]) }
    while sum > 0xFFFF { sum = sum & 0xFFFF + sum >> 16 }
    header[10] = UInt8(~sum >> 8 & 0xFF)
    header[11] = UInt8(~sum & 0xFF)
    let addresses: [UInt8] = [0, 0x16, 0x3E, 0, 0, 2, 0, 0x16, 0x3E, 0, 0, 1, 8, 0]
    let udp: [UInt8] = [0xC0, 0, 0, 9, UInt8((ip - 20) >> 8), UInt8((ip - 20) & 0xFF), 0, 0]
    return addresses + header + udp + (0..<(byteCount - 42)).map { UInt8(truncatingIfNeeded: $0 * 13 + number) }
  }
}
