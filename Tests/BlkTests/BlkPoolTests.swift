import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// The frontend's pages: fewer than the ring's requests could use, and fewer than were asked for.
struct BlkPoolTests {
  private func pool(_ disk: BlkFrontDevice) -> Negotiation.Line? {
    disk.negotiation.lines.first { $0.feature == "pool pages" }
  }

  @Test func requestsWaitForPagesToo() throws {
    let disk = BlkFrontDevice(BlkFrontOptions(poolPageCount: 12))
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 256))
    try pair.connect()
    #expect(pair.loopback.grantCounts.sharedPages == 13)
    try disk.read(sector: 0, byteCount: BlkFrontDevice.maxDirectByteCount, tag: 1)
    #expect(throws: BlkFrontError.busy) { try disk.read(sector: 0, byteCount: 8192, tag: 2) }
    // One page is enough for this one, and none for that.
    try disk.read(sector: 0, byteCount: 4096, tag: 3)
    try disk.flush(tag: 4)
    #expect(throws: BlkFrontError.busy) { try disk.read(sector: 0, byteCount: 512, tag: 5) }
    #expect(pair.complete(disk).values.filter { $0.result == .succeeded }.count == 3)
    try disk.read(sector: 0, byteCount: BlkFrontDevice.maxDirectByteCount, tag: 6)
    #expect(pair.complete(disk)[6]?.result == .succeeded)
  }

  @Test func pagesOfOneRequestNeedNotBeNeighbours() throws {
    let disk = BlkFrontDevice(BlkFrontOptions(poolPageCount: 16))
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 256))
    try pair.connect()
    // Sixteen single pages come back in an order of the scheduler's, every second one first.
    for tag in 0..<UInt64(16) { try disk.read(sector: tag * 8, byteCount: 4096, tag: tag) }
    #expect(pair.complete(disk).count == 16)
    let written = pattern(BlkFrontDevice.maxDirectByteCount - 512, seed: 5)
    try disk.write(sector: 3, written.span, tag: 1)
    try disk.write(sector: 200, pattern(4096, seed: 1).span, tag: 2)
    _ = pair.complete(disk)
    try disk.read(sector: 200, byteCount: 4096, tag: 3)
    try disk.read(sector: 3, byteCount: written.count, tag: 4)
    let results = pair.complete(disk)
    #expect(results[4]?.bytes == written && results[3]?.bytes == pattern(4096, seed: 1))
  }

  @Test(arguments: [(400, 352), (352, 176), (100, 88), (12, 11)])
  func poolIsSmallerWhereThePagesDoNotSuffice(limit: Int, agreed: Int) throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 256))
    pair.guest.sharedPageLimit = limit
    try pair.connect()
    let reason = agreed == 352 ? "" : "\(GrantError.gntallocLimit(pageCount: 352))"
    #expect(pool(disk).map { [$0.frontend, $0.agreed, $0.reason] } == ["352", "\(agreed)", reason])
    #expect(pair.loopback.grantCounts.sharedPages == agreed + 1)
    try disk.write(sector: 0, pattern(BlkFrontDevice.maxDirectByteCount, seed: 1).span, tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded)
  }

  @Test func diskWithoutPagesForOneRequestSaysWhichLimitToRaise() throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 256))
    pair.guest.sharedPageLimit = 11
    #expect(try pair.scheduler.run { try pair.frontendError != nil })
    #expect(try pair.frontendError == "22 \(GrantError.gntallocLimit(pageCount: 11))")
    #expect(pair.loopback.grantCounts.sharedPages == 0, "what was shared before is given back")
  }
}
