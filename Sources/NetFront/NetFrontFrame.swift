import NetIf

/// A frame that has arrived, in pages that its backend can still write: copy it out once and look at the copy.
///
/// From a backend that the toolstack does not trust (`trusted`) it is such a copy already.
///
/// It lies in one piece for each slot that it came in. Not copyable, because it is valid only during the call that hands it
/// over.
@safe public struct NetFrontFrame: ~Copyable {
  /// Most frames have but one piece.
  private var first = SharedBytes.none
  /// Of all others, in memory of whoever puts the frame together; nil where there are none. Not an array's, which every frame would
  /// have to release.
  private let others: UnsafePointer<SharedBytes>?
  /// How many pieces there are: from one to ``NetIf/NetIf/maxFragmentCount``.
  public private(set) var fragmentCount = 0
  /// Of all of them: at least an Ethernet header's.
  public private(set) var byteCount = 0
  /// Who looks after its checksum, how it is to be cut, and its hash, as the backend says.
  public internal(set) var metadata = NetPacketMetadata()
  /// How many bytes before the first piece are in its page and hold nothing (`xdp-headroom`); zero unless asked for.
  public private(set) var headroomByteCount = 0
  /// Whether the sizes of the slots include the headroom, which each then begins with. That is how Linux's backend has it;
  /// the header, and Linux's frontend, have an offset.
  private var sizesIncludeHeadroom = false

  /// No frame yet.
  ///
  /// - Parameter others: has its pieces but the first one, as many as ``append(_:)`` has been told of; lives as long as the frame.
  @unsafe init(others: UnsafePointer<SharedBytes>) { unsafe self.others = others }

  /// Frames of one slot, one after the other.
  @inline(__always) init() { unsafe others = nil }

  /// The next one, in the place of the one before.
  @inline(__always) mutating func become(_ bytes: SharedBytes, _ checksum: NetPacketMetadata.Checksum) {
    (first, fragmentCount, byteCount) = (bytes, 1, bytes.count)
    metadata = NetPacketMetadata(checksum: checksum)
  }

  /// The frame in one piece.
  ///
  /// - Parameter bytes: as many as the frame has, with as much room before them.
  init(copyOf frame: borrowing NetFrontFrame, in bytes: SharedBytes) {
    (first, fragmentCount, byteCount) = (bytes, 1, bytes.count)
    unsafe others = nil
    (metadata, headroomByteCount) = (frame.metadata, frame.headroomByteCount)
  }

  /// A piece of the frame; they follow one another in order.
  ///
  /// - Precondition: `index` is below ``fragmentCount``.
  public subscript(index: Int) -> SharedBytes {
    precondition(index >= 0 && index < fragmentCount, "fragment out of range")
    if index == 0 { return first }
    guard let others = unsafe others else { preconditionFailure("a frame of several pieces has them somewhere") }
    // Safe: as many as there are pieces, but for the first.
    return unsafe others[index - 1]
  }

  /// Copies all bytes into `destination`, which must be at least as long.
  public func copy(to destination: inout MutableSpan<UInt8>) {
    precondition(destination.count >= byteCount, "destination too short")
    // Safe: the pieces have `byteCount` bytes together.
    unsafe destination.withUnsafeMutableBytes { bytes in
      if let start = bytes.baseAddress { unsafe copy(to: start) }
    }
  }

  /// A copy of the bytes, made once.
  public func copied() -> [UInt8] {
    // Safe: as in `copy`, and all of the array's bytes are set.
    unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { bytes, count in
      if let start = bytes.baseAddress { unsafe copy(to: start) }
      count = byteCount
    }
  }

  /// Copies all bytes to the start of `destination`.
  func copy(to destination: SharedBytes) {
    precondition(destination.count >= byteCount, "destination too short")
    // Safe: the pieces have `byteCount` bytes together.
    unsafe copy(to: destination.baseAddress)
  }

  private func copy(to start: UnsafeMutableRawPointer) {
    unsafe start.copyMemory(from: first.baseAddress, byteCount: first.count)
    var offset = first.count
    for index in 1..<max(1, fragmentCount) {
      let fragment = self[index]
      unsafe (start + offset).copyMemory(from: fragment.baseAddress, byteCount: fragment.count)
      offset += fragment.count
    }
  }

  /// The caller has seen that there is room for it, and has put it behind the others where it is not the first.
  mutating func append(_ fragment: SharedBytes) {
    if fragmentCount == 0 { first = fragment }
    fragmentCount += 1
    byteCount += fragment.count
  }

  /// Where in its page a fragment's bytes are; nil when it is shorter than the headroom that it says it has.
  func part(of page: SharedBytes, _ fragment: NetRxFragment) -> SharedBytes? {
    let skipped = sizesIncludeHeadroom && fragmentCount > 0 ? headroomByteCount : 0
    guard fragment.byteCount >= skipped else { return nil }
    return page.slice(from: fragment.offset + skipped, count: fragment.byteCount - skipped)
  }

  /// There is so much room before the first piece, which is all that has come of the frame so far.
  ///
  /// - Parameter offset: where in its page the piece begins.
  /// - Returns: false when there cannot be.
  mutating func setHeadroom(_ byteCount: Int, before offset: Int) -> Bool {
    headroomByteCount = byteCount
    guard offset < byteCount else { return true }
    guard offset == 0, byteCount <= first.count else { return false }
    sizesIncludeHeadroom = true
    first = first.slice(from: byteCount, count: first.count - byteCount)
    self.byteCount -= byteCount
    return true
  }

  mutating func removeAll() {
    (fragmentCount, byteCount, metadata) = (0, 0, NetPacketMetadata())
    (headroomByteCount, sizesIncludeHeadroom) = (0, false)
  }
}

extension NetFrameBatch {
  /// Copies a frame that has just arrived to the end; once.
  public mutating func append(_ frame: borrowing NetFrontFrame) {
    append(piecesOf: frame.metadata, count: frame.fragmentCount) { frame[$0] }
  }
}
