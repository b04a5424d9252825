import Synchronization
import TestSupport
import Testing
import XenBus
import XenPlatform

/// B17: a backend's process leaves its device connected, and another one goes on.
@Suite(.onEachStore) struct DetachTests {
  /// A connected device whose backend has detached.
  private struct Detached {
    let rig: BusRig
    let disk: Toolstack.Device
    let front = FakeFrontend()
    let frontBus: Bus

    init() throws {
      rig = try BusRig()
      disk = try rig.addDisk()
      frontBus = try rig.frontBus(front)
      let back = FakeBackend()
      let backBus = try rig.backBus(back)
      try #require(settle(frontBus, backBus) && backBus.isConnected)
      #expect(backBus.detach().isEmpty)
      #expect(back.log.calls(at: disk.backendPath) == [.probe, .offer, .connect, .start, .detach])
      // Nor does it find them again.
      #expect(settle(backBus) && backBus.report.isEmpty)
    }

    var word: String? { get throws { try rig.directory(disk.backendPath).optionalString("resume-from") } }
    var states: [XenbusState] { get throws { [try rig.state(disk.frontendPath), try rig.state(disk.backendPath)] } }
  }

  @Test func anotherProcessGoesOnAndTheFrontendNoticesNothing() throws {
    let detached = try Detached()
    let before = detached.front.log.calls(at: detached.disk.frontendPath)
    #expect(try detached.states == [.connected, .connected])
    #expect(try detached.word == "17")
    let back = FakeBackend()
    let bus = try detached.rig.backBus(back)
    #expect(settle(detached.frontBus, bus) && bus.isConnected && detached.frontBus.isConnected)
    #expect(back.resumed == ["17"])
    #expect(back.log.calls(at: detached.disk.backendPath) == [.probe, .resume, .start])
    #expect(detached.front.log.calls(at: detached.disk.frontendPath) == before)
    // Whoever comes after a crash from here on has no word to go by.
    #expect(try detached.word == nil)
  }

  @Test func deviceThatCannotBeTakenUpWaitsForAProcessThatCan() throws {
    let detached = try Detached()
    let path = detached.disk.backendPath
    for call in [Call.probe, .resume] {
      let back = FakeBackend()
      back.log.failures = [path: [call: .resource("the image is another one")]]
      let bus = try detached.rig.backBus(back)
      #expect(settle(detached.frontBus, bus))
      #expect(try detached.states == [.connected, .connected])
      #expect(try detached.word == "17")
      #expect(try detached.rig.error(of: detached.rig.driverDomain, path) == "22 the image is another one")
      #expect(
        bus.report == [
          "\(path): waits for a start of its backend with what it was connected with; the frontend goes on waiting; the "
            + "image is another one"
        ])
      #expect(!bus.isConnected && back.log.count(of: .start, at: path) == 0)
    }
    let back = FakeBackend()
    let bus = try detached.rig.backBus(back)
    #expect(settle(detached.frontBus, bus) && bus.isConnected)
    #expect(try detached.rig.error(of: detached.rig.driverDomain, path) == nil)
  }

  @Test func frontendThatHasLeftMeanwhileIsOfferedTheDeviceAnew() throws {
    let detached = try Detached()
    detached.frontBus.close()
    #expect(settle(detached.frontBus))
    let back = FakeBackend()
    let bus = try detached.rig.backBus(back)
    #expect(settle(detached.frontBus, bus))
    #expect(back.resumed.isEmpty)
    #expect(try detached.word == nil)
    let front = FakeFrontend()
    let frontBus = try detached.rig.frontBus(front)
    #expect(settle(frontBus, bus) && bus.isConnected)
  }

  @Test func deviceThatIsWithdrawnMeanwhileIsClosed() throws {
    let detached = try Detached()
    try detached.rig.toolstack.unplug(detached.disk)
    let back = FakeBackend()
    let bus = try detached.rig.backBus(back)
    #expect(settle(detached.frontBus, bus))
    #expect(try detached.states == [.closed, .closed])
    #expect(bus.isEmpty && back.resumed.isEmpty)
  }

  @Test func heldDeviceIsClosedWhenItsFrontendLeaves() throws {
    let detached = try Detached()
    let back = FakeBackend()
    back.log.failures = [detached.disk.backendPath: [.resume: .resource("the image is another one")]]
    let bus = try detached.rig.backBus(back)
    #expect(settle(detached.frontBus, bus))
    detached.frontBus.close()
    #expect(settle(detached.frontBus, bus))
    #expect(try detached.states == [.closed, .initWait])
  }

  /// Nobody else would: whoever destroyed the guest may have given up waiting for us, or run in a driver domain's place.
  @Test(arguments: [false, true]) func deviceWhoseGuestIsDestroyedMeanwhileIsRemoved(isHeld: Bool) throws {
    let detached = try Detached()
    let back = FakeBackend()
    if isHeld { back.log.failures = [detached.disk.backendPath: [.resume: .resource("the image is another one")]] }
    if !isHeld { try detached.rig.store.remove(detached.disk.frontendPath, in: nil) }
    let bus = try detached.rig.backBus(back)
    #expect(settle(bus))
    if isHeld { try detached.rig.store.remove(detached.disk.frontendPath, in: nil) }
    #expect(settle(bus))
    #expect(try !detached.rig.directory(detached.disk.backendPath).exists())
    #expect(bus.report.isEmpty && back.log.count(of: .offer, at: detached.disk.backendPath) == 0)
  }

  /// The toolstack was quicker than its watch.
  @Test(arguments: [false, true]) func wordIsNotLeftForADeviceThatIsGone(isMadeAnew: Bool) throws {
    let rig = try BusRig()
    let disk = try rig.addDisk()
    let (frontBus, backBus) = (try rig.frontBus(FakeFrontend()), try rig.backBus(FakeBackend()))
    #expect(settle(frontBus, backBus) && backBus.isConnected)
    try rig.toolstack.remove(disk)
    if isMadeAnew { _ = try rig.addDisk() }
    #expect(backBus.detach().isEmpty)
    #expect(try rig.directory(disk.backendPath).exists() == isMadeAnew)
    #expect(try rig.directory(disk.backendPath).optionalString("resume-from") == nil)
  }

  @Test func oneDeviceThatCannotBeDetachedFromDoesNotKeepTheOthers() throws {
    let rig = try BusRig()
    let disks = try [51712, 51728, 51744].map { try rig.addDisk($0) }
    let back = FakeBackend()
    back.log.failures = [disks[1].backendPath: [.detach: .resource("the store hangs")]]
    let (frontBus, backBus) = (try rig.frontBus(FakeFrontend()), try rig.backBus(back))
    #expect(settle(frontBus, backBus) && backBus.isConnected)
    #expect(Array(backBus.detach().keys) == [disks[1].backendPath])
    let words = try disks.map { try rig.directory($0.backendPath).optionalString("resume-from") }
    #expect(words == ["17", nil, "17"])
  }

  @Test func frontendThatIsClosingIsClosedByTheNext() throws {
    let rig = try BusRig()
    let disk = try rig.addDisk()
    let (front, back) = (FakeFrontend(), FakeBackend())
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus) && backBus.isConnected)
    try rig.write(disk.frontendPath, .closing)
    #expect(backBus.detach().isEmpty)
    let next = FakeBackend()
    let nextBus = try rig.backBus(next)
    #expect(settle(nextBus) && next.resumed.isEmpty)
    #expect(try rig.state(disk.backendPath) == .closing)
  }

  @Test func driverThatCannotDetachSaysSoAndItsDeviceIsClosedByTheNext() throws {
    let rig = try BusRig()
    let disk = try rig.addDisk()
    let (front, back) = (FakeFrontend(), FakeBackend())
    back.log.failures = [disk.backendPath: [.detach: .resource("the store hangs")]]
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus) && backBus.isConnected)
    #expect(backBus.detach() == [disk.backendPath: .resource("the store hangs")])
    #expect(try rig.error(of: rig.driverDomain, disk.backendPath) == "22 the store hangs")
    #expect(try rig.directory(disk.backendPath).optionalString("resume-from") == nil)
    let next = FakeBackend()
    let nextBus = try rig.backBus(next)
    #expect(settle(frontBus, nextBus) && nextBus.isConnected && frontBus.isConnected)
    #expect(next.log.count(of: .connect, at: disk.backendPath) == 1)
    #expect(front.log.count(of: .publish, at: disk.frontendPath) == 2)
  }
}

/// B17: a guest that is no more leaves nothing behind.
@Suite(.onEachStore) struct GoneFrontendTests {
  @Test func backendRemovesTheKeysOfADeviceWhoseGuestIsGone() throws {
    let rig = try BusRig()
    let (disk, other) = (try rig.addDisk(), try rig.addDisk(51728))
    let (front, back) = (FakeFrontend(), FakeBackend())
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus) && backBus.isConnected)
    try rig.store.remove(disk.frontendPath, in: nil)
    #expect(settle(backBus))
    #expect(try !rig.directory(disk.backendPath).exists())
    #expect(try rig.state(other.backendPath) == .connected)
    // The last one takes the directory of its guest with it.
    try rig.store.remove(other.frontendPath, in: nil)
    #expect(settle(backBus))
    #expect(try rig.directory("/local/domain/2/backend/vbd").children() == [])
    #expect(backBus.report.isEmpty)
  }

  /// Before the frontend has shared anything, too.
  @Test func backendThatWaitsRemovesTheKeysOfADeviceWhoseGuestIsGone() throws {
    let rig = try BusRig()
    let disk = try rig.addDisk()
    let backBus = try rig.backBus(FakeBackend())
    #expect(settle(backBus))
    #expect(try rig.state(disk.backendPath) == .initWait)
    try rig.store.remove(disk.frontendPath, in: nil)
    #expect(settle(backBus))
    #expect(try !rig.directory(disk.backendPath).exists())
    #expect(backBus.report.isEmpty)
  }

  /// As by a process that died with its guest: the next one finds the keys.
  @Test(arguments: XenbusState.allCases)
  func keysFoundOfADeviceWhoseGuestIsGoneAreRemoved(state: XenbusState) throws {
    let rig = try BusRig()
    let disk = try rig.addDisk()
    try rig.write(disk.backendPath, state)
    try rig.store.remove(disk.frontendPath, in: nil)
    let backBus = try rig.backBus(FakeBackend())
    #expect(settle(backBus))
    #expect(try !rig.directory(disk.backendPath).exists())
    #expect(backBus.report.isEmpty)
  }

  /// What a toolstack makes while the backend removes the keys.
  enum Made: CaseIterable {
    /// The same device, or one with its frontend elsewhere.
    case anew, anewElsewhere
    /// Another one of the guest's.
    case beside
  }

  /// At each of the backend's calls of the store in turn.
  @Test(arguments: Made.allCases, 0..<24)
  func deviceThatIsMadeMeanwhileIsNotRemoved(made: Made, call: Int) throws {
    let rig = try BusRig()
    let disk = try rig.addDisk()
    let new = Toolstack.Disk(
      number: made == .beside ? 51728 : 51712, params: "disk.img",
      frontendRoot: made == .anewElsewhere ? "udevice" : "device")
    let calls = Atomic(Int.min)
    let control = rig.control
    let (guest, driverDomain) = (rig.guest.domain, rig.driverDomain.domain)
    let platform = ObservedPlatform(rig.driverDomain) {
      guard calls.add(1, ordering: .relaxed).oldValue == call else { return }
      do {
        let toolstack = try Toolstack(on: control)
        if made != .beside { try toolstack.remove(disk) }
        _ = try toolstack.add(new, to: guest, servedBy: driverDomain)
      } catch { Issue.record(error) }
    }
    let bus = try Bus(on: platform, log: .silent)
    try bus.register(FakeBackend())
    #expect(settle(try rig.frontBus(FakeFrontend()), bus) && bus.isConnected)
    try rig.store.remove(disk.frontendPath, in: nil)
    calls.store(0, ordering: .relaxed)
    #expect(settle(bus))
    // Late ones find all done.
    let isLate = calls.load(ordering: .relaxed) <= call
    #expect(call > 3 || !isLate, "the backend's calls are seen")
    if isLate { return }
    #expect(try rig.state("/local/domain/2/backend/vbd/1/\(new.number)") == .initWait, "\(bus.report)")
    #expect(try rig.directory(disk.backendPath).exists() == (made != .beside))
    if made == .anewElsewhere { return }
    let frontBus = try rig.frontBus(FakeFrontend())
    #expect(settle(frontBus, bus) && bus.isConnected, "\(bus.report)")
  }

  /// Where the directory above is the toolstack's own.
  @Test(.needsGuestsRights) func directoryAboveThatIsNotOursStays() throws {
    let rig = try BusRig()
    let disk = try rig.addDisk()
    let above = "/local/domain/2/backend/vbd/1"
    try rig.store.setPermissions(
      above, [XenstorePermission(rig.control.domain, .none), XenstorePermission(rig.driverDomain.domain, .read)],
      in: nil)
    let backBus = try rig.backBus(FakeBackend())
    #expect(settle(backBus))
    try rig.store.remove(disk.frontendPath, in: nil)
    #expect(settle(backBus))
    #expect(try !rig.directory(disk.backendPath).exists())
    #expect(try rig.directory(above).exists())
  }

  /// Nil for no state at all.
  @Test(arguments: ["rubbish", nil]) func rubbishInTheFrontendsStateIsNotTakenForItsEnd(state: String?) throws {
    let rig = try BusRig()
    let disk = try rig.addDisk()
    let back = FakeBackend()
    let backBus = try rig.backBus(back)
    let frontBus = try rig.frontBus(FakeFrontend())
    #expect(settle(frontBus, backBus) && backBus.isConnected)
    if let state {
      try rig.write(disk.frontendPath, "state", state)
    } else {
      try rig.directory(disk.frontendPath).remove("state")
    }
    #expect(settle(backBus))
    #expect(back.log.count(of: .disconnect, at: disk.backendPath) == 1)
    #expect(try rig.state(disk.backendPath) == .initWait)
    if state == nil { try rig.write(disk.frontendPath, .initialising) }
    let again = try rig.frontBus(FakeFrontend())
    #expect(settle(again, backBus) && backBus.isConnected)
  }
}
