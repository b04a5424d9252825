import NetFront

/// Pings one host a number of times and says how that went, in the words of ping(8).
///
/// A value without a clock: it is told the time, says what to send and when it wants to be asked again.
public struct Ping: Sendable {
  public struct Plan: Hashable, Sendable {
    public var target: IPv4Address
    /// From 1 to 65535: as many as there are sequence numbers.
    public var count: Int
    /// The payload of each, in bytes.
    public var byteCount: Int
    /// Between one and the next, in nanoseconds.
    public var interval: UInt64
    /// How long the last answer may take, and each answer to an ARP request, in nanoseconds.
    public var patience: UInt64

    public init(
      target: IPv4Address, count: Int = 4, byteCount: Int = 56, interval: UInt64 = 1_000_000_000,
      patience: UInt64 = 5_000_000_000
    ) {
      precondition((1...Int(UInt16.max)).contains(count), "no such count of pings")
      (self.target, self.count, self.byteCount) = (target, count, byteCount)
      (self.interval, self.patience) = (interval, patience)
    }
  }

  public enum Action: Hashable, Sendable {
    /// Send this frame and ask again.
    case send([UInt8])
    /// Ask again then, or after an answer.
    case wait(until: Uptime)
    case done
  }

  /// How often a host is asked for its address before it counts as absent.
  public static let arpAttempts = 5

  public let plan: Plan
  private let identifier: UInt16
  private var mac: MACAddress?
  private var arpCount = 0
  /// When to send the next one, or to give up.
  private var due: Uptime?
  private var start: Uptime?
  private var end: Uptime?
  /// By sequence number less 1: when it was sent; nil when it was answered too.
  private var sentAt: [Uptime?] = []
  private var roundTrips: [UInt64] = []
  private var duplicateCount = 0
  private var damagedCount = 0

  /// - Parameter identifier: tells our pings from those of others.
  public init(_ plan: Plan, identifier: UInt16) { (self.plan, self.identifier) = (plan, identifier) }

  public var isDone: Bool { end != nil }
  /// Whether as many were answered as were to be sent.
  public var isComplete: Bool { roundTrips.count == plan.count }

  /// What to do now.
  public mutating func next(_ host: IPv4Host, now: Uptime) -> Action {
    if isDone { return .done }
    if sentAt.count == plan.count, isComplete { return finish(now) }
    if let due, now < due { return .wait(until: due) }
    guard let mac else {
      guard arpCount < Self.arpAttempts else { return finish(now) }
      arpCount += 1
      due = now + plan.patience / UInt64(Self.arpAttempts)
      return .send(host.arpRequest(for: plan.target))
    }
    guard sentAt.count < plan.count else { return finish(now) }
    if start == nil { start = now }
    sentAt.append(now)
    due = now + (sentAt.count == plan.count ? plan.patience : plan.interval)
    return .send(
      host.echoRequest(
        to: mac, plan.target, identifier: identifier, sequence: UInt16(sentAt.count), payload: payload(sentAt.count)))
  }

  private mutating func finish(_ now: Uptime) -> Action {
    end = now
    return .done
  }

  /// A host has told its address.
  public mutating func resolved(_ address: IPv4Address, _ mac: MACAddress) {
    guard address == plan.target, self.mac == nil else { return }
    self.mac = mac
    due = nil
  }

  /// A host has answered some ping.
  ///
  /// - Returns: a line about it; nil when it was none of ours.
  public mutating func take(_ reply: IPv4Host.EchoReply, now: Uptime) -> String? {
    let index = Int(reply.sequence) - 1
    guard reply.source == plan.target, reply.identifier == identifier, sentAt.indices.contains(index) else {
      return nil
    }
    let words = "\(reply.payload.count + 8) bytes from \(reply.source): icmp_seq=\(reply.sequence)"
    guard reply.payload.elementsEqual(payload(index + 1)) else {
      damagedCount += 1
      return words + " (not the bytes that were sent)"
    }
    guard let sent = sentAt[index] else {
      duplicateCount += 1
      return words + " (DUP!)"
    }
    sentAt[index] = nil
    let nanoseconds = now.nanoseconds - min(sent.nanoseconds, now.nanoseconds)
    roundTrips.append(nanoseconds)
    return words + " time=\(Self.milliseconds(nanoseconds)) ms"
  }

  /// Bytes that no other ping of ours has.
  private func payload(_ sequence: Int) -> [UInt8] {
    (0..<plan.byteCount).map { UInt8(truncatingIfNeeded: ($0 &* 31) ^ ($0 >> 8) &+ sequence &* 17) }
  }

  // MARK: Words

  public var heading: String {
    "PING \(plan.target) \(plan.byteCount)(\(plan.byteCount + IPv4Host.pingOverhead)) bytes of data."
  }

  /// Two lines or three, when all is over.
  public var summary: [String] {
    if mac == nil { return ["nobody answers for \(plan.target) (ARP, \(arpCount) times)"] + statistics }
    return statistics
  }

  private var statistics: [String] {
    // As many as were to be sent: what could not be sent is lost as well.
    let lost = plan.count - roundTrips.count
    let elapsed = (end?.nanoseconds ?? 0) - (start ?? end ?? Uptime(nanoseconds: 0)).nanoseconds
    let others =
      (duplicateCount > 0 ? ", +\(duplicateCount) duplicates" : "")
      + (damagedCount > 0 ? ", +\(damagedCount) damaged" : "")
    let lines = [
      "--- \(plan.target) ping statistics ---",
      "\(sentAt.count) packets transmitted, \(roundTrips.count) received\(others), \(lost * 100 / plan.count)% packet loss, "
        + "time \(elapsed / 1_000_000)ms",
    ]
    guard let least = roundTrips.min(), let most = roundTrips.max() else { return lines }
    let mean = roundTrips.reduce(0) { $0 + Double($1) } / Double(roundTrips.count)
    let square = roundTrips.reduce(0) { $0 + (Double($1) - mean) * (Double($1) - mean) } / Double(roundTrips.count)
    return lines + [
      "rtt min/avg/max/mdev = \(Self.milliseconds(least))/\(Self.milliseconds(UInt64(mean)))/\(Self.milliseconds(most))/"
        + "\(Self.milliseconds(UInt64(square.squareRoot()))) ms"
    ]
  }

  /// With three digits behind the point.
  private static func milliseconds(_ nanoseconds: UInt64) -> String {
    let fraction = "\(nanoseconds / 1000 % 1000)"
    return "\(nanoseconds / 1_000_000)." + String(repeating: "0", count: 3 - fraction.count) + fraction
  }
}

extension Uptime {
  static func + (left: Uptime, nanoseconds: UInt64) -> Uptime {
    let (sum, overflow) = left.nanoseconds.addingReportingOverflow(nanoseconds)
    return Uptime(nanoseconds: overflow ? .max : sum)
  }
}
