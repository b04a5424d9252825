import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// A disk whose ends are killed in the middle of their work.
struct KilledDriverTests {
  private let store = MemoryStore(sectorCount: 64)

  private func pair(_ seed: Seed, _ disk: BlkFrontDevice) throws -> DriverPair {
    let pair = try DriverPair(seed: seed, frontend: disk, backend: BlkBackDriver { [store] _ in store }) {
      try $0.toolstack.addVbd(to: $0.guest.domain, servedBy: $0.driverDomain.domain, params: "test")
    }
    try pair.connect()
    return pair
  }

  /// Puts writes and gives both ends a few turns, so that some are answered and some are not.
  private func work(_ pair: DriverPair, _ disk: BlkFrontDevice) throws {
    for sector in 0..<16 as Range<UInt64> { try disk.write(sector: sector, pattern(512, seed: 1).span, tag: sector) }
    disk.push()
    for _ in 0..<2 { pair.scheduler.round() }
  }

  @Test(arguments: seeds(1...20, of: Self.self))
  func killedBackendIsFollowedByAnother(seed: Seed) throws {
    let disk = BlkFrontDevice()
    let pair = try pair(seed, disk)
    try work(pair, disk)
    pair.driverDomain.kill()
    #expect(pair.loopback.grantCounts.mappedPages == 0 && pair.loopback.openPortCount == 1)
    let successor = try pair.addBackBus(BlkBackDriver { [store] _ in store })
    #expect(pair.scheduler.run { successor.isConnected && disk.isConnected }, "\(successor.report)")
    var ended: [UInt64: [BlkFrontCompletion.Result]] = [:]
    disk.poll { ended[$0.tag, default: []].append($0.result) }
    try disk.write(sector: 20, pattern(512, seed: 20).span, tag: 20)
    try disk.read(sector: 20, byteCount: 512, tag: 21)
    disk.push()
    var bytes: [UInt8] = []
    _ = pair.scheduler.run {
      disk.poll {
        ended[$0.tag, default: []].append($0.result)
        if $0.tag == 21 { bytes = $0.copied() }
      }
      return disk.inFlightCount == 0
    }
    #expect(Set(ended.keys) == Set(0..<16).union([20, 21]), "each request ends")
    #expect(ended.values.allSatisfy { $0 == [.succeeded] }, "\(ended)")
    #expect(bytes == pattern(512, seed: 20))
    #expect(pair.loopback.grantCounts.quarantinedPages == 0)
  }

  @Test(arguments: seeds(1...20, of: Self.self))
  func killedFrontendIsFollowedByAnother(seed: Seed) throws {
    let disk = BlkFrontDevice()
    let pair = try pair(seed, disk)
    try work(pair, disk)
    pair.guest.kill()
    // The ring, and what the backend keeps mapped.
    let orphanedPages = pair.loopback.grantCounts.orphanedPages
    #expect(pair.loopback.grantCounts.sharedPages == 0 && (1...17).contains(orphanedPages), "\(orphanedPages)")
    let successor = BlkFrontDevice()
    let bus = try pair.addFrontBus(successor, at: pair.device.frontendPath)
    #expect(pair.scheduler.run { bus.isConnected && pair.backBus.isConnected }, "\(bus.report + pair.backBus.report)")
    #expect(pair.loopback.grantCounts.orphanedPages == 0)
    try successor.read(sector: 0, byteCount: 512, tag: 1)
    successor.push()
    var result: BlkFrontCompletion.Result?
    _ = pair.scheduler.run {
      successor.poll { result = $0.result }
      return result != nil
    }
    #expect(result == .succeeded)
  }

  @Test(arguments: seeds(1...20, of: Self.self))
  func removedDeviceOfAKilledFrontendIsLetGoOf(seed: Seed) throws {
    let disk = BlkFrontDevice()
    let pair = try pair(seed, disk)
    try work(pair, disk)
    pair.guest.kill()
    try pair.toolstack.remove(pair.device)
    #expect(pair.scheduler.run { pair.holdsNothing }, "\(pair.backBus.report)")
  }

  @Test(arguments: seeds(1...20, of: Self.self))
  func destroyedGuestIsLetGoOf(seed: Seed) throws {
    let disk = BlkFrontDevice()
    let pair = try pair(seed, disk)
    try work(pair, disk)
    pair.loopback.destroy(pair.guest.domain)
    #expect(pair.scheduler.run { pair.holdsNothing }, "\(pair.backBus.report)")
  }
}
