import NetIf

/// A frame that has arrived, in pages that its backend can still write: copy it out once and look at the copy.
///
/// It lies in one piece for each slot that it came in. Not copyable, because it is valid only during the call that hands it
/// over.
public struct NetFrontFrame: ~Copyable {
  /// Most frames have but one piece.
  private var first = SharedBytes.none
  private var others: [SharedBytes] = []
  /// How many pieces there are: from one to ``NetIf/NetIf/maxFragmentCount``.
  public private(set) var fragmentCount = 0
  /// Of all of them: at least an Ethernet header's.
  public private(set) var byteCount = 0
  /// Who looks after its checksum, how it is to be cut, and its hash, as the backend says.
  public internal(set) var metadata = NetPacketMetadata()

  init() { others.reserveCapacity(NetIf.maxFragmentCount) }

  /// A piece of the frame; they follow one another in order.
  ///
  /// - Precondition: `index` is below ``fragmentCount``.
  public subscript(index: Int) -> SharedBytes {
    precondition(index >= 0 && index < fragmentCount, "fragment out of range")
    return index == 0 ? first : others[index - 1]
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

  private func copy(to start: UnsafeMutableRawPointer) {
    unsafe start.copyMemory(from: first.baseAddress, byteCount: first.count)
    var offset = first.count
    for fragment in others {
      unsafe (start + offset).copyMemory(from: fragment.baseAddress, byteCount: fragment.count)
      offset += fragment.count
    }
  }

  /// The caller has seen that there is room for it.
  mutating func append(_ fragment: SharedBytes) {
    if fragmentCount == 0 { first = fragment } else { others.append(fragment) }
    fragmentCount += 1
    byteCount += fragment.count
  }

  mutating func removeAll() {
    if fragmentCount > 1 { others.removeAll(keepingCapacity: true) }
    (fragmentCount, byteCount, metadata) = (0, 0, NetPacketMetadata())
  }
}
