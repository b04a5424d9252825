import Synchronization
import TestSupport
import Testing
import XenBus
import XenLoopback
import XenPlatform

/// B17: a device that cannot be taken up now is tried again, and not for ever.
struct HeldDeviceTests {
  /// A clock that a test moves.
  private final class Clock: QueueHost {
    private let nanoseconds = Atomic<UInt64>(1_000_000_000)

    var now: Uptime { Uptime(nanoseconds: nanoseconds.load(ordering: .relaxed)) }

    func move(to instant: Uptime) { nanoseconds.store(instant.nanoseconds, ordering: .relaxed) }

    func move(milliseconds: UInt64) { nanoseconds.wrappingAdd(milliseconds * 1_000_000, ordering: .relaxed) }

    func start(_ queue: any DataQueue, name: String, whenStopped: @escaping @Sendable () -> Void) {}

    func stop(_ queue: any DataQueue) {}
  }

  /// A device that was left connected, and a backend's bus that finds it and fails to take it up.
  private struct Held {
    let rig: BusRig
    let disk: Toolstack.Device
    let frontBus: Bus
    let back = FakeBackend()
    let clock = Clock()
    let bus: Bus

    init(_ reason: DeviceError = HeldDeviceTests.reason) throws {
      rig = try BusRig()
      disk = try rig.addDisk()
      frontBus = try rig.frontBus(FakeFrontend())
      let first = try rig.backBus(FakeBackend())
      try #require(settle(frontBus, first) && first.isConnected)
      #expect(first.detach().isEmpty)
      bus = try Bus(on: rig.driverDomain, queueHost: clock, log: .silent)
      back.log.failures = [disk.backendPath: [.resume: reason]]
      try bus.register(back)
      #expect(settle(frontBus, bus))
    }

    var tries: Int { back.log.count(of: .resume, at: disk.backendPath) }

    /// Polls until the bus asks for nothing more; the instant at which it wants to be polled.
    func next() -> Uptime? {
      while true {
        switch bus.poll() {
        case .more: continue
        case .idleUntil(let instant): return instant
        case .idle, .stopped: return nil
        }
      }
    }
  }

  private static let reason = DeviceError.unavailable("the record is in use")

  @Test func whatKeptItMayEnd() throws {
    let held = try Held()
    let path = held.disk.backendPath
    #expect(held.tries == 1)
    #expect(held.bus.heldDevices == [path: Self.reason] && held.bus.givenUpDevices.isEmpty)
    #expect(
      held.bus.report == [
        "\(path): waits for what keeps it from being taken up to end, which is looked at 20 times and has been 0 times; the "
          + "frontend goes on waiting; the record is in use"
      ])
    // Not before its time, however often the bus is polled.
    let instant = try #require(held.next())
    #expect(instant.nanoseconds - held.clock.now.nanoseconds == 100_000_000)
    held.clock.move(milliseconds: 99)
    #expect(held.next() == instant && held.tries == 1)
    held.clock.move(to: instant)
    #expect(try #require(held.next()).nanoseconds - instant.nanoseconds == 200_000_000)
    #expect(held.tries == 2)
    held.back.log.failures = [:]
    held.clock.move(milliseconds: 200)
    #expect(held.next() == nil && held.tries == 3)
    #expect(held.bus.isConnected && held.frontBus.isConnected && held.bus.heldDevices.isEmpty)
    #expect(held.bus.report == ["\(path): connected"])
    #expect(try held.rig.error(of: held.rig.driverDomain, path) == nil)
  }

  @Test func itIsTriedForAWhileAndThenLeftToSomebodyElse() throws {
    let held = try Held()
    let path = held.disk.backendPath
    let begun = held.clock.now
    var last = begun
    while let instant = held.next() {
      #expect(instant > last && instant.nanoseconds - last.nanoseconds <= 5_000_000_000)
      last = instant
      held.clock.move(to: instant)
      try #require(held.tries <= 21)
    }
    #expect(held.tries == 21)
    #expect(last.nanoseconds - begun.nanoseconds > 60_000_000_000)
    #expect(held.bus.givenUpDevices == [path: Self.reason])
    #expect(
      held.bus.report == [
        "\(path): waits for a start of its backend with what it was connected with; the frontend goes on waiting; the "
          + "record is in use"
      ])
    #expect(try held.rig.error(of: held.rig.driverDomain, path) == "22 the record is in use")
    // Somebody has set it right, and says so.
    held.back.log.failures = [:]
    held.bus.callForAttention()
    #expect(held.next() == nil && held.bus.isConnected)
  }

  /// A try that takes long keeps the process's other devices waiting.
  @Test func whatTakesLongIsTriedSeldom() throws {
    let held = try Held()
    held.back.log.events = [
      held.disk.backendPath: [.resume: { [clock = held.clock] in clock.move(milliseconds: 3000) }]
    ]
    held.clock.move(to: try #require(held.next()))
    let next = try #require(held.next())
    #expect(next.nanoseconds - held.clock.now.nanoseconds == 30_000_000_000)
  }

  /// No time mends what was not agreed on.
  @Test func whatWillNotEndIsNotTriedAgain() throws {
    let held = try Held(.resource("the image is another one"))
    #expect(held.next() == nil && held.bus.givenUpDevices.count == 1)
    held.clock.move(milliseconds: 600_000)
    #expect(held.next() == nil && held.tries == 1)
    held.bus.callForAttention()
    #expect(held.next() == nil && held.tries == 2)
  }

  @Test func frontendThatClosesMeanwhileIsOfferedTheDeviceAnew() throws {
    let held = try Held()
    held.frontBus.close()
    #expect(settle(held.frontBus, held.bus))
    #expect(try held.rig.state(held.disk.backendPath) == .initWait)
    #expect(held.next() == nil && held.bus.heldDevices.isEmpty)
    held.clock.move(milliseconds: 60_000)
    #expect(held.next() == nil && held.tries == 1)
  }

  // MARK: Before it is offered

  /// A device whose backend's process finds what it stands on in use.
  private func unoffered() throws -> (
    rig: BusRig, path: String, frontBus: Bus, back: FakeBackend, clock: Clock, bus: Bus
  ) {
    let rig = try BusRig()
    let disk = try rig.addDisk()
    let (back, clock) = (FakeBackend(), Clock())
    back.log.failures = [disk.backendPath: [.probe: Self.reason]]
    let frontBus = try rig.frontBus(FakeFrontend())
    let bus = try Bus(on: rig.driverDomain, queueHost: clock, log: .silent)
    try bus.register(back)
    #expect(settle(frontBus, bus))
    return (rig, disk.backendPath, frontBus, back, clock, bus)
  }

  /// To close it would be the end of a frontend that comes back from nothing, as Linux's.
  @Test func offerThatCannotBeMadeYetIsMadeLater() throws {
    let (rig, path, frontBus, back, clock, bus) = try unoffered()
    #expect(try rig.state(path) == .initialising && rig.error(of: rig.driverDomain, path) == "22 the record is in use")
    #expect(
      bus.report == [
        "\(path): waits for what keeps it from being offered to end, which is looked at 20 times and has been 0 times; the "
          + "frontend goes on waiting; the record is in use"
      ])
    clock.move(milliseconds: 99)
    #expect(settle(frontBus, bus) && back.log.count(of: .probe, at: path) == 1)
    clock.move(milliseconds: 1)
    #expect(settle(frontBus, bus) && back.log.count(of: .probe, at: path) == 2)
    back.log.failures = [:]
    clock.move(milliseconds: 200)
    #expect(settle(frontBus, bus) && bus.isConnected && frontBus.isConnected)
    #expect(bus.report == ["\(path): connected"])
    #expect(try rig.error(of: rig.driverDomain, path) == nil)
  }

  @Test func offerThatCanNeverBeMadeClosesTheDevice() throws {
    let (rig, path, frontBus, back, clock, bus) = try unoffered()
    for _ in 0..<20 {
      #expect(try rig.state(path) == .initialising)
      clock.move(milliseconds: 5000)
      #expect(settle(frontBus, bus))
    }
    // Its frontend begins again, once: as often once more.
    #expect(back.log.count(of: .probe, at: path) == 22)
    #expect(try rig.state(path) != .initialising && rig.error(of: rig.driverDomain, path) == "22 the record is in use")
    for _ in 0..<20 {
      clock.move(milliseconds: 5000)
      #expect(settle(frontBus, bus))
    }
    #expect(try back.log.count(of: .probe, at: path) == 42 && rig.state(path) == .closed)
    clock.move(milliseconds: 60_000)
    #expect(settle(frontBus, bus) && back.log.count(of: .probe, at: path) == 42)
  }

  @Test func deviceThatIsWithdrawnBeforeItIsOfferedGoes() throws {
    let (rig, path, frontBus, _, _, bus) = try unoffered()
    try rig.directory(path).write([StoreEntry("online", "0")])
    #expect(settle(frontBus, bus))
    #expect(try rig.state(path) == .closed || rig.directory(path).optionalString("state") == nil)
    #expect(bus.report.isEmpty)
  }
}
