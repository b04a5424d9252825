import XenRing

/// What has crossed a queue one way.
public struct NetCounts: Hashable, Sendable, CustomStringConvertible {
  public var packets: UInt64 = 0
  /// Of those packets.
  public var bytes: UInt64 = 0
  /// Packets that were lost because something about them was wrong, or their pages could not be reached.
  public var errors: UInt64 = 0
  /// Packets that were lost for want of room, or because the device went away.
  public var drops: UInt64 = 0

  public init() {}

  public mutating func count(packetOf byteCount: Int) {
    packets &+= 1
    bytes &+= UInt64(byteCount)
  }

  /// One line.
  public var description: String { "\(packets) packets, \(bytes) bytes, \(errors) errors, \(drops) drops" }

  public static func += (left: inout NetCounts, right: NetCounts) {
    left.packets &+= right.packets
    left.bytes &+= right.bytes
    left.errors &+= right.errors
    left.drops &+= right.drops
  }
}

/// What one queue of a card has done at one end; queues add up. TX and RX are the frontend's, at either end.
public struct NetStatistics: Hashable, Sendable, CustomStringConvertible {
  public var tx = NetCounts()
  public var rx = NetCounts()
  /// Packets that the frontend left a checksum of blank, and the backend filled in.
  public var txChecksumsFilled: UInt64 = 0
  /// Frames that their end left a checksum of blank, and the backend filled in, since the frontend does not take them so.
  public var rxChecksumsFilled: UInt64 = 0
  /// Of the packets, those that crossed the ring to be cut into segments (GSO).
  public var txSegmented: UInt64 = 0
  public var rxSegmented: UInt64 = 0
  /// Frames that came to the frontend to be cut into segments without a blank checksum, and were given one (Linux's
  /// counter of that name); and such that came to the backend.
  public var rxGSOChecksumFixups: UInt64 = 0
  public var txGSOChecksumFixups: UInt64 = 0
  /// Frames that the backend kept back, since they were for groups that the frontend does not listen to.
  public var rxFiltered: UInt64 = 0
  public var txRing = RingStatistics()
  public var rxRing = RingStatistics()

  public init() {}

  /// One line.
  public var description: String {
    "tx: \(tx); rx: \(rx); rx_gso_checksum_fixup \(rxGSOChecksumFixups); "
      + "tx_checksums_filled \(txChecksumsFilled); rx_checksums_filled \(rxChecksumsFilled); "
      + "tx_gso_checksum_fixup \(txGSOChecksumFixups); segmented \(txSegmented) and \(rxSegmented); "
      + "filtered \(rxFiltered); notified \(txRing.notificationsSent) and "
      + "\(rxRing.notificationsSent) times, suppressed \(txRing.notificationsSuppressed) and "
      + "\(rxRing.notificationsSuppressed)"
  }

  public static func += (left: inout NetStatistics, right: NetStatistics) {
    left.tx += right.tx
    left.rx += right.rx
    left.txChecksumsFilled &+= right.txChecksumsFilled
    left.rxChecksumsFilled &+= right.rxChecksumsFilled
    left.txSegmented &+= right.txSegmented
    left.rxSegmented &+= right.rxSegmented
    left.rxGSOChecksumFixups &+= right.rxGSOChecksumFixups
    left.txGSOChecksumFixups &+= right.txGSOChecksumFixups
    left.rxFiltered &+= right.rxFiltered
    left.txRing += right.txRing
    left.rxRing += right.rxRing
  }
}

extension Sequence<NetStatistics> {
  /// What all these queues have done together.
  public var total: NetStatistics { reduce(into: NetStatistics()) { $0 += $1 } }
}

/// Which of a card's rings the other end broke, and how.
public struct NetRingViolation: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Ring: String, Sendable { case tx, rx, control }

  public let ring: Ring
  public let violation: RingViolation

  public init(_ ring: Ring, _ violation: RingViolation) {
    self.ring = ring
    self.violation = violation
  }

  public var description: String { "\(ring) ring: \(violation)" }
}
