/// A position in a ring's endless sequence of slots (`RING_IDX`, io/ring.h).
///
/// It counts up without end and wraps at 2^32; only the difference of two indices means anything.
@frozen public struct RingIndex: RawRepresentable, Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public var rawValue: UInt32

  @inlinable public init(rawValue: UInt32) { self.rawValue = rawValue }

  /// Where a fresh ring starts.
  @inlinable public static var zero: RingIndex { RingIndex(rawValue: 0) }

  /// The index `count` slots later.
  @inlinable public func advanced(by count: UInt32) -> RingIndex { RingIndex(rawValue: rawValue &+ count) }

  /// How many slots lie between `earlier` and this index, modulo 2^32.
  @inlinable public func distance(from earlier: RingIndex) -> UInt32 { rawValue &- earlier.rawValue }

  @inlinable mutating func advance() { rawValue &+= 1 }

  public var description: String { String(rawValue) }
}
