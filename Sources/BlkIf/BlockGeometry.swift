/// What a disk is like.
public struct BlockGeometry: Hashable, Sendable {
  /// In 512-byte sectors, whatever ``sectorByteCount`` is.
  public var sectorCount: UInt64
  /// The smallest unit that may be read or written: a power of two from 512 to 4096.
  public var sectorByteCount: UInt32
  /// The unit that the medium works in: a power of two from ``sectorByteCount`` up.
  public var physicalSectorByteCount: UInt32
  public var isReadOnly: Bool
  public var isRemovable: Bool
  public var isCDROM: Bool

  /// - Precondition: the two sizes are such powers of two, and the disk is whole sectors.
  public init(
    sectorCount: UInt64, sectorByteCount: UInt32 = 512, physicalSectorByteCount: UInt32? = nil,
    isReadOnly: Bool = false,
    isRemovable: Bool = false, isCDROM: Bool = false
  ) {
    let physical = physicalSectorByteCount ?? sectorByteCount
    precondition(Self.isValid(sectorCount: sectorCount, sectorByteCount, physical: physical), "a disk of whole sectors")
    self.sectorCount = sectorCount
    self.sectorByteCount = sectorByteCount
    self.physicalSectorByteCount = physical
    self.isReadOnly = isReadOnly
    self.isRemovable = isRemovable
    self.isCDROM = isCDROM
  }

  static func isValid(sectorCount: UInt64, _ sectorByteCount: UInt32, physical: UInt32) -> Bool {
    sectorByteCount.nonzeroBitCount == 1 && sectorByteCount >= 512 && sectorByteCount <= 4096
      && physical.nonzeroBitCount == 1 && physical >= sectorByteCount
      && sectorCount % UInt64(sectorByteCount / 512) == 0 && sectorCount <= UInt64.max / 512
  }

  /// Whether `count` sectors from `sector` on lie on the disk, both numbers being anybody's.
  public func contains(sector: UInt64, count: UInt64) -> Bool {
    let (end, overflow) = sector.addingReportingOverflow(count)
    return !overflow && end <= sectorCount
  }

  /// Whether both numbers are multiples of the disk's own sector.
  public func isAligned(sector: UInt64, count: UInt64) -> Bool {
    let unit = UInt64(sectorByteCount / 512)
    return sector % unit == 0 && count % unit == 0
  }

  /// The keys that a backend writes with Connected (io/blkif.h, `sectors`, `sector-size`, `physical-sector-size`, `info`).
  public var entries: [StoreEntry] {
    let info =
      (isCDROM ? BlkIf.Info.cdrom : 0) | (isRemovable ? BlkIf.Info.removable : 0)
      | (isReadOnly ? BlkIf.Info.readOnly : 0)
    return [
      StoreEntry("sectors", sectorCount), StoreEntry("sector-size", sectorByteCount),
      StoreEntry("physical-sector-size", physicalSectorByteCount), StoreEntry("info", info),
    ]
  }

  /// Reads what a backend wrote: the gate for these keys.
  public init(from backend: StoreDirectory) throws(DeviceError) {
    let sectorCount = try backend.number("sectors", as: UInt64.self)
    let size = try backend.optionalNumber("sector-size", as: UInt32.self) ?? 512
    let physical = try backend.optionalNumber("physical-sector-size", as: UInt32.self) ?? size
    let info = try backend.optionalNumber("info", as: UInt32.self) ?? 0
    guard Self.isValid(sectorCount: sectorCount, size, physical: physical) else {
      throw .malformedKey(
        path: backend.path(of: "sector-size"),
        value: "\(size), sectors \(sectorCount), physical-sector-size \(physical)",
        expected: "a power of two from 512 to 4096 that divides the disk")
    }
    self.init(
      sectorCount: sectorCount, sectorByteCount: size, physicalSectorByteCount: physical,
      isReadOnly: info & BlkIf.Info.readOnly != 0, isRemovable: info & BlkIf.Info.removable != 0,
      isCDROM: info & BlkIf.Info.cdrom != 0)
  }
}
