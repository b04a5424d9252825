import TestSupport
import Testing
import XenBus
import XenLoopback
import XenPlatform

/// X13: a store that refuses for want of quota is said to do so, and holds up nobody else.
struct QuotaTests {
  let rig: BusRig
  let front = FakeFrontend()
  let back = FakeBackend()
  let disk: Toolstack.Device

  init() throws {
    rig = try BusRig()
    disk = try rig.addDisk()
  }

  @Test func nodeQuotaIsSaidWhenADeviceCannotPublishItsRings() throws {
    let backBus = try rig.backBus(back)
    #expect(settle(backBus))
    // The guest's own directory and the toolstack's keys in it leave room for nothing.
    rig.loopback.storeQuotas.nodesPerDomain = 1
    let frontBus = try rig.frontBus(front)
    #expect(settle(frontBus, backBus))
    #expect(
      frontBus.report[0].hasSuffix(
        "; xenstore write \(disk.frontendPath)/ring-ref: this domain's xenstore quota is used up"),
      "\(frontBus.report)")
    #expect(try rig.state(disk.frontendPath) == .closed)
    #expect(front.log.count(of: .release, at: disk.frontendPath) > 0, "what it had shared is given back")
    // The quota is the guest's alone: the backend goes on with another one.
    let other = rig.loopback.addDomain()
    rig.loopback.storeQuotas = StoreQuotas()
    let second = try rig.toolstack.addVbd(to: other.domain, servedBy: rig.driverDomain.domain, params: "disk.img")
    let otherFront = FakeFrontend()
    let otherBus = try Bus(on: other, log: .silent)
    try otherBus.register(otherFront)
    #expect(settle(otherBus, backBus))
    #expect(try rig.state(second.backendPath) == .connected)
  }

  @Test func deviceIsTakenUpAgainWhenThereIsQuota() throws {
    let backBus = try rig.backBus(back)
    rig.loopback.storeQuotas.nodesPerDomain = 1
    let frontBus = try rig.frontBus(front)
    #expect(settle(frontBus, backBus))
    #expect(try rig.state(disk.frontendPath) == .closed)
    rig.loopback.storeQuotas = StoreQuotas()
    backBus.close()
    #expect(settle(frontBus, backBus))
    let restarted = try rig.backBus(FakeBackend())
    #expect(settle(frontBus, restarted))
    #expect(try rig.state(disk.frontendPath) == .connected)
  }

  @Test func watchQuotaIsSaidByTheBus() throws {
    rig.loopback.storeQuotas.watchesPerDomain = 1
    let bus = try Bus(on: rig.guest, log: .silent)
    try bus.register(front)
    #expect(settle(bus))
    // One watch is the bus's own; the device's other end would be the second.
    #expect(try rig.state(disk.frontendPath) == .closing)
    #expect(
      try rig.error(of: rig.guest, disk.frontendPath)?.hasSuffix("or this domain has as many watches as it may") == true
    )
    do {
      try bus.register(FakeFrontend(type: "vif"))
      Issue.record("a second root was watched")
    } catch { #expect(error.code == .tooBig) }
  }

  @Test func entryTooLongForTheStoreIsSaid() throws {
    let store = try rig.guest.openXenstore()
    rig.loopback.storeQuotas.bytesPerNode = 64
    do throws(DeviceError) {
      try StoreDirectory("device", in: store).write(
        [StoreEntry("long", String(repeating: "x", count: 100))])
      Issue.record("it was written")
    } catch {
      #expect("\(error)" == "xenstore write device/long: this domain's xenstore quota is used up")
    }
  }

  /// oxenstored says EINVAL when a quota is used up.
  @Test func refusalOfAWellFormedWriteIsSaidToBeAQuotaPerhaps() {
    #expect(
      XenstoreError(.invalid, "write", "device/vbd/1/ring-ref").description
        == "xenstore write device/vbd/1/ring-ref: the path or value is not well-formed, or (oxenstored) a quota is used up"
    )
  }
}
