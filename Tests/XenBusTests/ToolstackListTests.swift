import TestSupport
import Testing
import XenBus
import XenPlatform

/// What a toolstack sees of the devices, whoever has written what.
@Suite(.onEachStore) struct ToolstackListTests {
  let rig: BusRig

  init() throws { rig = try BusRig() }

  @Test func everyDeviceOfTheTypeIsListedWithBothStates() throws {
    let disk = try rig.addDisk()
    let other = try rig.toolstack.add(
      Toolstack.Disk(number: 51728, params: "disk.img", backendType: "swift", frontendRoot: "udevice"),
      to: rig.control.domain, servedBy: rig.control.domain)
    let card = try rig.toolstack.addVif(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    try rig.write(disk.frontendPath, .connected)
    try rig.write(disk.backendPath, .initWait)
    let disks = try rig.toolstack.devices(of: "vbd")
    #expect(disks.map(\.device) == [other, disk])
    #expect(disks.map(\.number) == [51728, 51712] && disks.map(\.guest) == [rig.control.domain, rig.guest.domain])
    #expect(disks.map(\.driverDomain) == [rig.control.domain, rig.driverDomain.domain])
    #expect(disks.map(\.frontendState) == [.initialising, .connected])
    #expect(disks.map(\.backendState) == [.initialising, .initWait])
    #expect(try rig.toolstack.devices(of: "vif").map(\.device) == [card])
  }

  @Test func errorsOfBothEndsAreShown() throws {
    let disk = try rig.addDisk()
    try rig.directory("/local/domain/1/error/device/vbd/51712").write([StoreEntry("error", "22 no pages")])
    #expect(try rig.toolstack.devices(of: "vbd").map(\.frontendError) == ["22 no pages"])
    let back = FakeBackend()
    let backBus = try rig.backBus(back)
    back.log.failures[disk.backendPath] = [.offer: .resource("no image")]
    #expect(settle(backBus))
    #expect(try rig.toolstack.devices(of: "vbd").map(\.backendError) == ["22 no image"])
    #expect(try rig.toolstack.devices(of: "vbd").map(\.device) == [disk])
  }

  @Test func halvesAreListed() throws {
    let disk = try rig.addDisk()
    let other = try rig.addDisk(51728)
    try rig.store.remove(disk.backendPath, in: nil)
    try rig.store.remove(other.frontendPath, in: nil)
    let disks = try rig.toolstack.devices(of: "vbd")
    #expect(disks.map(\.device) == [disk, other])
    #expect(disks.map(\.frontendState) == [.initialising, .unknown])
    #expect(disks.map(\.backendState) == [.unknown, .initialising])
  }

  /// Its driver domain names a frontend that is another's, or none.
  @Test(arguments: [
    "/local/domain/0/device/vbd/51712", "/local/domain/1/device/vif/51712", "/local/domain/1/device/vbd/51728",
    "/local/domain/1/d\u{7}/vbd/51712", "/local/domain/1/../vbd/51712", "//domain/1/device/vbd/51712", "", "x",
  ])
  func backendIsNotBelievedWhoseFrontendItIs(path: String) throws {
    let disk = try rig.addDisk()
    try rig.write(disk.backendPath, "frontend", path)
    let disks = try rig.toolstack.devices(of: "vbd")
    #expect(disks.map(\.device.frontendPath) == [disk.frontendPath], "the frontend alone is left")
    #expect(disks.map(\.backendState) == [.initialising])
  }

  @Test func rubbishBesideDevicesIsPassedOver() throws {
    let disk = try rig.addDisk()
    for path in [
      "/local/domain/2/backend/vbd/x/1", "/local/domain/2/backend/vbd/1/x", "/local/domain/2/backend/vbd/1/051712",
      "/local/domain/1/device/vbd/suspend", "/local/domain/x/backend/vbd/1/51712",
    ] {
      try rig.directory(path).write([StoreEntry("state", 4)])
    }
    #expect(try rig.toolstack.devices(of: "vbd").map(\.device) == [disk])
  }
}
