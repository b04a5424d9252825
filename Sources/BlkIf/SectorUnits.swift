/// What one sector is in each of the three places where a disk's two ends speak of sectors (io/blkif.h, note 9 on `sectors`,
/// and the comments on `sector_number` and `first_sect`).
///
/// The header says 512 bytes in all three whatever `sector-size` is, and Linux does so. Others differ, on a disk whose
/// sectors are larger; with 512-byte sectors all of these are the same.
public struct SectorUnits: Hashable, Sendable {
  public enum Unit: Hashable, Sendable {
    case bytes512
    /// The disk's own sector, as `sector-size` gives it.
    case sectorSize
  }

  /// Of the key `sectors`.
  public var sectors: Unit
  /// Of `sector_number` in every request, and of a discard's `nr_sectors`.
  public var sectorNumber: Unit
  /// Of `first_sect` and `last_sect` in every segment.
  public var firstSector: Unit

  public init(sectors: Unit, sectorNumber: Unit, firstSector: Unit) {
    (self.sectors, self.sectorNumber, self.firstSector) = (sectors, sectorNumber, firstSector)
  }

  /// As the header has it.
  public static let standard = SectorUnits(sectors: .bytes512, sectorNumber: .bytes512, firstSector: .bytes512)
  public static let freeBSD = SectorUnits(sectors: .sectorSize, sectorNumber: .sectorSize, firstSector: .bytes512)
  public static let miniOS = SectorUnits(sectors: .sectorSize, sectorNumber: .bytes512, firstSector: .bytes512)
  public static let tapdisk = SectorUnits(sectors: .bytes512, sectorNumber: .sectorSize, firstSector: .bytes512)
  /// As QEMU and the Windows drivers have it.
  public static let sectorSize = SectorUnits(sectors: .sectorSize, sectorNumber: .sectorSize, firstSector: .sectorSize)
}

extension BlockGeometry {
  /// How many 512-byte sectors such a unit is: 1 to 8.
  public func sectorsPer(_ unit: SectorUnits.Unit) -> UInt64 {
    switch unit {
    case .bytes512: 1
    case .sectorSize: UInt64(sectorByteCount / 512)
    }
  }
}
