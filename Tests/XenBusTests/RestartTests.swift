import TestSupport
import Testing
import XenBus
import XenLoopback
import XenPlatform
import XenstoredSupport

/// X8: either end is dropped without a word, at any moment, and a new process takes its place on the same device.
struct RestartTests {
  /// Turns given before the crash: from the first key to well after Connected.
  static let seeds = TestSupport.seeds(0...239, of: RestartTests.self)

  /// Both ends on one schedule; the order of their turns is the seed's.
  private final class Run {
    let rig: BusRig
    let disk: Toolstack.Device
    let schedule: Scheduler
    let publishedState: XenbusState
    var front: (bus: Bus, driver: FakeFrontend)
    var back: (bus: Bus, driver: FakeBackend)

    init(seed: Seed) throws {
      rig = try BusRig()
      disk = try rig.addDisk()
      schedule = Scheduler(seed: seed)
      publishedState = seed.modulo(2) == 0 ? .initialised : .connected
      front = try Self.makeFront(rig, publishedState)
      back = try Self.makeBack(rig)
      give(turnsTo: front.bus)
      give(turnsTo: back.bus)
    }

    func restartFront() throws {
      schedule.remove(front.bus)
      front = try Self.makeFront(rig, publishedState)
      give(turnsTo: front.bus)
    }

    func restartBack() throws {
      schedule.remove(back.bus)
      back = try Self.makeBack(rig)
      give(turnsTo: back.bus)
    }

    /// Until both ends have come to rest: connected, and nothing left to take.
    func connects() throws -> Bool {
      schedule.run(turns: 200) {
        front.bus.isConnected && back.bus.isConnected && front.bus.isQuiet && back.bus.isQuiet
      }
    }

    private func give(turnsTo bus: Bus) {
      schedule.add(bus, name: "bus") { [unowned bus] _ in bus.poll() }
    }

    private static func makeFront(_ rig: BusRig, _ state: XenbusState) throws -> (Bus, FakeFrontend) {
      let driver = FakeFrontend(publishedState: state)
      return (try rig.frontBus(driver), driver)
    }

    private static func makeBack(_ rig: BusRig) throws -> (Bus, FakeBackend) {
      let driver = FakeBackend()
      return (try rig.backBus(driver), driver)
    }
  }

  private func expectReconnects(seed: Seed, _ crash: (Run) throws -> Void) throws {
    let run = try Run(seed: seed)
    // The seed also says how far the ends have come when the crash happens.
    for _ in 0..<(seed.modulo(12)) { run.schedule.round() }
    try crash(run)
    guard try run.connects() else {
      Issue.record("\(run.front.bus.report) \(run.back.bus.report)")
      return
    }
    // Whoever serves now has connected in its own life.
    #expect(run.front.driver.log.count(of: .publish, at: run.disk.frontendPath) >= 1)
    #expect(run.back.driver.log.count(of: .connect, at: run.disk.backendPath) >= 1)
  }

  @Test(arguments: seeds) func frontendThatCrashesReconnects(seed: Seed) throws {
    try expectReconnects(seed: seed) { try $0.restartFront() }
  }

  @Test(arguments: seeds) func backendThatCrashesReconnects(seed: Seed) throws {
    try expectReconnects(seed: seed) { try $0.restartBack() }
  }

  @Test(arguments: seeds) func bothEndsThatCrashReconnect(seed: Seed) throws {
    try expectReconnects(seed: seed) {
      try $0.restartFront()
      for _ in 0..<(seed.modulo(5)) { $0.schedule.round() }
      try $0.restartBack()
    }
  }

  /// Some of the same on a real xenstored.
  @Test(.needsXenstored, arguments: seeds.filter { $0.modulo(24) == 5 })
  func endThatCrashesReconnectsOnXenstored(seed: Seed) throws {
    try TestedStore.$current.withValue(.xenstored) {
      try expectReconnects(seed: seed) { try $0.restartFront() }
      try expectReconnects(seed: seed) { try $0.restartBack() }
    }
  }

  @Test func frontendFoundConnectedIsClosedBeforeItsBackendServesAgain() throws {
    let run = try Run(seed: 0)
    #expect(try run.connects())
    let survivor = run.front.driver.log
    try run.restartBack()
    #expect(try run.connects())
    #expect(
      survivor.calls(at: run.disk.frontendPath)
        == [.probe, .publish, .connect, .stop, .release, .probe, .publish, .connect])
  }

  @Test func droppedBusLeavesNoWatchBehind() throws {
    let run = try Run(seed: 0)
    #expect(try run.connects())
    let watchCount = run.rig.loopback.storeCounts.watches
    weak let bus: Bus? = run.front.bus
    try run.restartFront()
    #expect(bus == nil)
    #expect(try run.connects())
    #expect(run.rig.loopback.storeCounts.watches == watchCount)
  }
}
