import XenPlatform

/// Frames one behind the other in memory that is ours alone.
public struct NetFrameBatch: RandomAccessCollection, Hashable, Sendable, ExpressibleByArrayLiteral {
  private var bytes: [UInt8] = []
  /// Where each frame ends.
  private var ends: [Int] = []
  /// Of each frame.
  private var metadata: [NetPacketMetadata] = []

  public init() {}

  /// An empty one with room for as much as `other` has.
  package init(capacityOf other: NetFrameBatch) { reserveCapacity(count: other.count, byteCount: other.byteCount) }

  /// Allocates room for so many frames of so many bytes together.
  package mutating func reserveCapacity(count: Int, byteCount: Int) {
    bytes.reserveCapacity(byteCount)
    ends.reserveCapacity(count)
    metadata.reserveCapacity(count)
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

  /// Copies a frame that lies in pieces to the end; each byte once. What a peer writes meanwhile is in the copy or is not.
  package mutating func append(
    piecesOf metadata: NetPacketMetadata, count: Int, _ piece: (Int) -> SharedBytes
  ) {
    for index in 0..<count {
      let bytes = piece(index)
      // Safe: the piece is valid during the call.
      unsafe self.bytes.append(contentsOf: UnsafeRawBufferPointer(start: bytes.baseAddress, count: bytes.count))
    }
    ends.append(self.bytes.count)
    self.metadata.append(metadata)
  }

  /// Forgets the frames, and keeps their memory.
  package mutating func removeAll() {
    bytes.removeAll(keepingCapacity: true)
    ends.removeAll(keepingCapacity: true)
    metadata.removeAll(keepingCapacity: true)
  }
}
