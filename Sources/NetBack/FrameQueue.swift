import NetIf

/// A bounded line of frames, first in, first out, in memory that is allocated once.
///
/// What does not fit is dropped and counted.
public struct FrameQueue: ~Copyable, Sendable {
  /// The longest frame that fits, in bytes.
  public static let maxFrameByteCount = xenPageSize

  /// How many frames fit.
  public let capacity: Int
  /// How many frames are there.
  public private(set) var count = 0
  /// How many frames have been put in vain: for want of room, or too long or too short to be frames.
  public private(set) var dropCount: UInt64 = 0
  private let pages: PrivatePages
  private var byteCounts: [Int]
  private var first = 0

  /// - Parameter capacity: positive; each frame takes a page of memory.
  public init(capacity: Int) {
    precondition(capacity > 0, "room for one frame at least")
    self.capacity = capacity
    pages = PrivatePages(pageCount: capacity)
    byteCounts = Array(repeating: 0, count: capacity)
  }

  public var isEmpty: Bool { count == 0 }
  public var hasRoom: Bool { count < capacity }

  /// The frame that `index` others come before. Valid until it is removed.
  ///
  /// - Precondition: `index` is below ``count``.
  public subscript(index: Int) -> NetworkFrame {
    precondition(index >= 0 && index < count, "frame out of range")
    let place = (first + index) % capacity
    return NetworkFrame(pages.bytes.slice(from: place * xenPageSize, count: byteCounts[place]))
  }

  /// Copies a frame to the end of the line.
  ///
  /// - Returns: false when it was dropped.
  @discardableResult
  public mutating func put(_ frame: NetworkFrame) -> Bool {
    guard let place = place(for: frame.bytes.count) else { return false }
    place.copy(from: frame.bytes)
    return true
  }

  /// Copies a frame to the end of the line.
  ///
  /// - Returns: false when it was dropped.
  @discardableResult
  public mutating func put(_ frame: Span<UInt8>) -> Bool {
    guard let place = place(for: frame.count) else { return false }
    place.copy(from: frame)
    return true
  }

  /// Has `fill` write a frame at the end of the line, with as much room as the longest frame takes, and give its length.
  ///
  /// - Returns: false when there is no room, or `fill` gave zero: it has no frame.
  public mutating func put(fill: (SharedBytes) -> Int) -> Bool {
    guard hasRoom else { return false }
    let place = (first + count) % capacity
    let byteCount = fill(pages.bytes.slice(from: place * xenPageSize, count: Self.maxFrameByteCount))
    guard byteCount > 0 else { return false }
    guard byteCount >= NetIf.headerByteCount else {
      dropCount &+= 1
      return true
    }
    byteCounts[place] = byteCount
    count += 1
    return true
  }

  private mutating func place(for byteCount: Int) -> SharedBytes? {
    guard hasRoom, byteCount >= NetIf.headerByteCount, byteCount <= Self.maxFrameByteCount else {
      dropCount &+= 1
      return nil
    }
    let place = (first + count) % capacity
    byteCounts[place] = byteCount
    count += 1
    return pages.bytes.slice(from: place * xenPageSize, count: byteCount)
  }

  /// Forgets the first `count` frames.
  public mutating func removeFirst(_ count: Int = 1) {
    precondition(count >= 0 && count <= self.count, "more frames than there are")
    first = (first + count) % capacity
    self.count -= count
  }
}
