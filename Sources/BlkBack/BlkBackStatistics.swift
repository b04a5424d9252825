import XenRing

/// What one ring of a block backend has done.
public struct BlkBackStatistics: Hashable, Sendable, CustomStringConvertible {
  /// Requests that succeeded, by kind: read, write (barriers included), flush.
  public var readRequests: UInt64 = 0
  public var writeRequests: UInt64 = 0
  public var flushRequests: UInt64 = 0
  /// Of the writes, those that were barriers.
  public var barrierRequests: UInt64 = 0
  /// Discards, secure ones included.
  public var discardRequests: UInt64 = 0
  /// 512-byte sectors.
  public var sectorsRead: UInt64 = 0
  public var sectorsWritten: UInt64 = 0
  /// Requests answered with an error, for whatever reason.
  public var failedRequests: UInt64 = 0
  /// Requests that had to wait: in the ring until a barrier before them had completed, or for buffers.
  public var waitedRequests: UInt64 = 0
  /// From when a request was taken out of the ring until its batch was answered, for the requests of one turn in eight.
  public var latency = LatencyHistogram()
  public var ring = RingStatistics()

  public init() {}

  /// Several rings of one disk together.
  public static func += (left: inout BlkBackStatistics, right: BlkBackStatistics) {
    left.readRequests &+= right.readRequests
    left.writeRequests &+= right.writeRequests
    left.flushRequests &+= right.flushRequests
    left.barrierRequests &+= right.barrierRequests
    left.discardRequests &+= right.discardRequests
    left.sectorsRead &+= right.sectorsRead
    left.sectorsWritten &+= right.sectorsWritten
    left.failedRequests &+= right.failedRequests
    left.waitedRequests &+= right.waitedRequests
    left.latency += right.latency
    left.ring += right.ring
  }

  /// The counts under the names that Linux's backend gives them in sysfs, which counts barriers as flushes, and then the
  /// latency.
  public var description: String {
    let counts = [
      ("oo_req", waitedRequests), ("rd_req", readRequests), ("wr_req", writeRequests &- barrierRequests),
      ("f_req", flushRequests &+ barrierRequests), ("ds_req", discardRequests), ("rd_sect", sectorsRead),
      ("wr_sect", sectorsWritten), ("failed", failedRequests),
    ]
    let lines = counts.map { name, count in name + String(repeating: " ", count: 9 - name.count) + "\(count)" }
    return lines.joined(separator: "\n") + "\nfrom taken to answered, of one turn in eight:\n\(latency)"
  }
}
