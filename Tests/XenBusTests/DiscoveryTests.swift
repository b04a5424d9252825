import Synchronization
import TestSupport
import Testing
import XenBus
import XenPlatform

/// X3: a bus finds the devices of its drivers, whenever they come and go.
@Suite(.onEachStore) struct DiscoveryTests {
  let rig: BusRig
  let front = FakeFrontend()
  let back = FakeBackend()

  init() throws { rig = try BusRig() }

  @Test func devicePresentBeforeRegisterConnects() throws {
    let disk = try rig.addDisk()
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    #expect(front.log.calls(at: disk.frontendPath) == [.probe, .publish, .connect])
    #expect(back.log.calls(at: disk.backendPath) == [.probe, .offer, .connect, .start])
    #expect(try rig.state(disk.frontendPath) == .connected)
    #expect(try rig.state(disk.backendPath) == .connected)
  }

  @Test func deviceMadeAfterRegisterConnects() throws {
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    let disk = try rig.addDisk()
    #expect(settle(frontBus, backBus))
    #expect(front.log.calls(at: disk.frontendPath) == [.probe, .publish, .connect])
    #expect(frontBus.isConnected && backBus.isConnected)
  }

  @Test func severalDevicesConnectEachOnce() throws {
    let first = try rig.addDisk(51712)
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    let second = try rig.addDisk(51728)
    #expect(settle(frontBus, backBus))
    for disk in [first, second] {
      #expect(back.log.calls(at: disk.backendPath) == [.probe, .offer, .connect, .start])
    }
    #expect(frontBus.report.count == 2 && frontBus.isConnected)
  }

  @Test func devicesOfAnotherTypeAreLeftAlone() throws {
    let card = try rig.toolstack.addVif(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    #expect(try rig.state(card.frontendPath) == .initialising)
    #expect(try rig.state(card.backendPath) == .initialising)
  }

  @Test func driversOfTwoTypesShareABus() throws {
    let disk = try rig.addDisk()
    let card = try rig.toolstack.addVif(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    try frontBus.register(FakeFrontend(type: "vif", publishedState: .connected))
    try backBus.register(FakeBackend(type: "vif"))
    #expect(settle(frontBus, backBus))
    #expect(try rig.state(disk.backendPath) == .connected)
    #expect(try rig.state(card.backendPath) == .connected)
  }

  @Test func rootsMayLieElsewhere() throws {
    let disk = try rig.addDisk()
    let frontBus = try Bus(on: rig.control, log: .silent)
    try frontBus.register(front, root: "/local/domain/1/device")
    let backBus = try Bus(on: rig.control, log: .silent)
    try backBus.register(back, root: "/local/domain/2/backend")
    #expect(settle(frontBus, backBus))
    #expect(try rig.state(disk.frontendPath) == .connected)
  }

  @Test func unregisteredTypeFindsNoMoreDevices() throws {
    let backBus = try rig.backBus(back)
    backBus.unregister(type: "vbd")
    #expect(settle(backBus))
    let disk = try rig.addDisk()
    #expect(settle(backBus))
    #expect(back.log.calls(at: disk.backendPath) == [])
  }

  @Test func deviceFoundBeforeUnregisterIsStillUnplugged() throws {
    let disk = try rig.addDisk()
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    backBus.unregister(type: "vbd")
    try rig.toolstack.unplug(disk)
    #expect(settle(frontBus, backBus))
    #expect(try rig.toolstack.isClosed(disk))
  }

  @Test func typeRegisteredAgainFindsDevicesAgain() throws {
    let backBus = try rig.backBus(back)
    backBus.unregister(type: "vbd")
    let disk = try rig.addDisk()
    #expect(settle(backBus))
    try backBus.register(back)
    #expect(settle(backBus))
    #expect(back.log.calls(at: disk.backendPath) == [.probe, .offer])
  }

  @Test func singleDeviceIsServedAloneAndComesBack() throws {
    let disk = try rig.addDisk(51712)
    let other = try rig.addDisk(51728)
    let frontBus = try Bus(on: rig.guest, log: .silent)
    try frontBus.register(front, at: disk.frontendPath)
    let backBus = try Bus(on: rig.driverDomain, log: .silent)
    try backBus.register(back, at: disk.backendPath)
    #expect(settle(frontBus, backBus))
    #expect(try rig.state(disk.frontendPath) == .connected)
    #expect(try rig.state(other.frontendPath) == .initialising)
    try rig.toolstack.remove(disk)
    #expect(settle(frontBus, backBus))
    _ = try rig.addDisk(51712)
    #expect(settle(frontBus, backBus))
    #expect(back.log.count(of: .connect, at: disk.backendPath) == 2)
    #expect(try rig.state(disk.frontendPath) == .connected)
  }

  @Test func removedWhileConnectedEndsBothSessionsOnce() throws {
    let disk = try rig.addDisk()
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    try rig.toolstack.remove(disk)
    #expect(settle(frontBus, backBus))
    #expect(front.log.count(of: .release, at: disk.frontendPath) == 1)
    #expect(back.log.count(of: .disconnect, at: disk.backendPath) == 1)
    #expect(frontBus.report == [] && backBus.report == [])
    #expect(try !rig.directory(disk.frontendPath).exists())
    #expect(try !rig.directory(disk.backendPath).exists())
  }

  @Test func removalOfTheWholeRootEndsItsSessions() throws {
    let disk = try rig.addDisk()
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    try rig.store.remove("/local/domain/2/backend", in: nil)
    #expect(settle(frontBus, backBus))
    #expect(back.log.count(of: .disconnect, at: disk.backendPath) == 1)
    #expect(backBus.report == [])
  }

  @Test func frontendLetsGoWhenOnlyTheBackendsDirectoryIsGone() throws {
    let disk = try rig.addDisk()
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    try rig.store.remove(disk.backendPath, in: nil)
    #expect(settle(frontBus, backBus))
    #expect(front.log.count(of: .release, at: disk.frontendPath) == 1)
    #expect(try rig.state(disk.frontendPath) == .closed)
    #expect(try rig.error(of: rig.guest, disk.frontendPath) == nil)
  }

  @Test func deviceMadeAnewBetweenTwoPollsConnects() throws {
    let disk = try rig.addDisk()
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    try rig.toolstack.remove(disk)
    _ = try rig.addDisk()
    #expect(settle(frontBus, backBus))
    #expect(try rig.state(disk.frontendPath) == .connected)
    #expect(back.log.count(of: .connect, at: disk.backendPath) == 2)
  }

  @Test func deviceMadeAnewWithAnotherBackendFollowsIt() throws {
    let disk = try rig.addDisk()
    let frontBus = try rig.frontBus(front)
    let backBus = try Bus(on: rig.control, log: .silent)
    try backBus.register(back)
    #expect(settle(frontBus, backBus))
    try rig.toolstack.remove(disk)
    let anew = try rig.toolstack.addVbd(to: rig.guest.domain, servedBy: rig.control.domain, params: "disk.img")
    #expect(settle(frontBus, backBus))
    #expect(try rig.state(anew.frontendPath) == .connected)
    #expect(try rig.state(anew.backendPath) == .connected)
  }

  @Test func deviceRemovedWhileItIsConsideredIsNoFault() throws {
    var wasServed = false
    // At every call of the backend's to the store, until it makes fewer.
    for call in 1...100 where !wasServed {
      let disk = try rig.addDisk()
      let calls = Mutex(0)
      let log = CollectedLog()
      let platform = ObservedPlatform(rig.driverDomain) { [control = rig.control] in
        let isTime = calls.withLock { count in
          count += 1
          return count == call
        }
        if isTime { do { try Toolstack(on: control).remove(disk) } catch { Issue.record(error) } }
      }
      let backBus = try Bus(on: platform, log: log.logger)
      try backBus.register(FakeBackend())
      #expect(settle(backBus))
      wasServed = calls.withLock { $0 } < call
      #expect(try rig.toolstack.exists(disk) == wasServed, "removed at call \(call)")
      if wasServed { try rig.toolstack.remove(disk) }
      #expect(settle(backBus))
      #expect(log.lines.filter { $0.hasPrefix("error") || $0.hasPrefix("warning") } == [], "removed at call \(call)")
      #expect(try rig.error(of: rig.driverDomain, disk.backendPath) == nil, "removed at call \(call)")
      #expect(try !rig.toolstack.exists(disk), "removed at call \(call)")
    }
    #expect(wasServed)
  }
}
