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
  /// Nil when the disk cannot discard.
  public var discard: DiscardLimits?

  /// - Precondition: the two sizes are such powers of two, and the disk is whole sectors.
  public init(
    sectorCount: UInt64, sectorByteCount: UInt32 = 512, physicalSectorByteCount: UInt32? = nil,
    isReadOnly: Bool = false, isRemovable: Bool = false, isCDROM: Bool = false, discard: DiscardLimits? = nil
  ) {
    let physical = physicalSectorByteCount ?? sectorByteCount
    precondition(Self.isValid(sectorCount: sectorCount, sectorByteCount, physical: physical), "a disk of whole sectors")
    self.sectorCount = sectorCount
    self.sectorByteCount = sectorByteCount
    self.physicalSectorByteCount = physical
    self.isReadOnly = isReadOnly
    self.isRemovable = isRemovable
    self.isCDROM = isCDROM
    self.discard = discard
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

  /// The keys that a backend writes with Connected (io/blkif.h, `sectors`, `sector-size`, `physical-sector-size`, `info`,
  /// `feature-discard` and what belongs to it).
  public var entries: [StoreEntry] { entries(in: .standard) }

  /// The same for ends that count sectors in other units.
  public func entries(in units: SectorUnits) -> [StoreEntry] {
    let info =
      (isCDROM ? BlkIf.Info.cdrom : 0) | (isRemovable ? BlkIf.Info.removable : 0)
      | (isReadOnly ? BlkIf.Info.readOnly : 0)
    return [
      StoreEntry("sectors", sectorCount / sectorsPer(units.sectors)), StoreEntry("sector-size", sectorByteCount),
      StoreEntry("physical-sector-size", physicalSectorByteCount), StoreEntry("info", info),
      StoreEntry("feature-discard", discard != nil),
    ] + (discard?.entries ?? [])
  }

  /// Reads what a backend wrote: the gate for these keys.
  ///
  /// - Parameter units: in which it counts `sectors`.
  public init(from backend: StoreDirectory, in units: SectorUnits = .standard) throws(DeviceError) {
    let count = try backend.number("sectors", as: UInt64.self)
    let size = try backend.optionalNumber("sector-size", as: UInt32.self) ?? 512
    // A size that is none is refused below.
    let (sectorCount, overflow) = count.multipliedReportingOverflow(
      by: units.sectors == .sectorSize ? UInt64(size / 512) : 1)
    let physical = try backend.optionalNumber("physical-sector-size", as: UInt32.self) ?? size
    let info = try backend.optionalNumber("info", as: UInt32.self) ?? 0
    guard !overflow, Self.isValid(sectorCount: sectorCount, size, physical: physical) else {
      throw .malformedKey(
        path: backend.path(of: "sector-size"),
        value: "\(size), sectors \(count), physical-sector-size \(physical)",
        expected: "a power of two from 512 to 4096 that divides the disk")
    }
    self.init(
      sectorCount: sectorCount, sectorByteCount: size, physicalSectorByteCount: physical,
      isReadOnly: info & BlkIf.Info.readOnly != 0, isRemovable: info & BlkIf.Info.removable != 0,
      isCDROM: info & BlkIf.Info.cdrom != 0, discard: try DiscardLimits(from: backend, sectorByteCount: size))
  }
}

/// How a disk discards (io/blkif.h, `discard-granularity`, `discard-alignment`, `discard-secure`). Both numbers are what
/// discards best keep to; any whole sectors may be discarded.
public struct DiscardLimits: Hashable, Sendable {
  /// In bytes: the unit that the medium gives back in; positive.
  public var granularity: UInt32
  /// In bytes from the disk's start: where the first such unit begins.
  public var alignment: UInt32
  /// Whether what a discard is to make unrecoverable is (`BLKIF_DISCARD_SECURE`).
  public var isSecure: Bool

  /// - Precondition: `granularity` is positive.
  public init(granularity: UInt32, alignment: UInt32 = 0, isSecure: Bool = false) {
    precondition(granularity > 0, "a disk discards some bytes at a time")
    (self.granularity, self.alignment, self.isSecure) = (granularity, alignment, isSecure)
  }

  var entries: [StoreEntry] {
    [
      StoreEntry("discard-granularity", granularity), StoreEntry("discard-alignment", alignment),
      StoreEntry("discard-secure", isSecure),
    ]
  }

  /// Reads what a backend wrote: the gate for these keys. Nil when it does not offer to discard.
  init?(from backend: StoreDirectory, sectorByteCount: UInt32) throws(DeviceError) {
    guard try backend.flag("feature-discard") else { return nil }
    let granularity = try backend.optionalNumber("discard-granularity", as: UInt32.self) ?? 0
    self.init(
      // The header's own value where the key is missing.
      granularity: granularity > 0 ? granularity : sectorByteCount,
      alignment: try backend.optionalNumber("discard-alignment", as: UInt32.self) ?? 0,
      isSecure: try backend.flag("discard-secure"))
  }
}
