import ArgumentParser
import BlkBack
import BlockStores
import Testing

@testable import BlkBackTool

struct DiskOptionsTests {
  private func options(_ arguments: String...) throws -> BlkBackOptions { try DiskOptions.parse(arguments).backend }

  @Test func withoutOptionsADiskOffersAllThatTheDriverHas() throws {
    #expect(try options() == BlkBackOptions())
  }

  @Test func eachOptionChangesWhatItNames() throws {
    var expected = BlkBackOptions()
    expected.maxQueueCount = 2
    expected.maxRingPageOrder = 1
    expected.maxIndirectSegmentCount = 32
    expected.persistentPageCount = 100
    #expect(
      try options("--queues", "2", "--ring-order", "1", "--indirect", "32", "--persistent-pages", "100") == expected)
    expected = BlkBackOptions(offersFlush: false, offersPersistentGrants: false, maxIndirectSegmentCount: 0)
    expected.offersDiscard = false
    #expect(try options("--barriers-only", "--no-persistent", "--indirect", "0", "--no-discard") == expected)
  }

  @Test(arguments: [
    ("strict", SectorUnits.standard), ("freebsd", .freeBSD), ("minios", .miniOS), ("tapdisk", .tapdisk),
    ("qemu", .sectorSize),
  ])
  func sectorUnitsAreNamedByWhoHasThem(name: String, units: SectorUnits) throws {
    #expect(try options("--sector-units", name).sectorUnits == units)
  }

  @Test func imagesAreReadAndWrittenAsTheOptionsSay() throws {
    #expect(try ImageOptions.parse([]).store == FileStoreOptions())
    var expected = FileStoreOptions(direct: .on)
    expected.usesIOUring = false
    #expect(try ImageOptions.parse(["--direct", "on", "--no-io-uring"]).store == expected)
    #expect(try ImageOptions.parse(["--direct", "off"]).store.direct == .off)
  }

  @Test(arguments: [
    (["--queues", "65"], "A disk has 1 to 64 queues, and not 65."),
    (["--ring-order", "5"], "A ring's order is 0 to 4 (1 to 16 pages), and not 5."),
    (["--indirect", "11"], "An indirect request has 12 to 4096 segments, or is not offered (0); 11 is neither."),
    (["--indirect", "4097"], "An indirect request has 12 to 4096 segments, or is not offered (0); 4097 is neither."),
    (["--persistent-pages", "0"], "No pages to keep mapped: to keep none, give --no-persistent."),
  ])
  func whatCannotBeIsRefusedWithASentence(arguments: [String], sentence: String) throws {
    let error = #expect(throws: (any Error).self) { try DiskOptions.parse(arguments) }
    #expect(DiskOptions.message(for: error!) == sentence)
  }
}
