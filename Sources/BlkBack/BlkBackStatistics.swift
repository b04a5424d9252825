import XenRing

/// What one ring of a block backend has done.
public struct BlkBackStatistics: Hashable, Sendable {
  /// Requests that succeeded, by kind: read, write (barriers included), flush.
  public var readRequests: UInt64 = 0
  public var writeRequests: UInt64 = 0
  public var flushRequests: UInt64 = 0
  /// Of the writes, those that were barriers.
  public var barrierRequests: UInt64 = 0
  /// 512-byte sectors.
  public var sectorsRead: UInt64 = 0
  public var sectorsWritten: UInt64 = 0
  /// Requests answered with an error, for whatever reason.
  public var failedRequests: UInt64 = 0
  public var ring = RingStatistics()
}
