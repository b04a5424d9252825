import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// A disk on a Xen on which things go wrong.
struct FaultyDriverTests {
  /// Its backend copies, so that copies can fail.
  private let disk: BlkFrontDevice = {
    var options = BlkFrontOptions()
    options.usesPersistentGrants = false
    return BlkFrontDevice(options)
  }()

  private func pair(_ seed: Seed) throws -> DriverPair {
    let store = MemoryStore(sectorCount: 64)
    return try DriverPair(seed: seed, frontend: disk, backend: BlkBackDriver { _ in store }) {
      try $0.toolstack.addVbd(to: $0.guest.domain, servedBy: $0.driverDomain.domain, params: "test")
    }
  }

  /// Writes 64 sectors and reads them again, as many at a time as the ring takes; how each request ended, by tag.
  private func results(_ pair: DriverPair) throws -> [UInt64: BlkFrontCompletion.Result] {
    var results: [UInt64: BlkFrontCompletion.Result] = [:]
    for tag in 0..<128 as Range<UInt64> {
      let sector = tag % 64
      if tag < 64 {
        try disk.write(sector: sector, pattern(512, seed: Int(sector)).span, tag: tag)
      } else {
        try disk.read(sector: sector, byteCount: 512, tag: tag)
      }
      guard tag % 16 == 15 else { continue }
      disk.push()
      let ended = pair.scheduler.run(turns: 1000) {
        disk.poll {
          results[$0.tag] = $0.result
          guard $0.tag >= 64, $0.result == .succeeded, results[$0.tag - 64] == .succeeded else { return }
          #expect($0.copied() == pattern(512, seed: Int($0.tag - 64)), "request \($0.tag) reads another's bytes")
        }
        return disk.inFlightCount == 0
      }
      try #require(ended, "\(disk.inFlightCount) requests of the \(tag + 1) never end")
    }
    return results
  }

  @Test(arguments: seeds(1...20, of: Self.self))
  func everyRequestIsAnsweredWhateverHappensToEvents(seed: Seed) throws {
    let pair = try pair(seed)
    pair.loopback.eventFaults.delayed = .oneIn(2)
    pair.loopback.eventFaults.duplicated = .oneIn(3)
    pair.loopback.eventFaults.spurious = .oneIn(3)
    try pair.connect()
    let results = try results(pair)
    #expect(results.count == 128 && results.values.allSatisfy { $0 == .succeeded })
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.holdsNothing })
  }

  @Test(arguments: seeds(1...20, of: Self.self))
  func copyThatFailsFailsOneRequestAndNoOther(seed: Seed) throws {
    let pair = try pair(seed)
    try pair.connect()
    pair.loopback.grantFaults.failedCopy = .next(2)
    let results = try results(pair)
    #expect(results.count == 128 && results.values.count { $0 != .succeeded } == 2)
  }

  /// The ring's page, or, with that, less than the least pool.
  @Test(arguments: [0, 11]) func shareThatFailsIsSaidInTheErrorNode(limit: Int) throws {
    let pair = try pair(1)
    pair.guest.sharedPageLimit = limit
    #expect(try pair.scheduler.run { try pair.frontendError != nil })
    #expect(try #require(try pair.frontendError).contains("/sys/module/xen_gntalloc/parameters/limit"))
    #expect(pair.scheduler.run { pair.holdsNothing })
  }

  @Test func mapThatFailsClosesTheDeviceAndLeavesNothingBehind() throws {
    let pair = try pair(1)
    pair.loopback.grantFaults.failedMap = .next(1)
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    #expect(try #require(try pair.backendError).contains("cannot map grant reference"))
    #expect(pair.scheduler.run { pair.holdsNothing })
  }

  @Test func fullQuotaIsSaidByTheDevice() throws {
    let pair = try pair(1)
    pair.scheduler.remove(pair.frontBus)
    #expect(try pair.scheduler.run { try pair.backendState == .initWait })
    pair.loopback.storeQuotas.nodesPerDomain = 0
    pair.scheduler.add(pair.frontBus, of: pair.guest, name: "frontend's bus") { [bus = pair.frontBus] _ in bus.poll() }
    #expect(!pair.scheduler.run(turns: 500) { pair.frontBus.isConnected })
    #expect(pair.frontBus.report.contains { $0.contains("quota is used up") }, "\(pair.frontBus.report)")
    #expect(pair.scheduler.run { pair.holdsNothing })
  }
}
