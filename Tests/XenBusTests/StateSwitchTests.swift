import TestSupport
import Testing
import XenBus
import XenPlatform

/// X4 and X6: how states are written, and how they are taken.
@Suite(.onEachStore) struct StateSwitchTests {
  let rig: BusRig
  let front = FakeFrontend()
  let back = FakeBackend()
  let disk: Toolstack.Device

  init() throws {
    rig = try BusRig()
    disk = try rig.addDisk()
  }

  /// Every pair of state and key that an outsider sees at `path` between any two calls of the bus on `platform`.
  private func sightings(
    of key: String, at path: String, on platform: any Platform, _ body: (any Platform) throws -> Void
  ) rethrows -> Set<[String]> {
    let store = rig.store
    let seen = Sightings<[String]>()
    try body(
      ObservedPlatform(platform) {
        let pair = ["state", key].map { key in
          (try? store.read("\(path)/\(key)", in: nil)).map { String(decoding: $0, as: UTF8.self) } ?? "none"
        }
        seen.note(pair)
      })
    return seen.all
  }

  @Test func frontendsKeysAndStateAppearTogether() throws {
    try rig.write(disk.backendPath, .initWait)
    let seen = try sightings(of: "ring-ref", at: disk.frontendPath, on: rig.guest) { platform in
      let bus = try Bus(on: platform, log: .silent)
      try bus.register(front)
      #expect(settle(bus))
    }
    #expect(seen == [["1", "none"], ["3", "8"]])
  }

  @Test func backendsFeaturesAndStateAppearTogether() throws {
    let seen = try sightings(of: "feature-x", at: disk.backendPath, on: rig.driverDomain) { platform in
      let bus = try Bus(on: platform, log: .silent)
      try bus.register(back)
      #expect(settle(bus))
    }
    #expect(seen == [["1", "none"], ["2", "1"]])
  }

  @Test(arguments: [Call.probe, .offer]) func nothingIsWrittenWhereTheBackendHasGoneMeanwhile(call: Call) throws {
    back.log.events[disk.backendPath] = [call: { [rig, disk] in try? rig.toolstack.remove(disk) }]
    let backBus = try rig.backBus(back)
    #expect(settle(backBus))
    #expect(try !rig.directory(disk.backendPath).exists())
    #expect(back.log.calls(at: disk.backendPath).last == .disconnect)
  }

  @Test(arguments: [Call.publish, .connect]) func nothingIsWrittenWhereTheFrontendHasGoneMeanwhile(call: Call) throws {
    front.log.events[disk.frontendPath] = [call: { [rig, disk] in try? rig.toolstack.remove(disk) }]
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    #expect(try !rig.directory(disk.frontendPath).exists())
    #expect(front.log.calls(at: disk.frontendPath).last == .release)
  }

  @Test func sameStateWrittenAgainChangesNothing() throws {
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    #expect(frontBus.isConnected && backBus.isConnected)
    let calls = (front.log.calls(at: disk.frontendPath), back.log.calls(at: disk.backendPath))
    for _ in 0..<3 {
      try rig.write(disk.frontendPath, .connected)
      try rig.write(disk.backendPath, .connected)
    }
    #expect(settle(frontBus, backBus))
    #expect(front.log.calls(at: disk.frontendPath) == calls.0)
    #expect(back.log.calls(at: disk.backendPath) == calls.1)
  }

  @Test func eventForADeviceThatIsGoneIsIgnored() throws {
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    // The event of the other end's state is older than the removal, and is taken together with it.
    try rig.write(disk.frontendPath, .closing)
    try rig.toolstack.remove(disk)
    #expect(settle(frontBus, backBus))
    #expect(back.log.count(of: .disconnect, at: disk.backendPath) == 1)
    #expect(try !rig.directory(disk.backendPath).exists())
  }

  @Test func frontendThatWritesConnectedAtOnceIsConnected() throws {
    let front = FakeFrontend(publishedState: .connected)
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    #expect(back.log.calls(at: disk.backendPath) == [.probe, .offer, .connect, .start])
    #expect(front.log.calls(at: disk.frontendPath) == [.probe, .publish, .connect])
  }

  @Test func stormOfStatesFromOnePeerStarvesNoOtherDevice() throws {
    let other = try rig.addDisk(51728)
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    for _ in 0..<40 {
      for count in 0..<12 { try rig.write(disk.frontendPath, count % 2 == 0 ? .initialising : .closed) }
      for bus in [frontBus, backBus] { bus.poll() }
    }
    #expect(try rig.state(other.frontendPath) == .connected)
  }
}
