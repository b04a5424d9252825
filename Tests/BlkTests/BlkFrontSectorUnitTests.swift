import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// B18: who says what in which unit, on disks with larger sectors than 512 bytes.
struct BlkFrontSectorUnitTests {
  struct Row: CustomTestStringConvertible, Sendable {
    let name: String
    let units: SectorUnits
    /// For a disk of 800 sectors of 512 bytes in 4096, and a request of 8192 bytes from the 16th of them on: `sectors`,
    /// `sector_number`, `last_sect`, a discard's `nr_sectors`.
    let numbers: [UInt64]

    var testDescription: String { name }
  }

  static let rows = [
    Row(name: "the header and Linux", units: .standard, numbers: [800, 16, 7, 16]),
    Row(name: "FreeBSD", units: .freeBSD, numbers: [100, 2, 7, 2]),
    Row(name: "MiniOS", units: .miniOS, numbers: [100, 16, 7, 16]),
    Row(name: "tapdisk", units: .tapdisk, numbers: [800, 2, 7, 2]),
    Row(name: "QEMU and Windows", units: .sectorSize, numbers: [100, 2, 0, 2]),
  ]

  private func disk(_ units: SectorUnits, _ layout: BlkProtocol = .native) -> BlkFrontDevice {
    var options = BlkFrontOptions(layout: layout)
    options.sectorUnits = units
    return BlkFrontDevice(options)
  }

  @Test(arguments: rows)
  func eachQuantityIsInItsUnit(row: Row) throws {
    let disk = disk(row.units)
    let backend = ManyRingsBackend()
    backend.geometry = BlockGeometry(
      sectorCount: 800, sectorByteCount: 4096, discard: DiscardLimits(granularity: 4096))
    backend.keys = [
      StoreEntry("sectors", row.numbers[0]), StoreEntry("feature-max-indirect-segments", 32),
    ]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    #expect(disk.geometry?.sectorCount == 800)
    try disk.read(sector: 16, byteCount: 8192, tag: 1)
    try disk.discard(sector: 16, sectorCount: 16, tag: 2)
    try disk.read(sector: 16, byteCount: 12 * 4096, tag: 3)
    disk.push()
    let requests = try backend.requests()[0]
    #expect(requests[0].sectorNumber == row.numbers[1])
    for index in 0..<2 {
      #expect(requests[0].segments[index].firstSector == 0)
      #expect(UInt64(requests[0].segments[index].lastSector) == row.numbers[2])
    }
    #expect(requests[1].discard.sectorNumber == row.numbers[1] && requests[1].discard.sectorCount == row.numbers[3])
    #expect(requests[2].indirect.sectorNumber == row.numbers[1])
    let descriptors = try backend.bytes(of: requests[2].indirect.references[0])
    #expect((0..<12).allSatisfy { UInt64(descriptors[$0 * 8 + 5]) == row.numbers[2] && descriptors[$0 * 8 + 4] == 0 })
    // The other end rewrites its size in its unit, too.
    try backend.device!.write([StoreEntry("sectors", row.numbers[0] * 2), StoreEntry("state", 4)])
    #expect(pair.scheduler.run { disk.geometry?.sectorCount == 1600 })
  }

  @Test(arguments: rows)
  func withSectorsOf512BytesAllAreTheSame(row: Row) throws {
    let disk = disk(row.units)
    let backend = ManyRingsBackend()
    backend.geometry = BlockGeometry(sectorCount: 800)
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    try disk.read(sector: 17, byteCount: 1024, tag: 1)
    disk.push()
    let request = try backend.requests()[0][0]
    #expect(disk.geometry?.sectorCount == 800 && request.sectorNumber == 17 && request.segments[0].lastSector == 1)
  }

  @Test(arguments: rows, [1024, 2048, 4096] as [UInt32])
  func bothOurEndsAgreeInEveryUnit(row: Row, sectorByteCount: UInt32) throws {
    for layout in BlkProtocol.allCases {
      let disk = disk(row.units, layout)
      let store = RecordingStore(
        MemoryStore(
          geometry: BlockGeometry(
            sectorCount: 1600, sectorByteCount: sectorByteCount, discard: DiscardLimits(granularity: sectorByteCount))))
      var options = BlkBackOptions()
      options.sectorUnits = row.units
      let pair = try BlkPair(frontend: disk, backend: BlkBackDriver(options: options) { _ in store })
      try pair.connect()
      #expect(disk.geometry?.sectorCount == 1600)
      let (short, long) = (pattern(Int(sectorByteCount), seed: 1), pattern(81_920, seed: 2))
      try disk.write(sector: 1592, short.span, tag: 1)
      try disk.write(sector: 8, long.span, tag: 2)
      try disk.discard(sector: 1584, sectorCount: 8, tag: 3)
      #expect(pair.complete(disk).values.allSatisfy { $0.result == .succeeded })
      #expect(store.record == ["write 1592", "write 8", "discard 1584"])
      try disk.read(sector: 8, byteCount: 81_920, tag: 4)
      try disk.read(sector: 1592, byteCount: Int(sectorByteCount), tag: 5)
      let results = pair.complete(disk)
      #expect(results[4]?.bytes == long && results[5]?.bytes == short)
    }
  }

  /// Sectors that do not come out even are refused, and nothing overflows.
  @Test(arguments: ["18446744073709551615", "2305843009213693952", "-1"])
  func sizeThatNobodyCanHaveIsRefused(sectors: String) throws {
    let disk = disk(.sectorSize)
    let backend = ManyRingsBackend()
    backend.geometry = BlockGeometry(sectorCount: 800, sectorByteCount: 4096)
    backend.keys = [StoreEntry("sectors", sectors)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(try pair.scheduler.run { try pair.frontendError?.contains("sectors") == true })
    #expect(!disk.isConnected)
  }
}
