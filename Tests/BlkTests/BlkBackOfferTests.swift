import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// X8: a backend that was killed between its offer and Connected, and comes back with another offer. Linux's frontend publishes
/// once only, so the rings that it made for the first offer are what there is.
struct BlkBackOfferTests {
  private static func options(order: Int, queues: Int) -> BlkBackOptions {
    var options = BlkBackOptions()
    (options.maxRingPageOrder, options.maxQueueCount) = (order, queues)
    return options
  }

  /// A disk whose first backend has offered as much and was killed; its frontend has published, if it was to.
  private func killed(
    _ frontend: any FrontendDriver, order: Int = 4, queues: Int = 4, publishes: Bool = true
  ) throws -> BlkPair {
    let pair = try BlkPair(options: Self.options(order: order, queues: queues), frontend: frontend) { _ in
      MemoryStore(sectorCount: 64)
    }
    pair.guest.sharedPageLimit = 1 << 16
    pair.scheduler.remove(pair.frontBus)
    #expect(try pair.scheduler.run { try pair.backendState == .initWait })
    pair.driverDomain.kill()
    if publishes {
      addFrontend(pair)
      #expect(try pair.scheduler.run { try pair.frontendState == .initialised })
    }
    return pair
  }

  private func disk(order: Int, queues: Int) -> BlkFrontDevice {
    var options = BlkFrontOptions()
    (options.maxRingPageOrder, options.maxQueueCount) = (order, queues)
    return BlkFrontDevice(options)
  }

  private func addFrontend(_ pair: BlkPair) {
    pair.scheduler.add(pair.frontBus, of: pair.guest, name: "frontend's bus") { [bus = pair.frontBus] _ in bus.poll() }
  }

  private func start(_ pair: BlkPair, order: Int, queues: Int) throws -> Bus {
    let options = Self.options(order: order, queues: queues)
    return try pair.addBackBus(BlkBackDriver(options: options) { _ in MemoryStore(sectorCount: 64) })
  }

  private func expectServed(_ pair: BlkPair, _ bus: Bus, _ disk: BlkFrontDevice) throws {
    #expect(
      pair.scheduler.run { bus.isConnected && pair.frontBus.isConnected }, "\(bus.report) \(pair.frontBus.report)")
    let bytes = pattern(4096, seed: 3)
    try disk.write(sector: 8, bytes.span, tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded)
    try disk.read(sector: 8, byteCount: 4096, tag: 2)
    #expect(pair.complete(disk)[2]?.bytes == bytes)
  }

  @Test(arguments: [(4, 1), (0, 4), (0, 1), (2, 2)])
  func ringsMadeForAFormerLargerOfferAreServed(order: Int, queues: Int) throws {
    let disk = disk(order: 2, queues: 3)
    let pair = try killed(disk)
    let bus = try start(pair, order: order, queues: queues)
    try expectServed(pair, bus, disk)
    let lines = try #require(bus.negotiations[pair.device.backendPath]).lines
    #expect(lines.first { $0.feature == "queues" }?.agreed == "3")
    #expect(lines.first { $0.feature == "ring pages" }?.agreed == "4")
    #expect(try pair.rig.error(of: pair.driverDomain, pair.device.backendPath) == nil)
    // What is connected next goes by what the backend is given now.
    pair.frontBus.close()
    #expect(pair.scheduler.run { pair.frontBus.isEmpty })
    #expect(pair.scheduler.run { pair.loopback.grantCounts.mappedPages == 0 })
  }

  /// As many kills as there may be: the offer that rings were made for is not forgotten with the second one.
  @Test func theOfferStandsThroughSeveralKills() throws {
    let frontend = RawBlkFrontend(ringPageOrder: 3, queueCount: 4)
    let pair = try killed(frontend)
    for _ in 0..<3 {
      // Connects for as long as its hotplug script would take.
      let process = pair.loopback.addProcess(in: pair.driverDomain.domain)
      let bus = try Bus(on: process, queueHost: pair.scheduler.host(of: process), log: .silent)
      try bus.register(Hesitating(Self.options(order: 0, queues: 1)))
      pair.scheduler.add(bus, of: process, name: "hesitating backend's bus") { [bus] _ in bus.poll() }
      #expect(
        pair.scheduler.run(turns: 50) { bus.report.contains { $0.contains("waits for its hotplug script") } },
        "\(bus.report)")
      let own = pair.rig.directory(pair.device.backendPath)
      #expect(try own.string("multi-queue-max-queues") == "4", "the offer that the rings were made for")
      #expect(try pair.backendState == .initWait)
      process.kill()
    }
    let bus = try start(pair, order: 0, queues: 1)
    let isConnected = pair.scheduler.run { bus.isConnected && frontend.isConnected }
    try #require(isConnected, "\(bus.report)")
    frontend.put(frontend.direct(BlkIf.Operation.read, [(0, 0, 7)], id: 5), queue: 3)
    #expect(try pair.statuses(frontend, 1) == [5: 0])
  }

  /// It had read the first offer, and publishes when the second one is there.
  @Test func frontendThatReadTheFormerOfferMayPublishLater() throws {
    let frontend = RawBlkFrontend(ringPageOrder: 2, queueCount: 4)
    let pair = try killed(frontend, publishes: false)
    let bus = try start(pair, order: 0, queues: 1)
    _ = pair.scheduler.run(turns: 100) { false }
    let own = pair.rig.directory(pair.device.backendPath)
    #expect(try own.optionalString("multi-queue-max-queues") == "1")
    #expect(try own.optionalString("max-ring-page-order") == "0")
    addFrontend(pair)
    #expect(pair.scheduler.run { bus.isConnected && frontend.isConnected }, "\(bus.report)")
  }

  /// Rings that nobody has offered to serve are no excuse.
  @Test(arguments: [("multi-queue-num-queues", "5"), ("ring-page-order", "5")])
  func whatNeitherOfThemHasOfferedIsRefused(key: String, value: String) throws {
    let frontend = RawBlkFrontend(ringPageOrder: 2, queueCount: 4)
    frontend.keys = [StoreEntry(key, value)]
    let pair = try killed(frontend)
    let bus = try start(pair, order: 0, queues: 1)
    #expect(
      try pair.scheduler.run {
        try pair.rig.error(of: pair.driverDomain, pair.device.backendPath)?.contains("\(key) holds \"\(value)\"")
          == true
      })
    _ = pair.scheduler.run(turns: 200) { false }
    #expect(!bus.isConnected && pair.loopback.grantCounts.mappedPages == 0)
  }

  /// What a stranger has offered counts as far as we know how to serve it.
  @Test(arguments: [("multi-queue-max-queues", "100", "6", "2"), ("max-ring-page-order", "9", "2", "16")])
  func strangersOfferCountsAsFarAsItCanBeServed(key: String, value: String, queues: String, pages: String) throws {
    let disk = disk(order: 4, queues: 6)
    let pair = try killed(disk, order: 1, queues: 2, publishes: false)
    try pair.rig.directory(pair.device.backendPath).write([StoreEntry(key, value)])
    addFrontend(pair)
    #expect(try pair.scheduler.run { try pair.frontendState == .initialised })
    let bus = try start(pair, order: 0, queues: 1)
    try expectServed(pair, bus, disk)
    let lines = try #require(bus.negotiations[pair.device.backendPath]).lines
    #expect(lines.first { $0.feature == "queues" }?.agreed == queues)
    #expect(lines.first { $0.feature == "ring pages" }?.agreed == pages)
  }

  @Test(arguments: ["x", "", "-1", "9223372036854775808"])
  func offerThatMakesNoSenseIsNobodys(value: String) throws {
    let frontend = RawBlkFrontend()
    let pair = try killed(frontend, publishes: false)
    try pair.rig.directory(pair.device.backendPath).write([
      StoreEntry("multi-queue-max-queues", value), StoreEntry("max-ring-page-order", value),
    ])
    addFrontend(pair)
    #expect(try pair.scheduler.run { try pair.frontendState == .initialised })
    let bus = try start(pair, order: 0, queues: 1)
    #expect(pair.scheduler.run { bus.isConnected && frontend.isConnected }, "\(bus.report)")
  }
}

/// A backend that makes its offer, and waits for a hotplug script that never ends.
private struct Hesitating: BackendDriver {
  private let driver: BlkBackDriver
  let type = "vbd"
  let waitsForHotplug = true

  init(_ options: BlkBackOptions) { driver = BlkBackDriver(options: options) { _ in MemoryStore(sectorCount: 64) } }

  func probe(_ device: XenbusDevice) throws(DeviceError) -> any Backend { try driver.probe(device) }
}
