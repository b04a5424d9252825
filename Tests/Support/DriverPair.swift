import Logging
import Testing
import XenBus
import XenLoopback

/// One device with both its ends on a ``Rig``, stepped by one ``Scheduler``. The rig's properties are its own, too.
@dynamicMemberLookup
open class DriverPair {
  public let rig: Rig
  public let device: Toolstack.Device
  public let scheduler: Scheduler
  public let frontBus: Bus
  public let backBus: Bus

  /// - Parameters:
  ///   - log: of the backend's bus.
  ///   - addDevice: makes the device before anybody looks at it.
  public init(
    seed: Seed, frontend: any FrontendDriver, backend: any BackendDriver, log: Logger = .silent,
    addDevice: (Rig) throws -> Toolstack.Device
  ) throws {
    rig = try Rig(seed: seed.value)
    scheduler = Scheduler(seed: seed)
    scheduler.add(rig.loopback)
    backBus = try Bus(on: rig.driverDomain, queueHost: scheduler.host(of: rig.driverDomain), log: log)
    frontBus = try Bus(on: rig.guest, queueHost: scheduler.host(of: rig.guest), log: .silent)
    device = try addDevice(rig)
    try backBus.register(backend)
    try frontBus.register(frontend, at: device.frontendPath)
    scheduler.add(backBus, of: rig.driverDomain, name: "backend's bus") { [backBus] _ in backBus.poll() }
    scheduler.add(frontBus, of: rig.guest, name: "frontend's bus") { [frontBus] _ in frontBus.poll() }
  }

  deinit { scheduler.removeAll() }

  public subscript<Value>(dynamicMember path: KeyPath<Rig, Value>) -> Value { rig[keyPath: path] }

  /// Runs until both ends are connected.
  public func connect(_ location: SourceLocation = #_sourceLocation) throws {
    let connected = scheduler.run { frontBus.isConnected && backBus.isConnected }
    try #require(connected, "\(frontBus.report + backBus.report)", sourceLocation: location)
  }

  /// Another process of the driver domain, with a bus of its own.
  public func addBackBus(_ backend: any BackendDriver) throws -> Bus {
    let process = rig.loopback.addProcess(in: rig.driverDomain.domain)
    let bus = try Bus(on: process, queueHost: scheduler.host(of: process), log: .silent)
    try bus.register(backend)
    scheduler.add(bus, of: process, name: "second backend's bus") { _ in bus.poll() }
    return bus
  }

  /// Another process of the guest, with a bus of its own.
  public func addFrontBus(_ frontend: any FrontendDriver, at path: String) throws -> Bus {
    let process = rig.loopback.addProcess(in: rig.guest.domain)
    let bus = try Bus(on: process, queueHost: scheduler.host(of: process), log: .silent)
    try bus.register(frontend, at: path)
    scheduler.add(bus, of: process, name: "second frontend's bus") { _ in bus.poll() }
    return bus
  }

  public var frontendState: XenbusState { get throws { try rig.state(device.frontendPath) } }
  public var backendState: XenbusState { get throws { try rig.state(device.backendPath) } }

  /// The message in an end's error node; nil when there is none.
  public var frontendError: String? { get throws { try rig.error(of: rig.guest, device.frontendPath) } }
  public var backendError: String? { get throws { try rig.error(of: rig.driverDomain, device.backendPath) } }
}
