import Synchronization
import TestSupport
import Testing
import XenBus
import XenPlatform

/// What happens to a device while it is connected, or could be.
@Suite(.onEachStore) struct ConnectedDeviceTests {
  let rig: BusRig
  let front = FakeFrontend()
  let back = FakeBackend()
  let disk: Toolstack.Device

  init() throws {
    rig = try BusRig()
    disk = try rig.addDisk()
  }

  private func connect() throws -> (front: Bus, back: Bus) {
    let buses = (front: try rig.frontBus(front), back: try rig.backBus(back))
    #expect(settle(buses.front, buses.back))
    return buses
  }

  // MARK: X5: errors that do not close

  @Test func queueThatCallsForAttentionWarnsAndGoesOn() throws {
    let buses = try connect()
    let call = try #require(back.attention[disk.backendPath])
    call()
    call()
    #expect(!buses.back.isQuiet, "the call wakes the bus")
    #expect(settle(buses.front, buses.back))
    #expect(back.log.count(of: .attend, at: disk.backendPath) == 1, "calls before a turn are one")
    #expect(try rig.error(of: rig.driverDomain, disk.backendPath) == "22 the link went down")
    #expect(try rig.state(disk.backendPath) == .connected)
    #expect(try rig.state(disk.frontendPath) == .connected)
  }

  @Test func failureOfWhatAQueueCalledForClosesItsDevice() throws {
    let buses = try connect()
    back.log.failures[disk.backendPath] = [.attend: .resource("the link is gone for good")]
    back.attention[disk.backendPath]?()
    #expect(settle(buses.front, buses.back))
    #expect(try rig.error(of: rig.driverDomain, disk.backendPath) == "22 the link is gone for good")
    #expect(try rig.state(disk.backendPath) == .closed)
  }

  @Test func callForADeviceThatIsClosedIsIgnored() throws {
    let buses = try connect()
    let call = try #require(back.attention[disk.backendPath])
    try rig.toolstack.unplug(disk)
    #expect(settle(buses.front, buses.back))
    call()
    #expect(settle(buses.front, buses.back))
    #expect(back.log.count(of: .attend, at: disk.backendPath) == 0)
  }

  @Test func errorOfADeviceThatIsGoneIsRemoved() throws {
    let buses = try connect()
    back.attention[disk.backendPath]?()
    #expect(settle(buses.front, buses.back))
    try rig.toolstack.unplug(disk)
    #expect(settle(buses.front, buses.back))
    try rig.toolstack.remove(disk)
    #expect(settle(buses.front, buses.back))
    #expect(try !rig.directory("/local/domain/2").children().contains("error"))
  }

  /// A queue stops while its frontend goes through another connection, and the next queue wants something at once.
  @Test func faultOfAFormerLifeDoesNotSwallowACallForAttention() throws {
    let host = ReportingHost()
    back.queues[disk.backendPath] = (StoppingQueue(), .protocolViolation("the request index jumped"))
    let backBus = try Bus(on: rig.driverDomain, queueHost: host, log: .silent)
    try backBus.register(back)
    #expect(settle(try rig.frontBus(front), backBus))
    back.log.events[disk.backendPath] = [
      .start: { [back, disk] in
        host.stopFirst()
        back.attention[disk.backendPath]?()
      }
    ]
    #expect(settle(try rig.frontBus(FakeFrontend()), backBus))
    #expect(back.log.count(of: .start, at: disk.backendPath) == 2)
    #expect(back.log.count(of: .attend, at: disk.backendPath) == 1)
    #expect(try rig.state(disk.backendPath) == .connected)
  }

  // MARK: X3: changes at the other end

  @Test func watchedKeyOfTheBackendIsFollowed() throws {
    let buses = try connect()
    try rig.write(disk.backendPath, "carrier", "0")
    #expect(settle(buses.front, buses.back))
    #expect(front.seen.last == "0")
    try rig.write(disk.backendPath, "carrier", "1")
    #expect(settle(buses.front, buses.back))
    #expect(front.seen.last == "1")
  }

  @Test func keysOfAnEndThatIsNotConnectedAreNotLookedAt() throws {
    let bus = try rig.frontBus(front)
    try rig.write(disk.backendPath, "carrier", "0")
    #expect(settle(bus))
    #expect(front.seen.isEmpty)
  }

  @Test func failureOfAChangeClosesTheDevice() throws {
    let buses = try connect()
    front.log.failures[disk.frontendPath] = [.otherEndChanged: .unsupported("the disk has become smaller")]
    try rig.write(disk.backendPath, "carrier", "0")
    #expect(settle(buses.front, buses.back))
    #expect(try rig.error(of: rig.guest, disk.frontendPath) == "22 the disk has become smaller")
    #expect(try rig.state(disk.frontendPath) == .closed)
  }

  // MARK: X7: the hotplug script

  @Test func deviceIsConnectedWhenItsHotplugScriptHasFinished() throws {
    back.waitsForHotplug = true
    let buses = try connect()
    #expect(try rig.state(disk.backendPath) == .initWait)
    #expect(buses.back.report == ["\(disk.backendPath): waits for its hotplug script to finish (hotplug-status)"])
    try rig.write(disk.backendPath, "hotplug-status", "connected")
    #expect(settle(buses.front, buses.back))
    #expect(try rig.state(disk.backendPath) == .connected)
    // As when the module of Linux's backend is removed: it matters to nobody now.
    try rig.directory(disk.backendPath).remove("hotplug-status")
    #expect(settle(buses.front, buses.back))
    #expect(try rig.state(disk.backendPath) == .connected)
  }

  @Test func hotplugScriptThatFailsClosesTheDevice() throws {
    back.waitsForHotplug = true
    let buses = try connect()
    try rig.write(disk.backendPath, "hotplug-error", "there is no bridge xenbr0")
    try rig.write(disk.backendPath, "hotplug-status", "error")
    #expect(settle(buses.front, buses.back))
    #expect(
      try rig.error(of: rig.driverDomain, disk.backendPath)
        == "22 the hotplug script failed: \"there is no bridge xenbr0\"")
    #expect(try rig.state(disk.backendPath) == .closed)
    #expect(try rig.state(disk.frontendPath) == .closed)
    #expect(try rig.toolstack.destroy(disk, timeout: 0), "it can be unplugged")
    #expect(settle(buses.front, buses.back))
    #expect(buses.back.isEmpty)
  }

  @Test func hotplugScriptThatFailsLateDoesNotCloseAConnectedDevice() throws {
    back.waitsForHotplug = true
    try rig.write(disk.backendPath, "hotplug-status", "connected")
    let buses = try connect()
    try rig.write(disk.backendPath, "hotplug-status", "error")
    #expect(settle(buses.front, buses.back))
    #expect(try rig.state(disk.backendPath) == .connected)
  }

  @Test func driverThatNeedsNoHotplugScriptDoesNotWaitForOne() throws {
    try rig.write(disk.backendPath, "hotplug-status", "error")
    _ = try connect()
    #expect(try rig.state(disk.backendPath) == .connected)
  }

  // MARK: X12: one domain's changes

  @Test func manyDevicesOfOneDomainKeepAnotherWaitingForOnePollOnly() throws {
    for number in 1...40 { _ = try rig.addDisk(51712 + 16 * number) }
    let other = try rig.addDomain()
    let late = try rig.toolstack.addVbd(
      to: other, servedBy: rig.driverDomain.domain, params: "disk.img")
    let bus = try rig.backBus(back)
    #expect(bus.poll() == .more, "41 devices of one domain are more than one poll takes")
    #expect(back.log.calls(at: late.backendPath) == [.probe, .offer])
    #expect(settle(bus))
    #expect(back.log.calls.count == 42)
  }

  @Test func stormOfOneKeyIsOneTurn() throws {
    let buses = try connect()
    let looks = front.seen.count
    for number in 0..<50 { try rig.write(disk.backendPath, "carrier", "\(number % 2)") }
    buses.front.poll()
    #expect(front.seen.count == looks + 1)
  }

  // MARK: X15: what was agreed

  @Test func busTellsWhatEachDeviceAgreedOn() throws {
    let buses = try connect()
    let lines = buses.back.negotiations[disk.backendPath]?.lines
    #expect(lines?.map(\.feature) == ["feature-x"])
    #expect(lines?.first?.reason == "the frontend does not use it")
  }

  // MARK: A peer that stops answering

  @Test func frontendThatNeverClosesHoldsUpNobodyElse() throws {
    let second = try rig.addDisk(51728)
    let buses = try connect()
    // Its process hangs: nobody polls the frontend's bus any more.
    try rig.toolstack.unplug(disk)
    #expect(settle(buses.back))
    #expect(
      buses.back.report == [
        "\(disk.backendPath): waits for the frontend to close; it is Connected (4)", "\(second.backendPath): connected",
      ])
    #expect(try !rig.toolstack.destroy(disk, timeout: 0.05), "the toolstack does not wait for ever")
    #expect(settle(buses.back))
    #expect(back.log.count(of: .disconnect, at: disk.backendPath) > 0)
    #expect(buses.back.report == ["\(second.backendPath): connected"])
  }
}

/// Polls nothing, and says that the first queue has stopped when it is told to.
private final class ReportingHost: QueueHost {
  private let whenStopped = Mutex<(@Sendable () -> Void)?>(nil)
  let now = Uptime(nanoseconds: 0)

  func start(_ queue: any DataQueue, name: String, whenStopped: @escaping @Sendable () -> Void) {
    self.whenStopped.withLock { $0 = $0 ?? whenStopped }
  }

  func stop(_ queue: any DataQueue) {}

  func stopFirst() { whenStopped.withLock(\.self)?() }
}
