import TestSupport
import Testing
import XenBus
import XenPlatform

/// X11: devices as libxl makes and removes them.
@Suite(.onEachStore) struct ToolstackTests {
  let rig: BusRig

  init() throws { rig = try BusRig() }

  private func contents(_ path: String) throws -> [String: String] {
    let directory = rig.directory(path)
    return Dictionary(uniqueKeysWithValues: try directory.children().map { ($0, try directory.string($0)) })
  }

  @Test func diskHasLibxlsKeys() throws {
    let disk = try rig.toolstack.addVbd(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: "disk.img", isReadOnly: true)
    #expect(
      try contents("/local/domain/1/device/vbd/51712") == [
        "backend": "/local/domain/2/backend/vbd/1/51712", "backend-id": "2", "state": "1", "virtual-device": "51712",
        "device-type": "disk",
      ])
    #expect(
      try contents("/local/domain/2/backend/vbd/1/51712") == [
        "frontend": "/local/domain/1/device/vbd/51712", "frontend-id": "1", "online": "1", "removable": "0",
        "bootable": "1", "state": "1", "dev": "xvda", "type": "file", "mode": "r", "device-type": "disk",
        "discard-enable": "0", "params": "disk.img",
      ])
    #expect(disk.frontendPath == "/local/domain/1/device/vbd/51712")
    #expect(disk.backendPath == "/local/domain/2/backend/vbd/1/51712")
  }

  @Test(arguments: [
    (51712, "xvda"), (51729, "xvdb1"), (51952, "xvdp"), (268_439_552, "xvdq"), (268_439_569, "xvdq17"),
    (268_435_472, "xvda16"), (268_442_112, "xvdaa"), (268_615_168, "xvdaaa"), (768, "768"),
  ])
  func diskIsNamedByItsNumber(number: Int, name: String) throws {
    #expect(try rig.directory(try rig.addDisk(number).backendPath).string("dev") == name)
    #expect(VirtualDisk.number(of: name) == number)
  }

  @Test func guestThatKeepsWritingItsKeysDoesNotKeepItsDevice() throws {
    let disk = try rig.addDisk()
    let store = try rig.guest.openXenstore()
    let platform = ObservedPlatform(rig.control) {
      try? StoreDirectory(disk.frontendPath, in: store).write([StoreEntry("state", 1)])
    }
    try Toolstack(on: platform).remove(disk)
    #expect(try !rig.directory(disk.backendPath).exists())
    #expect(try rig.directory(disk.frontendPath).string("state") == "1", "it has written")
    // What it writes into its own home afterwards is no device.
    #expect(try rig.directory(disk.frontendPath).optionalString("backend") == nil)
  }

  @Test(arguments: [
    "", "xvd", "xvd1", "xvdA", "xvda0", "xvda01", "xvda256", "xvdaaaaaa", "sda", "-1", "+1", "0", "xvda-1",
    "xvdb\u{308}",
    "xvdb" + String(repeating: "\u{308}", count: 40),
  ])
  func nameOfNoDiskIsNone(name: String) { #expect(VirtualDisk.number(of: name) == nil) }

  @Test func lastDiskHasTheLastNumber() {
    let last = 1 << 28 | 0xFFFFF << 8 | 255
    #expect(VirtualDisk.number(of: VirtualDisk.name(of: last)) == last)
    #expect(VirtualDisk.number(of: "xvdzzzzz") == nil)
  }

  @Test func blockDeviceIsNamedAsLinuxsBackendWantsIt() throws {
    let disk = try rig.toolstack.add(
      Toolstack.Disk(number: 51728, params: "/dev/loop0", physicalDevice: "7:0", frontendRoot: "udevice"),
      to: rig.guest.domain, servedBy: rig.driverDomain.domain)
    #expect(disk.frontendPath == "/local/domain/1/udevice/vbd/51728")
    #expect(try contents(disk.frontendPath)["backend"] == disk.backendPath)
    #expect(
      try contents(disk.backendPath) == [
        "frontend": disk.frontendPath, "frontend-id": "1", "online": "1", "removable": "0", "bootable": "1",
        "state": "1", "dev": "xvdb", "type": "phy", "physical-device": "7:0", "mode": "w", "device-type": "disk",
        "discard-enable": "1", "params": "/dev/loop0", "script": "none", "hotplug-status": "connected",
      ])
  }

  @Test func scriptIsWaitedFor() throws {
    let card = try rig.toolstack.add(
      Toolstack.Card(
        handle: 3, mac: "00:16:3e:00:00:03", mtu: 9000, script: "/etc/xen/scripts/vif-bridge", backendType: "swift"),
      to: rig.guest.domain, servedBy: rig.driverDomain.domain)
    #expect(card.backendPath == "/local/domain/2/backend/swift/1/3")
    let keys = try contents(card.backendPath)
    #expect(keys["script"] == "/etc/xen/scripts/vif-bridge" && keys["hotplug-status"] == nil)
    #expect(try contents(card.frontendPath)["mtu"] == "9000")
  }

  @Test func deviceThatIsThereIsNotMadeAgain() throws {
    let disk = try rig.addDisk()
    try rig.write(disk.frontendPath, .connected)
    for half in [disk.backendPath, disk.frontendPath] {
      #expect { try rig.addDisk() } throws: { "\($0)".hasSuffix("exists already: remove that device first") }
      #expect(try rig.state(disk.frontendPath) == .connected)
      // Also when only one half of it is left.
      if half == disk.backendPath { try rig.store.remove(half, in: nil) }
    }
  }

  @Test func deviceOfAnAbsentDomainIsNotMade() throws {
    for (guest, driverDomain) in [
      (DomainID(rawValue: 9), rig.driverDomain.domain), (rig.guest.domain, DomainID(rawValue: 9)),
    ] {
      #expect(throws: DeviceError.resource("there is no domain 9")) {
        try rig.toolstack.addVbd(to: guest, servedBy: driverDomain, params: "disk.img")
      }
    }
    #expect(try !rig.directory("/local/domain/9").exists())
  }

  @Test func cardHasLibxlsKeys() throws {
    _ = try rig.toolstack.addVif(to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    #expect(
      try contents("/local/domain/1/device/vif/0") == [
        "backend": "/local/domain/2/backend/vif/1/0", "backend-id": "2", "state": "1", "handle": "0",
        "mac": "00:16:3e:00:00:01", "mtu": "1500",
      ])
    #expect(
      try contents("/local/domain/2/backend/vif/1/0") == [
        "frontend": "/local/domain/1/device/vif/0", "frontend-id": "1", "online": "1", "state": "1", "handle": "0",
        "mac": "00:16:3e:00:00:01", "type": "vif", "script": "none", "hotplug-status": "connected",
      ])
  }

  @Test func permissionsAreLibxlsAndChildrenInheritThem() throws {
    let disk = try rig.addDisk()
    let frontends = [XenstorePermission(rig.guest.domain, .none), XenstorePermission(rig.driverDomain.domain, .read)]
    let backends = [XenstorePermission(rig.driverDomain.domain, .none), XenstorePermission(rig.guest.domain, .read)]
    for (path, expected) in [(disk.frontendPath, frontends), (disk.backendPath, backends)] {
      for path in [path, path + "/state"] { #expect(try rig.store.permissions(path, in: nil) == expected) }
    }
  }

  @Test(.needsGuestsRights) func eachEndReadsTheOthersDirectoryAndCannotWriteIt() throws {
    let disk = try rig.addDisk()
    for (domain, path) in [(rig.guest, disk.backendPath), (rig.driverDomain, disk.frontendPath)] {
      let theirs = StoreDirectory(path, in: try domain.openXenstore())
      #expect(try theirs.string("state") == "1")
      for key in ["state", "new-key"] {
        #expect { try theirs.write([StoreEntry(key, 4)]) } throws: { isRefusal($0) }
      }
      #expect { try theirs.remove("state") } throws: { isRefusal($0) }
    }
  }

  @Test(.needsGuestsRights) func strangerReadsNothing() throws {
    let disk = try rig.addDisk()
    let stranger = try rig.loopback.addDomain().openXenstore()
    for path in [disk.backendPath, disk.frontendPath] {
      #expect { try StoreDirectory(path, in: stranger).string("state") } throws: { isRefusal($0) }
    }
  }

  private func isRefusal(_ error: any Error) -> Bool {
    if case .store(let error) = error as? DeviceError { error.code == .permissionDenied } else { false }
  }

  @Test func bothHalvesAppearInOneTransaction() throws {
    let store = rig.store
    let seen = Sightings<[Bool]>()
    let platform = ObservedPlatform(rig.control) {
      seen.note(
        ["/local/domain/1/device/vbd/51712/state", "/local/domain/2/backend/vbd/1/51712/state"].map {
          (try? store.read($0, in: nil)) != nil
        })
    }
    let disk = try Toolstack(on: platform).addVbd(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: "disk.img")
    #expect(seen.all == [[false, false], [true, true]])
    try Toolstack(on: platform).remove(disk)
    #expect(seen.all == [[false, false], [true, true]])
    #expect(try !rig.directory(disk.frontendPath).exists())
  }

  @Test func unpluggedDeviceIsClosedByItsBackend() throws {
    let disk = try rig.addDisk()
    let (front, back) = (FakeFrontend(), FakeBackend())
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    #expect(try !rig.toolstack.isClosed(disk))
    try rig.toolstack.unplug(disk)
    #expect(try !rig.toolstack.isClosed(disk))
    #expect(settle(frontBus, backBus))
    #expect(try rig.toolstack.isClosed(disk))
    #expect(front.log.calls(at: disk.frontendPath).last == .release)
    #expect(back.log.calls(at: disk.backendPath).last == .disconnect)
    #expect(backBus.report == [])
  }

  @Test func deviceWithoutFrontendIsUnplugged() throws {
    let disk = try rig.addDisk()
    let backBus = try rig.backBus(FakeBackend())
    #expect(settle(backBus))
    try rig.toolstack.unplug(disk)
    #expect(settle(backBus))
    #expect(try rig.toolstack.isClosed(disk))
  }

  @Test func backendThatComesAfterTheUnplugClosesTheDevice() throws {
    let disk = try rig.addDisk()
    try rig.toolstack.unplug(disk)
    let backBus = try rig.backBus(FakeBackend())
    #expect(settle(backBus))
    #expect(try rig.toolstack.isClosed(disk))
  }

  @Test func closedBackendStaysClosedWhenUnplugged() throws {
    let disk = try rig.addDisk()
    let (frontBus, backBus) = (try rig.frontBus(FakeFrontend()), try rig.backBus(FakeBackend()))
    #expect(settle(frontBus, backBus))
    frontBus.close()
    #expect(settle(frontBus, backBus))
    #expect(try rig.state(disk.backendPath) == .closed)
    try rig.toolstack.unplug(disk)
    #expect(settle(frontBus, backBus))
    #expect(try rig.toolstack.isClosed(disk))
  }

  @Test func unplugOfARemovedDeviceMakesNothing() throws {
    let disk = try rig.addDisk()
    try rig.toolstack.remove(disk)
    try rig.toolstack.unplug(disk)
    #expect(try !rig.directory(disk.backendPath).exists())
    #expect(try rig.toolstack.isClosed(disk))
  }

  @Test func lastDeviceLeavesNoEmptyDirectories() throws {
    let disks = [try rig.addDisk(), try rig.addDisk(51728)]
    try rig.toolstack.remove(disks[0])
    #expect(try rig.directory("/local/domain/1/device/vbd").children() == ["51728"])
    #expect(try rig.directory("/local/domain/2/backend/vbd/1").children() == ["51728"])
    try rig.toolstack.remove(disks[1])
    #expect(try rig.directory("/local/domain/1/device").children() == [])
    #expect(try rig.directory("/local/domain/2/backend").children() == [])
    #expect(try rig.directory("/local/domain/2/backend").exists())
  }

  @Test func destroyRemovesADeviceWhoseBackendNeverCloses() throws {
    let disk = try rig.addDisk()
    try rig.write(disk.backendPath, .connected)
    #expect(try rig.toolstack.destroy(disk, timeout: 0.05) == false)
    #expect(try !rig.directory(disk.frontendPath).exists())
    #expect(try !rig.directory(disk.backendPath).exists())
  }

  /// As Linux's backends, which do nothing before they have seen a frontend.
  @Test(arguments: [
    (XenbusState.initialising, XenbusState.initWait), (.closed, .initWait), (.initialising, .initialising),
  ])
  func nobodyIsWaitedForWhereNothingIsConnected(front: XenbusState, back: XenbusState) throws {
    let disk = try rig.addDisk()
    try rig.write(disk.frontendPath, front)
    try rig.write(disk.backendPath, back)
    #expect(try rig.toolstack.destroy(disk, timeout: .infinity))
    #expect(try !rig.directory(disk.backendPath).exists())
  }

  @Test(arguments: [XenbusState.initialised, .connected, .closing, .reconfiguring, .reconfigured])
  func frontendThatMayHoldSomethingIsWaitedFor(front: XenbusState) throws {
    let disk = try rig.addDisk()
    try rig.write(disk.frontendPath, front)
    #expect(try !rig.toolstack.destroy(disk, timeout: 0.02))
  }

  @Test func destroySaysThatTheBackendHasClosed() throws {
    let disk = try rig.addDisk()
    try rig.write(disk.backendPath, .closed)
    #expect(try rig.toolstack.destroy(disk, timeout: 5))
    #expect(try !rig.directory(disk.backendPath).exists())
  }

  @Test func timeoutsAreLibxls() {
    #expect(Toolstack.destroyTimeout == 10)
    #expect(Toolstack.hotplugTimeout == 40)
  }
}
