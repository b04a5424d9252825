import SystemPackage

/// Reads a capture file packet by packet: with microseconds or nanoseconds, of either byte order.
public struct PcapReader: ~Copyable, Sendable {
  private struct Header {
    let snapByteCount: Int
    let linkType: PcapLinkType
    let hasNanoseconds: Bool
    let isSwapped: Bool
  }

  private let path: FilePath
  private let descriptor: FileDescriptor
  private let header: Header
  private var packetCount = 0

  public var linkType: PcapLinkType { header.linkType }
  /// How much of each packet was kept at most, in bytes, as the file says.
  public var snapByteCount: Int { header.snapByteCount }
  public var hasNanoseconds: Bool { header.hasNanoseconds }

  /// - Throws: ``PcapError``, each naming the file.
  public init(path: FilePath) throws(PcapError) {
    let descriptor: FileDescriptor
    do { descriptor = try FileDescriptor.open(path, .readOnly, options: .closeOnExec) } catch {
      throw .cannotOpen(path, (error as? Errno) ?? .ioError)
    }
    let header: Header
    do throws(PcapError) { header = try Self.header(descriptor, path) } catch {
      try? descriptor.close()
      throw error
    }
    self.path = path
    self.descriptor = descriptor
    self.header = header
  }

  private static func header(_ descriptor: FileDescriptor, _ path: FilePath) throws(PcapError) -> Header {
    let bytes = try read(descriptor, path, PcapFormat.fileHeaderByteCount)
    // Of a file too short to have a magic number, its length says more.
    guard bytes.count >= 4 else { throw .truncatedHeader(path, byteCount: bytes.count) }
    let magic = number(bytes, 0, 4, swapped: false)
    let (hasNanoseconds, isSwapped): (Bool, Bool)
    switch magic {
    case PcapFormat.microsecondMagic: (hasNanoseconds, isSwapped) = (false, false)
    case PcapFormat.nanosecondMagic: (hasNanoseconds, isSwapped) = (true, false)
    case PcapFormat.microsecondMagic.byteSwapped: (hasNanoseconds, isSwapped) = (false, true)
    case PcapFormat.nanosecondMagic.byteSwapped: (hasNanoseconds, isSwapped) = (true, true)
    default: throw .notACapture(path, magic: magic)
    }
    guard bytes.count == PcapFormat.fileHeaderByteCount else { throw .truncatedHeader(path, byteCount: bytes.count) }
    let major = UInt16(truncatingIfNeeded: number(bytes, 4, 2, swapped: isSwapped))
    let minor = UInt16(truncatingIfNeeded: number(bytes, 6, 2, swapped: isSwapped))
    guard major == PcapFormat.majorVersion, minor == PcapFormat.minorVersion else {
      throw .unknownVersion(path, major: major, minor: minor)
    }
    return Header(
      snapByteCount: Int(number(bytes, 16, 4, swapped: isSwapped)),
      // The upper bits say how long the frames' checksums are.
      linkType: PcapLinkType(rawValue: number(bytes, 20, 4, swapped: isSwapped) & 0xFFFF),
      hasNanoseconds: hasNanoseconds, isSwapped: isSwapped)
  }

  deinit { try? descriptor.close() }

  /// The next packet; nil at the end of the file.
  ///
  /// - Throws: ``PcapError``; nothing more can be read then.
  public mutating func next() throws(PcapError) -> PcapPacket? {
    let record = try Self.read(descriptor, path, PcapFormat.recordHeaderByteCount)
    if record.isEmpty { return nil }
    packetCount += 1
    guard record.count == PcapFormat.recordHeaderByteCount else { throw .truncatedPacket(path, packet: packetCount) }
    let field = { [header] in Self.number(record, $0, 4, swapped: header.isSwapped) }
    let (seconds, fraction, byteCount) = (UInt64(field(0)), UInt64(field(4)), field(8))
    guard byteCount <= PcapFormat.maxByteCount else {
      throw .absurdLength(path, packet: packetCount, byteCount: byteCount, limit: PcapFormat.maxByteCount)
    }
    let bytes = try Self.read(descriptor, path, Int(byteCount))
    guard bytes.count == Int(byteCount) else { throw .truncatedPacket(path, packet: packetCount) }
    // All factors come from 32 bits, so that the sum fits.
    return PcapPacket(
      nanoseconds: seconds * 1_000_000_000 + fraction * (hasNanoseconds ? 1 : 1000), bytes: bytes,
      originalByteCount: Int(field(12)))
  }

  /// As many bytes as asked for, or those that are left.
  private static func read(
    _ descriptor: FileDescriptor, _ path: FilePath, _ byteCount: Int
  ) throws(PcapError) -> [UInt8] {
    do {
      return try unsafe [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, filled in
        filled = 0
        while filled < byteCount {
          // Safe: the rest of a buffer that is as long as what is asked for.
          let count = try unsafe descriptor.read(
            into: UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[filled..<byteCount]))
          if count == 0 { return }
          filled += count
        }
      }
    } catch { throw .cannotRead(path, (error as? Errno) ?? .ioError) }
  }

  /// Two or four bytes from `offset` on, as a number of the file's byte order.
  private static func number(_ bytes: [UInt8], _ offset: Int, _ byteCount: Int, swapped: Bool) -> UInt32 {
    var number: UInt32 = 0
    for index in 0..<byteCount {
      let place = swapped ? byteCount - 1 - index : index
      number |= UInt32(bytes[offset + index]) << (8 * UInt32(place))
    }
    return number
  }
}
