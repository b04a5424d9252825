import TestSupport
import Testing
import XenBus
import XenPlatform

/// X5: what fails closes its device, says why where the toolstack looks, and disturbs nobody else.
@Suite(.onEachStore) struct DeviceFailureTests {
  let rig: BusRig
  let front = FakeFrontend()
  let back = FakeBackend()
  let bad: Toolstack.Device
  let good: Toolstack.Device

  init() throws {
    rig = try BusRig()
    bad = try rig.addDisk(51712)
    good = try rig.addDisk(51728)
  }

  private func settleBoth() throws -> (front: Bus, back: Bus) {
    let buses = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(buses.0, buses.1))
    return buses
  }

  private func expectTheOtherDiskConnected() throws {
    #expect(try rig.state(good.frontendPath) == .connected)
    #expect(try rig.state(good.backendPath) == .connected)
  }

  @Test func malformedFrontendNumberIsRefused() throws {
    try rig.write(bad.backendPath, "frontend-id", "seven")
    _ = try settleBoth()
    #expect(
      try rig.error(of: rig.driverDomain, bad.backendPath)
        == "22 the key \(bad.backendPath)/frontend-id holds \"seven\" where a number from 0 to 65535 is expected")
    #expect(try rig.directory("/local/domain/2/error/backend/vbd/1").children() == ["51712"])
    #expect(try rig.state(bad.backendPath) == .closing)
    #expect(back.log.calls(at: bad.backendPath) == [])
    try expectTheOtherDiskConnected()
  }

  @Test func refusedDeviceIsReportedUntilItIsGone() throws {
    try rig.write(bad.backendPath, "frontend-id", "seven")
    let buses = try settleBoth()
    #expect(
      buses.back.report == [
        "\(bad.backendPath): refused; the key \(bad.backendPath)/frontend-id holds \"seven\" "
          + "where a number from 0 to 65535 is expected",
        "\(good.backendPath): connected",
      ])
    try rig.toolstack.remove(bad)
    #expect(settle(buses.front, buses.back))
    #expect(buses.back.report == ["\(good.backendPath): connected"])
    #expect(try !rig.directory("/local/domain/2").children().contains("error"), "its error node is gone, too")
  }

  @Test(arguments: ["", "not a path", "/ends/with/"])
  func malformedPathOfTheOtherEndIsRefused(path: String) throws {
    try rig.write(bad.backendPath, "frontend", path)
    _ = try settleBoth()
    #expect(try rig.error(of: rig.driverDomain, bad.backendPath) != nil)
    #expect(try rig.state(bad.backendPath) == .closing)
    try expectTheOtherDiskConnected()
  }

  @Test func refusedDeviceIsTakenUpOnceItsKeysAreMended() throws {
    try rig.write(bad.backendPath, "frontend-id", "seven")
    let buses = try settleBoth()
    try rig.write(bad.backendPath, "frontend-id", "1")
    #expect(settle(buses.front, buses.back))
    #expect(try rig.state(bad.backendPath) == .connected)
    #expect(
      try !rig.directory("/local/domain/2").children().contains("error"), "what is mended is not said any more")
  }

  @Test func halfWrittenDeviceWaitsForTheRest() throws {
    try rig.directory(bad.backendPath).remove("frontend")
    let buses = try settleBoth()
    #expect(try rig.error(of: rig.driverDomain, bad.backendPath) == nil)
    #expect(try rig.state(bad.backendPath) == .initialising)
    try rig.write(bad.backendPath, "frontend", bad.frontendPath)
    #expect(settle(buses.front, buses.back))
    #expect(try rig.state(bad.backendPath) == .connected)
  }

  @Test(arguments: [Call.probe, .offer, .connect])
  func backendThatFailsIsClosedWithItsReason(call: Call) throws {
    back.log.failures[bad.backendPath] = [call: .resource("the image is gone")]
    let buses = try settleBoth()
    #expect(try rig.error(of: rig.driverDomain, bad.backendPath) == "22 the image is gone")
    // The frontend begins again once: it cannot tell this from a backend that acted on what it read before.
    #expect(back.log.count(of: call, at: bad.backendPath) == 2)
    #expect(try rig.state(bad.backendPath) == .closed)
    #expect(try rig.state(bad.frontendPath) == .closed)
    #expect(buses.back.report[0].hasSuffix("; the image is gone"))
    try expectTheOtherDiskConnected()
  }

  @Test(arguments: [Call.probe, .publish, .connect])
  func frontendThatFailsIsClosedWithItsReason(call: Call) throws {
    front.log.failures[bad.frontendPath] = [call: .unsupported("no way to copy")]
    let buses = try settleBoth()
    #expect(try rig.error(of: rig.guest, bad.frontendPath) == "22 no way to copy")
    #expect(buses.front.report[0].contains(": waits for the backend to "))
    #expect(front.log.count(of: call, at: bad.frontendPath) == 1)
    #expect(try rig.state(bad.frontendPath) == .closed)
    #expect(buses.front.report[0].hasSuffix("; no way to copy"))
    try expectTheOtherDiskConnected()
  }

  @Test(arguments: [Call.probe, .offer])
  func failureIsClosingUntilTheFrontendHasClosed(call: Call) throws {
    back.log.failures[bad.backendPath] = [call: .resource("the image is gone")]
    let backBus = try rig.backBus(back)
    #expect(settle(backBus))
    #expect(try rig.state(bad.backendPath) == .closing)
    try rig.write(bad.frontendPath, .closed)
    #expect(settle(backBus))
    #expect(try rig.state(bad.backendPath) == .closed)
  }

  @Test func backendTriesAgainWhenItsFrontendBeginsAgain() throws {
    back.log.failures[bad.backendPath] = [.probe: .resource("the image is gone")]
    let buses = try settleBoth()
    back.log.failures = [:]
    let restarted = try rig.frontBus(FakeFrontend())
    #expect(settle(buses.back, restarted))
    #expect(try rig.state(bad.backendPath) == .connected)
  }

  @Test func frontendTriesAgainWhenItsBackendOffersAnew() throws {
    front.log.failures[bad.frontendPath] = [.publish: .unsupported("no way to copy")]
    let buses = try settleBoth()
    front.log.failures = [:]
    buses.back.close()
    #expect(settle(buses.front, buses.back))
    let restarted = try rig.backBus(FakeBackend())
    #expect(settle(buses.front, restarted))
    #expect(try rig.state(bad.frontendPath) == .connected)
    #expect(try rig.error(of: rig.guest, bad.frontendPath) == nil, "what is mended is not said any more")
  }

  @Test func failingDeviceThatIsUnpluggedGoesAway() throws {
    back.log.failures[bad.backendPath] = [.probe: .resource("the image is gone")]
    let backBus = try rig.backBus(back)
    #expect(settle(backBus))
    try rig.toolstack.unplug(bad)
    #expect(settle(backBus))
    #expect(try rig.toolstack.isClosed(bad))
  }

  @Test(.needsGuestsRights) func failureAtEveryLookIsSaidOnce() throws {
    try rig.store.setPermissions(
      "\(bad.backendPath)/online", [XenstorePermission(rig.control.domain, .none)], in: nil)
    let log = CollectedLog()
    let backBus = try Bus(on: rig.driverDomain, log: log.logger)
    try backBus.register(back)
    let frontBus = try rig.frontBus(front)
    #expect(settle(frontBus, backBus))
    // A look more.
    try rig.store.write("\(bad.backendPath)/anything", [], in: nil)
    #expect(settle(frontBus, backBus))
    #expect(log.lines.count { $0.hasPrefix("error") } == 1, "\(log.lines)")
    #expect(
      try rig.error(of: rig.driverDomain, bad.backendPath)
        == "22 xenstore read \(bad.backendPath)/online: its permissions forbid it")
    #expect(try rig.state(bad.backendPath) == .closing)
    try expectTheOtherDiskConnected()
  }

  @Test func faultOfAQueueClosesOnlyItsDevice() throws {
    back.queues[bad.backendPath] = (StoppingQueue(), .protocolViolation("the request index jumped"))
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    // The queue stops on a thread of its own, at its own time.
    let closed = backBus.run(seconds: 20) {
      frontBus.poll()
      return (try? rig.state(bad.backendPath)) == .closed
    }
    #expect(closed)
    #expect(settle(frontBus, backBus))
    #expect(try rig.error(of: rig.driverDomain, bad.backendPath) == "22 the request index jumped")
    #expect(back.log.count(of: .disconnect, at: bad.backendPath) > 0)
    try expectTheOtherDiskConnected()
  }
}
