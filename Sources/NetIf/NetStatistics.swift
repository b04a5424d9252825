import XenRing

/// What has crossed a queue one way.
public struct NetCounts: Hashable, Sendable {
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

  public static func += (left: inout NetCounts, right: NetCounts) {
    left.packets &+= right.packets
    left.bytes &+= right.bytes
    left.errors &+= right.errors
    left.drops &+= right.drops
  }
}

/// What one end of a card has done. TX and RX are the frontend's, at either end.
public struct NetStatistics: Hashable, Sendable {
  public var tx = NetCounts()
  public var rx = NetCounts()
  public var txRing = RingStatistics()
  public var rxRing = RingStatistics()

  public init() {}

  public static func += (left: inout NetStatistics, right: NetStatistics) {
    left.tx += right.tx
    left.rx += right.rx
    left.txRing += right.txRing
    left.rxRing += right.rxRing
  }
}

/// Which of a queue's two rings the other end broke, and how.
public struct NetRingViolation: Error, Hashable, Sendable, CustomStringConvertible {
  public enum Ring: String, Sendable { case tx, rx }

  public let ring: Ring
  public let violation: RingViolation

  public init(_ ring: Ring, _ violation: RingViolation) {
    self.ring = ring
    self.violation = violation
  }

  public var description: String { "\(ring) ring: \(violation)" }
}
