import XenRing

/// What a block backend has done, in the terms of Linux's /sys/bus/xen-backend.
public struct BlkBackStatistics: Hashable, Sendable {
  /// Requests by kind: read, write (barriers included), flush.
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
