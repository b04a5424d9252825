/// A disk that is read and written in whole sectors.
public protocol SectorDisk: Sendable {
  /// The smallest unit and alignment, in bytes: a power of two.
  var sectorByteCount: Int { get }

  /// - Parameters:
  ///   - offset: in bytes, a multiple of ``sectorByteCount``, as the count is.
  func read(at offset: UInt64, byteCount: Int) async throws -> [UInt8]
  func write(at offset: UInt64, _ bytes: [UInt8]) async throws
  /// Returns when all writes that had returned before are on the medium.
  func flush() async throws
}

/// Makes every byte of a disk of sectors addressable.
///
/// A write of part of a sector reads the sector, changes the part and writes it back. Meanwhile no other write gets at that
/// sector, so that neither loses what the other has written.
public struct ByteDisk<Disk: SectorDisk>: Sendable {
  private let disk: Disk
  private let locks = RangeLocks()

  public init(_ disk: Disk) { self.disk = disk }

  /// - Parameter byteCount: positive.
  public func read(at offset: UInt64, byteCount: Int) async throws -> [UInt8] {
    let sectors = sectors(around: offset, byteCount)
    let bytes = try await disk.read(at: sectors.lowerBound, byteCount: sectors.count)
    guard bytes.count != byteCount else { return bytes }
    let start = Int(offset - sectors.lowerBound)
    return Array(bytes[start..<start + byteCount])
  }

  /// - Parameters:
  ///   - bytes: at least one.
  ///   - isDurable: whether to return only when they are on the medium.
  public func write(at offset: UInt64, _ bytes: [UInt8], isDurable: Bool) async throws {
    let sectors = sectors(around: offset, bytes.count)
    let isWhole = sectors.count == bytes.count
    try await locks.holding(sectors, alone: !isWhole) {
      try await disk.write(at: sectors.lowerBound, isWhole ? bytes : completed(bytes, at: offset, sectors))
    }
    if isDurable { try await disk.flush() }
  }

  public func flush() async throws { try await disk.flush() }

  /// The bytes with what lies beside them in the first and last sector.
  private func completed(_ bytes: [UInt8], at offset: UInt64, _ sectors: Range<UInt64>) async throws -> [UInt8] {
    let before = Int(offset - sectors.lowerBound)
    let after = sectors.count - before - bytes.count
    let size = disk.sectorByteCount
    let first =
      before > 0 || sectors.count == size ? try await disk.read(at: sectors.lowerBound, byteCount: size) : []
    let last =
      sectors.count == size
      ? first : after > 0 ? try await disk.read(at: sectors.upperBound - UInt64(size), byteCount: size) : []
    return first.prefix(before) + bytes + last.suffix(after)
  }

  private func sectors(around offset: UInt64, _ byteCount: Int) -> Range<UInt64> {
    let mask = UInt64(disk.sectorByteCount - 1)
    return offset & ~mask..<(offset + UInt64(byteCount) + mask) & ~mask
  }
}
