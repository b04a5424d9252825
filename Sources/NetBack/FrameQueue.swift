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
  @inlinable public var count: Int { storedCount }
  @usableFromInline var storedCount = 0
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
  /// The place behind the last.
  private var next = 0
  /// Where the last frame ends, and up to where nothing lies behind it: up to the first frame when the line has gone round, else to the
  /// memory's end.
  @usableFromInline var end = 0
  @usableFromInline var limit: Int

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
    limit = bytes.count
    places = PlainArray(repeating: Place(), count: capacity)
  }

  @inlinable public var isEmpty: Bool { count == 0 }

  /// Whether there is room for a frame of any length, also by ``put(fill:)``.
  public var hasRoom: Bool { count < capacity && hasPlace(for: Self.rounded(maxFrameByteCount + 1)) }

  /// Whether a frame so long would not be dropped for want of room. One that is longer than any is dropped anyway.
  // Inlined where it is called, as all that it takes: else whoever puts frames would have all of us copied for each one, and read there
  // what has just been written.
  @inlinable public func hasRoom(for byteCount: Int) -> Bool {
    count < capacity && hasPlace(for: Self.rounded(min(byteCount, maxFrameByteCount)))
  }

  /// The frame that `index` others come before. Valid until it is removed.
  ///
  /// - Precondition: `index` is below ``count``.
  public subscript(index: Int) -> NetworkFrame {
    precondition(index >= 0 && index < count, "frame out of range")
    let place = places[wrapped(first &+ index)]
    // Safe: so many bytes were there when it was put, and are its own until it is removed.
    let frame = unsafe SharedBytes(baseAddress: bytes.baseAddress + place.offset, count: place.byteCount)
    return NetworkFrame(frame, place.metadata)
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
    guard count < capacity, hasPlace(for: Self.rounded(maxFrameByteCount + 1)) else { return false }
    findPlace(for: Self.rounded(maxFrameByteCount + 1))
    var metadata = NetPacketMetadata()
    let byteCount = fill(bytes.slice(from: end, count: maxFrameByteCount + 1), &metadata)
    guard byteCount > 0 else { return false }
    _ = place(for: byteCount, metadata)
    return true
  }

  /// Where a frame of this length is to be copied, as the line's last; nil when it is dropped.
  @inline(__always) private mutating func place(for byteCount: Int, _ metadata: NetPacketMetadata) -> SharedBytes? {
    guard byteCount >= NetIf.headerByteCount, byteCount <= maxFrameByteCount, count < capacity,
      hasPlace(for: Self.rounded(byteCount))
    else {
      dropCount &+= 1
      return nil
    }
    findPlace(for: Self.rounded(byteCount))
    places[next] = Place(offset: end, byteCount: byteCount, arrival: now, metadata: metadata)
    next = wrapped(next &+ 1)
    storedCount &+= 1
    // Safe: so many bytes are there, as just seen.
    let place = unsafe SharedBytes(baseAddress: bytes.baseAddress + end, count: byteCount)
    end &+= Self.rounded(byteCount)
    return place
  }

  /// Whether so many bytes are free in one piece: behind the last frame, or before the first where the line has not gone round yet.
  @inlinable @inline(__always) func hasPlace(for byteCount: Int) -> Bool {
    end &+ byteCount <= limit || hasPlaceBefore(byteCount)
  }

  @usableFromInline func hasPlaceBefore(_ byteCount: Int) -> Bool {
    limit == bytes.count && count > 0 && byteCount <= places[first].offset
  }

  /// Has the next frame lie where there is such a place: at the end, or at the beginning of the memory.
  @inline(__always) private mutating func findPlace(for byteCount: Int) {
    if end &+ byteCount > limit { (end, limit) = (0, places[first].offset) }
  }

  /// A place, or one behind the last, where the line goes on at the first one. Division would be most of what a frame costs here.
  private func wrapped(_ place: Int) -> Int { place < capacity ? place : place &- capacity }

  /// Frames begin at multiples of a cache line.
  @inlinable static func rounded(_ byteCount: Int) -> Int { (byteCount &+ 63) & ~63 }

  /// Sets what the packet's hash is, of the frame that `index` others come before.
  mutating func setHash(_ hash: NetPacketMetadata.Hash?, at index: Int) {
    precondition(index >= 0 && index < count, "frame out of range")
    places[wrapped(first + index)].metadata.hash = hash
  }

  /// Forgets the first `count` frames.
  public mutating func removeFirst(_ count: Int = 1) {
    precondition(count >= 0 && count <= self.count, "more frames than there are")
    first = wrapped(first &+ count)
    storedCount &-= count
    if isEmpty { end = 0 }
    // What lay behind the last one, and was first, is gone; or the line has come to where it went round.
    if !isEmpty, places[first].offset >= end { limit = places[first].offset } else { limit = bytes.count }
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
