/// Frames one behind the other in memory that is ours alone.
public struct NetFrameBatch: RandomAccessCollection, Hashable, Sendable, ExpressibleByArrayLiteral {
  private var bytes: [UInt8] = []
  /// Where each frame ends.
  private var ends: [Int] = []

  public init() {}

  /// An empty one with room for as much as `other` has.
  init(capacityOf other: NetFrameBatch) {
    bytes.reserveCapacity(other.bytes.count)
    ends.reserveCapacity(other.ends.count)
  }

  public init(arrayLiteral frames: [UInt8]...) { for frame in frames { append(frame.span) } }

  public var startIndex: Int { 0 }
  public var endIndex: Int { ends.count }
  /// Of all frames together.
  public var byteCount: Int { bytes.count }

  public subscript(index: Int) -> ArraySlice<UInt8> { bytes[(index == 0 ? 0 : ends[index - 1])..<ends[index]] }

  /// Copies a frame to the end.
  public mutating func append(_ frame: Span<UInt8>) {
    // Safe: the span is valid during the call.
    unsafe frame.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
    ends.append(bytes.count)
  }

  /// Copies a frame that has just arrived to the end; once.
  public mutating func append(_ frame: borrowing NetFrontFrame) {
    for index in 0..<frame.fragmentCount {
      let fragment = frame[index]
      // Safe: the frame is valid during the call. What its backend writes meanwhile is in the copy or is not.
      unsafe bytes.append(contentsOf: UnsafeRawBufferPointer(start: fragment.baseAddress, count: fragment.count))
    }
    ends.append(bytes.count)
  }

  /// Forgets the frames, and keeps their memory.
  mutating func removeAll() {
    bytes.removeAll(keepingCapacity: true)
    ends.removeAll(keepingCapacity: true)
  }
}
