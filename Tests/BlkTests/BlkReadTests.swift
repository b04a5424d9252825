import BlkBack
import BlkFront
import Testing

struct BlkReadTests {
  @Test func frontendReadsWhatTheBackendsStoreHolds() throws {
    let store = MemoryStore(sectorCount: 64)
    let pair = try BlkPair(store: store)
    try pair.connect()
    #expect(pair.disk.geometry?.sectorCount == 64)
    let written = (0..<8192).map { UInt8(truncatingIfNeeded: $0 / 3) }
    try pair.disk.write(sector: 5, written.span, tag: 1)
    #expect(pair.complete()[1]?.result == .succeeded)
    try pair.disk.read(sector: 5, byteCount: 8192, tag: 2)
    let read = pair.complete()[2]
    #expect(read?.result == .succeeded)
    #expect(read?.bytes == written)
  }
}
