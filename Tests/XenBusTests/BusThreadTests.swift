import TestSupport
import Testing
import XenBus
import XenPlatform

/// The thread that polls a bus.
@Suite(.timeLimit(.minutes(1)), .onEachStore) struct BusThreadTests {
  let rig: BusRig
  let disk: Toolstack.Device

  init() throws {
    rig = try BusRig()
    disk = try rig.addDisk()
  }

  private func thread(_ platform: any Platform, _ makeDriver: @escaping @Sendable (Bus) throws(XenstoreError) -> Void)
    throws -> BusThread
  {
    try BusThread(on: platform, log: .silent) { (bus) throws(XenstoreError) in
      try makeDriver(bus)
      return nil
    }
  }

  @Test(arguments: [Double.infinity, .greatestFiniteMagnitude])
  func endMayTakeAsLongAsTheOtherEndsNeed(seconds: Double) throws {
    let back = try thread(rig.driverDomain) { (bus) throws(XenstoreError) in try bus.register(FakeBackend()) }
    let front = try thread(rig.guest) { (bus) throws(XenstoreError) in try bus.register(FakeFrontend()) }
    while try rig.state(disk.frontendPath) != .connected { Wakeup.wait(for: -1, timeout: 1) }
    back.end(within: seconds)
    back.join()
    #expect(try rig.state(disk.backendPath) == .closed)
    front.end(within: 0)
    front.join()
  }

  @Test func endAtOnceLeavesTheStatesAsTheyAre() throws {
    let back = try thread(rig.driverDomain) { (bus) throws(XenstoreError) in try bus.register(FakeBackend()) }
    while try rig.state(disk.backendPath) != .initWait { Wakeup.wait(for: -1, timeout: 1) }
    back.end(within: 0)
    back.join()
    #expect(try rig.state(disk.backendPath) == .initWait)
  }
}
