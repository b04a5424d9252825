import XenBus

/// Two buses that the test's thread polls, while each queue has a thread of its own.
public struct ThreadedPair {
  public let rig: Rig
  public let frontBus: Bus
  public let backBus: Bus

  public init(_ rig: Rig, frontend: any FrontendDriver, backend: any BackendDriver) throws {
    self.rig = rig
    frontBus = try Bus(on: rig.guest, log: .silent)
    backBus = try Bus(on: rig.driverDomain, log: .silent)
    try backBus.register(backend)
    try frontBus.register(frontend)
  }

  /// Polls both until the condition holds; false when it does not within minutes.
  public func run(until condition: () -> Bool) -> Bool {
    frontBus.run(seconds: 300) {
      backBus.poll()
      return condition()
    }
  }
}
