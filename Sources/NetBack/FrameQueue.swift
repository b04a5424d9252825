import NetIf

/// A bounded line of frames, first in, first out, in memory that is allocated once.
///
/// It is bounded in frames and in bytes: each frame takes what it is long, in one piece. What does not fit is dropped and
/// counted.
public struct FrameQueue: ~Copyable, Sendable {
  private struct Place: BitwiseCopyable {
    var offset = 0
    var byteCount = 0
    var arrival = Uptime(nanoseconds: 0)
    var metadata = NetPacketMetadata()
  }

  /// How many frames fit.
  public let capacity: Int
  /// The longest frame that is taken, in bytes.
  public let maxFrameByteCount: Int
  /// How many frames are there.
  public private(set) var count = 0
  /// How many frames have been put in vain: for want of room, or too long or too short to be frames; and how many have
  /// waited too long.
  public private(set) var dropCount: UInt64 = 0
  /// When the frames put from now on have arrived; for lines whose frames may wait too long.
  var now = Uptime(nanoseconds: 0)
  private let pages: PrivatePages
  /// The pages'.
  private let bytes: SharedBytes
  private var places: PlainArray<Place>
  private var first = 0
  /// Where the last frame ends: behind the first one's start, or before it when the line has gone round.
  private var end = 0

  /// - Parameters:
  ///   - capacity: positive.
  ///   - byteCapacity: how many bytes of memory the frames share, at least; two pages for three frames unless given, and
  ///     room for two of the longest.
  ///   - maxFrameByteCount: at least an Ethernet header.
  public init(capacity: Int, byteCapacity: Int? = nil, maxFrameByteCount: Int = NetIf.maxFrameByteCount) {
    precondition(capacity > 0, "room for one frame at least")
    precondition(maxFrameByteCount >= NetIf.headerByteCount, "room for an Ethernet header at least")
    self.capacity = capacity
    self.maxFrameByteCount = maxFrameByteCount
    let byteCount = max(byteCapacity ?? capacity * 2 * xenPageSize / 3, 2 * Self.rounded(maxFrameByteCount + 1))
    pages = PrivatePages(pageCount: (byteCount + xenPageSize - 1) / xenPageSize)
    bytes = pages.bytes
    places = PlainArray(repeating: Place(), count: capacity)
  }

  public var isEmpty: Bool { count == 0 }

  /// Whether there is room for a frame of any length, also by ``put(fill:)``.
  public var hasRoom: Bool { offset(for: maxFrameByteCount + 1) != nil }

  /// Whether a frame so long would not be dropped for want of room. One that is longer than any is dropped anyway.
  public func hasRoom(for byteCount: Int) -> Bool { offset(for: min(byteCount, maxFrameByteCount)) != nil }

  /// The frame that `index` others come before. Valid until it is removed.
  ///
  /// - Precondition: `index` is below ``count``.
  public subscript(index: Int) -> NetworkFrame {
    precondition(index >= 0 && index < count, "frame out of range")
    let place = places[wrapped(first &+ index)]
    return NetworkFrame(bytes.slice(from: place.offset, count: place.byteCount), place.metadata)
  }

  /// How many bytes all frames have together.
  var byteCount: Int { (0..<count).reduce(0) { $0 + byteCount(at: $1) } }

  /// How long the frame is that `index` others come before.
  func byteCount(at index: Int) -> Int { places[wrapped(first + index)].byteCount }

  /// Copies a frame to the end of the line.
  ///
  /// - Returns: false when it was dropped.
  @discardableResult
  public mutating func put(_ frame: NetworkFrame) -> Bool {
    guard let place = place(for: frame.bytes.count, frame.metadata) else { return false }
    place.copy(from: frame.bytes)
    return true
  }

  /// Copies a frame to the end of the line.
  ///
  /// - Returns: false when it was dropped.
  @discardableResult
  public mutating func put(_ frame: Span<UInt8>, _ metadata: NetPacketMetadata = NetPacketMetadata()) -> Bool {
    guard let place = place(for: frame.count, metadata) else { return false }
    place.copy(from: frame)
    return true
  }

  /// Has `fill` write a frame at the end of the line, with room for one byte more than the longest frame has, say what goes
  /// with it, and give its length. So what cuts frames off that do not fit, as a read from an interface does, is found out,
  /// and the frame dropped.
  ///
  /// - Returns: false when there is no room, or `fill` gave zero: it has no frame.
  public mutating func put(fill: (SharedBytes, inout NetPacketMetadata) -> Int) -> Bool {
    guard let offset = offset(for: maxFrameByteCount + 1) else { return false }
    var metadata = NetPacketMetadata()
    let byteCount = fill(bytes.slice(from: offset, count: maxFrameByteCount + 1), &metadata)
    guard byteCount > 0 else { return false }
    _ = place(for: byteCount, metadata, at: offset)
    return true
  }

  @inline(__always) private mutating func place(for byteCount: Int, _ metadata: NetPacketMetadata) -> SharedBytes? {
    place(for: byteCount, metadata, at: offset(for: min(byteCount, maxFrameByteCount)))
  }

  /// - Parameter offset: nil when there is no room.
  @inline(__always) private mutating func place(
    for byteCount: Int, _ metadata: NetPacketMetadata, at offset: Int?
  ) -> SharedBytes? {
    guard byteCount >= NetIf.headerByteCount, byteCount <= maxFrameByteCount, let offset else {
      dropCount &+= 1
      return nil
    }
    places[wrapped(first &+ count)] = Place(
      offset: offset, byteCount: byteCount, arrival: now, metadata: metadata)
    count &+= 1
    end = offset &+ Self.rounded(byteCount)
    return bytes.slice(from: offset, count: byteCount)
  }

  /// Where a frame of this length may lie, in one piece; nil when nowhere.
  @inline(__always) private func offset(for byteCount: Int) -> Int? {
    guard count < capacity else { return nil }
    guard count > 0 else { return 0 }
    let start = places[first].offset
    let needed = Self.rounded(byteCount)
    // Round already: between the last frame and the first.
    if end <= start { return end &+ needed <= start ? end : nil }
    if end &+ needed <= bytes.count { return end }
    return needed <= start ? 0 : nil
  }

  /// A place, or one behind the last, where the line goes on at the first one. Division would be most of what a frame costs here.
  private func wrapped(_ place: Int) -> Int { place < capacity ? place : place &- capacity }

  /// Frames begin at multiples of a cache line.
  private static func rounded(_ byteCount: Int) -> Int { (byteCount &+ 63) & ~63 }

  /// Sets what the packet's hash is, of the frame that `index` others come before.
  mutating func setHash(_ hash: NetPacketMetadata.Hash?, at index: Int) {
    precondition(index >= 0 && index < count, "frame out of range")
    places[wrapped(first + index)].metadata.hash = hash
  }

  /// Forgets the first `count` frames.
  public mutating func removeFirst(_ count: Int = 1) {
    precondition(count >= 0 && count <= self.count, "more frames than there are")
    first = wrapped(first + count)
    self.count -= count
  }

  /// When the first frame was put; nil when there is none.
  var firstArrival: Uptime? { isEmpty ? nil : places[first].arrival }

  /// Drops and counts the frames that were put at `instant` or before.
  mutating func drop(arrivedBy instant: Uptime) {
    while let arrival = firstArrival, arrival <= instant {
      removeFirst()
      dropCount &+= 1
    }
  }
}
