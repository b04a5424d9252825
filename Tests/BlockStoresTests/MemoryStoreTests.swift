import BlkBack
import TestSupport
import Testing

/// Disks in memory.
struct MemoryStoreTests {
  @Test func discardedSectorsAreZeros() throws {
    let driver = StoreDriver(MemoryStore(sectorCount: 64))
    #expect(driver.queue.geometry.discard == DiscardLimits(granularity: 512, isSecure: true))
    #expect(driver.write(pattern(4096, seed: 1), sector: 8))
    #expect(
      driver.perform(.discard, sector: 9, sectorCount: 2) && driver.perform(.secureDiscard, sector: 12, sectorCount: 1))
    var expected = pattern(4096, seed: 1)
    expected.replaceSubrange(512..<1536, with: repeatElement(0, count: 1024))
    expected.replaceSubrange(2048..<2560, with: repeatElement(0, count: 512))
    #expect(driver.read(sector: 8, byteCount: 4096) == expected)
    #expect(driver.perform(.discard, sector: 0, sectorCount: 64))
    #expect(driver.read(sector: 8, byteCount: 4096) == [UInt8](repeating: 0, count: 4096))
  }

  @Test func anotherSizeKeepsWhatFits() throws {
    let store = MemoryStore(sectorCount: 64)
    let driver = StoreDriver(store)
    #expect(driver.write(pattern(32_768, seed: 2), sector: 0))
    store.resize(sectorCount: 9)
    #expect(store.geometry.sectorCount == 9)
    #expect(driver.read(sector: 8, byteCount: 512) == Array(pattern(32_768, seed: 2)[4096..<4608]))
    // Let in before it shrank.
    driver.put(.read, sector: 8, [0..<1024])
    driver.put(.write, sector: 63, [0..<512])
    driver.put(.discard, sector: 0, sectorCount: 64)
    #expect(driver.run())
    #expect(driver.results == [0: false, 1: false, 2: false])
    #expect(driver.failure == "the disk has become smaller: a read at sector 8 failed")
    driver.forget()
    store.resize(sectorCount: 128)
    #expect(driver.read(sector: 0, byteCount: 4608) == Array(pattern(32_768, seed: 2)[..<4608]))
    #expect(driver.read(sector: 9, byteCount: 60_928) == [UInt8](repeating: 0, count: 60_928))
  }
}
