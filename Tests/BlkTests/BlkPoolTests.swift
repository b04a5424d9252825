import BlkBack
import BlkFront
import Synchronization
import TestSupport
import Testing
import XenLoopback

/// The frontend's pages: fewer than the ring's requests could use, and fewer than were asked for.
struct BlkPoolTests {
  private func pool(_ disk: BlkFrontDevice) -> Negotiation.Line? {
    disk.negotiation.lines.first { $0.feature == "pool pages" }
  }

  @Test func requestsWaitForPagesToo() throws {
    let disk = BlkFrontDevice(poolPageCount: 12)
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 256))
    try pair.connect()
    #expect(pair.loopback.grantCounts.sharedPages == 13)
    try disk.read(sector: 0, byteCount: BlkFrontDevice.maxByteCount, tag: 1)
    #expect(throws: BlkFrontError.busy) { try disk.read(sector: 0, byteCount: 8192, tag: 2) }
    // One page is enough for this one, and none for that.
    try disk.read(sector: 0, byteCount: 4096, tag: 3)
    try disk.flush(tag: 4)
    #expect(throws: BlkFrontError.busy) { try disk.read(sector: 0, byteCount: 512, tag: 5) }
    #expect(pair.complete(disk).values.filter { $0.result == .succeeded }.count == 3)
    try disk.read(sector: 0, byteCount: BlkFrontDevice.maxByteCount, tag: 6)
    #expect(pair.complete(disk)[6]?.result == .succeeded)
  }

  @Test func pagesOfOneRequestNeedNotBeNeighbours() throws {
    let disk = BlkFrontDevice(poolPageCount: 16)
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 256))
    try pair.connect()
    // Sixteen single pages come back in an order of the scheduler's, every second one first.
    for tag in 0..<UInt64(16) { try disk.read(sector: tag * 8, byteCount: 4096, tag: tag) }
    #expect(pair.complete(disk).count == 16)
    let written = pattern(BlkFrontDevice.maxByteCount - 512, seed: 5)
    try disk.write(sector: 3, written.span, tag: 1)
    try disk.write(sector: 200, pattern(4096, seed: 1).span, tag: 2)
    _ = pair.complete(disk)
    try disk.read(sector: 200, byteCount: 4096, tag: 3)
    try disk.read(sector: 3, byteCount: written.count, tag: 4)
    let results = pair.complete(disk)
    #expect(results[4]?.bytes == written && results[3]?.bytes == pattern(4096, seed: 1))
  }

  @Test(arguments: [(400, 352, ""), (352, 176, "x"), (100, 88, "x"), (12, 11, "x")] as [(Int, Int, String)])
  func poolIsSmallerWhereThePagesDoNotSuffice(limit: Int, agreed: Int, reason: String) throws {
    let disk = BlkFrontDevice()
    let rig = try ShortOfPages(limit: limit)
    #expect(try rig.connect(disk))
    #expect(pool(disk)?.frontend == "352" && pool(disk)?.agreed == "\(agreed)")
    #expect(
      pool(disk)?.reason == (reason.isEmpty ? "" : "cannot share 352 more pages: raise the limit of this test"))
    try disk.write(sector: 0, pattern(BlkFrontDevice.maxByteCount, seed: 1).span, tag: 1)
    #expect(rig.complete(disk) == [1: .succeeded])
  }

  @Test func diskWithoutPagesForOneRequestSaysWhichLimitToRaise() throws {
    let disk = BlkFrontDevice()
    let rig = try ShortOfPages(limit: 11)
    #expect(try !rig.connect(disk))
    #expect(
      try rig.rig.error(of: rig.rig.guest, rig.device.frontendPath)
        == "22 cannot share 11 more pages: raise the limit of this test")
    #expect(rig.rig.loopback.grantCounts.sharedPages == 0, "what was shared before is given back")
  }
}

/// A guest whose kernel shares no more than so many pages at a time.
private final class ShortOfPages {
  let rig: Rig
  let device: Toolstack.Device
  private let front: Bus
  private let back: Bus

  init(limit: Int) throws {
    rig = try Rig()
    device = try rig.toolstack.addVbd(to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: "test")
    front = try Bus(on: LimitedPlatform(rig.guest, limit: limit), log: .silent)
    back = try Bus(on: rig.driverDomain, log: .silent)
  }

  /// Until the disk is connected, or says why it cannot be.
  func connect(_ disk: BlkFrontDevice) throws -> Bool {
    try back.register(BlkBackDriver { _ in MemoryStore(sectorCount: 256) })
    try front.register(disk, at: device.frontendPath)
    _ = front.run(seconds: 10) {
      back.poll()
      return disk.isConnected || (try? rig.error(of: rig.guest, device.frontendPath)) != nil
    }
    return disk.isConnected
  }

  func complete(_ disk: BlkFrontDevice) -> [UInt64: BlkFrontCompletion.Result] {
    var results: [UInt64: BlkFrontCompletion.Result] = [:]
    disk.push()
    while disk.inFlightCount > 0 {
      if let descriptor = disk.descriptor { Wakeup.wait(for: descriptor, timeout: 1000) }
      disk.poll { results[$0.tag] = $0.result }
    }
    return results
  }
}

private final class LimitedPlatform: Platform {
  private let real: any Platform
  let grants: any GrantTable

  init(_ real: any Platform, limit: Int) { (self.real, grants) = (real, LimitedGrants(real.grants, limit: limit)) }

  var domain: DomainID { real.domain }

  func openEventChannels() throws(EventChannelError) -> any EventChannels { try real.openEventChannels() }
  func openXenstore() throws(XenstoreError) -> any Xenstore { try real.openXenstore() }
}

/// Counts what is shared, and never gives any of it back: a test's device connects once.
private final class LimitedGrants: GrantTable {
  private let real: any GrantTable
  private let left: Mutex<Int>

  init(_ real: any GrantTable, limit: Int) {
    self.real = real
    left = Mutex(limit)
  }

  func share(pageCount: Int, with domain: DomainID, writable: Bool) throws(GrantError) -> GrantedPages {
    let suffice = left.withLock { left in
      if left < pageCount { return false }
      left -= pageCount
      return true
    }
    guard suffice else { throw .exhausted(pageCount: pageCount, advice: "raise the limit of this test") }
    return try real.share(pageCount: pageCount, with: domain, writable: writable)
  }

  func map(_ references: [GrantReference], of domain: DomainID, writable: Bool) throws(GrantError) -> SharedRegion {
    try real.map(references, of: domain, writable: writable)
  }

  func copy(_ copies: inout MutableSpan<GrantCopy>) { real.copy(&copies) }
}
