import NetIf

/// Frames one behind the other in memory that is ours alone.
public struct NetFrameBatch: RandomAccessCollection, Hashable, Sendable, ExpressibleByArrayLiteral {
  private var bytes: [UInt8] = []
  /// Where each frame ends.
  private var ends: [Int] = []
  /// Of each frame.
  private var metadata: [NetPacketMetadata] = []

  public init() {}

  /// An empty one with room for as much as `other` has.
  init(capacityOf other: NetFrameBatch) {
    bytes.reserveCapacity(other.bytes.count)
    ends.reserveCapacity(other.ends.count)
    metadata.reserveCapacity(other.ends.count)
  }

  public init(arrayLiteral frames: [UInt8]...) { for frame in frames { append(frame.span) } }

  public var startIndex: Int { 0 }
  public var endIndex: Int { ends.count }
  /// Of all frames together.
  public var byteCount: Int { bytes.count }

  public subscript(index: Int) -> ArraySlice<UInt8> { bytes[(index == 0 ? 0 : ends[index - 1])..<ends[index]] }

  /// What goes with the frame that `index` others come before.
  public func metadata(at index: Int) -> NetPacketMetadata { metadata[index] }

  /// Copies a frame to the end.
  public mutating func append(_ frame: Span<UInt8>, _ metadata: NetPacketMetadata = NetPacketMetadata()) {
    // Safe: the span is valid during the call.
    unsafe frame.withUnsafeBytes { unsafe bytes.append(contentsOf: $0) }
    ends.append(bytes.count)
    self.metadata.append(metadata)
  }

  /// Copies a frame that has just arrived to the end; once.
  public mutating func append(_ frame: borrowing NetFrontFrame) {
    for index in 0..<frame.fragmentCount {
      let fragment = frame[index]
      // Safe: the frame is valid during the call. What its backend writes meanwhile is in the copy or is not.
      unsafe bytes.append(contentsOf: UnsafeRawBufferPointer(start: fragment.baseAddress, count: fragment.count))
    }
    ends.append(bytes.count)
    metadata.append(frame.metadata)
  }

  /// Forgets the frames, and keeps their memory.
  mutating func removeAll() {
    bytes.removeAll(keepingCapacity: true)
    ends.removeAll(keepingCapacity: true)
    metadata.removeAll(keepingCapacity: true)
  }
}
