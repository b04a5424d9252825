import SystemPackage

/// Writes a capture file, with nanoseconds.
///
/// Packets are gathered in memory, which does not grow, and reach the file when that is full, on ``flush()``, and at the
/// end.
public struct PcapWriter: ~Copyable, Sendable {
  /// How much of each packet is kept at most, in bytes.
  public let snapByteCount: Int
  private let path: FilePath
  private let descriptor: FileDescriptor
  private var gathered: [UInt8] = []

  private static let gatheredByteCount = 65_536

  /// Makes the file, in place of one that is there.
  ///
  /// - Parameter snapByteCount: positive, at most 262144.
  /// - Throws: ``PcapError``, naming the file.
  public init(
    path: FilePath, linkType: PcapLinkType = .ethernet, snapByteCount: Int = 65_535
  ) throws(PcapError) {
    precondition(snapByteCount > 0 && snapByteCount <= PcapFormat.maxByteCount, "no such length of a packet")
    self.path = path
    self.snapByteCount = snapByteCount
    do {
      descriptor = try FileDescriptor.open(
        path, .writeOnly, options: [.create, .truncate, .closeOnExec], permissions: [.ownerReadWrite, .groupRead])
    } catch { throw .cannotOpen(path, (error as? Errno) ?? .ioError) }
    gathered.reserveCapacity(Self.gatheredByteCount + PcapFormat.recordHeaderByteCount + snapByteCount)
    append(PcapFormat.nanosecondMagic)
    append(UInt32(PcapFormat.majorVersion) | UInt32(PcapFormat.minorVersion) << 16)
    append(0)
    append(0)
    append(UInt32(snapByteCount))
    append(linkType.rawValue)
  }

  deinit {
    // A failure has nobody left to hear of it.
    _ = try? unsafe gathered.withUnsafeBytes { unsafe try descriptor.writeAll($0) }
    try? descriptor.close()
  }

  /// Adds a packet.
  ///
  /// - Parameter nanoseconds: since the beginning of 1970, UTC.
  public mutating func write(_ bytes: Span<UInt8>, nanoseconds: UInt64) throws(PcapError) {
    let kept = min(bytes.count, snapByteCount)
    // The format has 32 bits for the seconds.
    append(UInt32(truncatingIfNeeded: nanoseconds / 1_000_000_000))
    append(UInt32(nanoseconds % 1_000_000_000))
    append(UInt32(kept))
    append(UInt32(clamping: bytes.count))
    // Safe: the bytes are lent for the length of the call.
    unsafe bytes.extracting(first: kept).withUnsafeBufferPointer { unsafe gathered.append(contentsOf: $0) }
    if gathered.count >= Self.gatheredByteCount { try flush() }
  }

  /// Has everything so far in the file.
  ///
  /// - Throws: ``PcapError/cannotWrite(_:_:)``; what was gathered is then lost.
  public mutating func flush() throws(PcapError) {
    defer { gathered.removeAll(keepingCapacity: true) }
    do {
      // Safe: the bytes are our own, for the length of the call.
      _ = try unsafe gathered.withUnsafeBytes { unsafe try descriptor.writeAll($0) }
    } catch { throw .cannotWrite(path, (error as? Errno) ?? .ioError) }
  }

  /// In little-endian order.
  private mutating func append(_ number: UInt32) {
    for shift in stride(from: UInt32(0), to: 32, by: 8) { gathered.append(UInt8(truncatingIfNeeded: number >> shift)) }
  }
}
