import Glibc
import TestSupport
import XenBus
import XenPlatform

extension BusRig {
  func addDisk(_ number: Int = 51712) throws -> Toolstack.Device {
    try toolstack.addVbd(number, to: guest.domain, servedBy: driverDomain.domain, params: "disk.img")
  }

  func frontBus(_ driver: any FrontendDriver) throws -> Bus {
    let bus = try Bus(on: guest, log: .silent)
    try bus.register(driver)
    return bus
  }

  func backBus(_ driver: any BackendDriver) throws -> Bus {
    let bus = try Bus(on: driverDomain, log: .silent)
    try bus.register(driver)
    return bus
  }

  func write(_ path: String, _ key: String, _ value: String) throws {
    try directory(path).write([StoreEntry(key, value)])
  }

  func write(_ path: String, _ state: XenbusState) throws { try write(path, "state", String(state.rawValue)) }
}

/// Polls the buses in turn until none has anything to do; false when they never come to rest.
func settle(_ buses: Bus...) -> Bool {
  for _ in 0..<200 {
    let outcomes = buses.map { $0.poll() }
    if !outcomes.contains(.more), buses.allSatisfy(\.isQuiet) { return true }
  }
  return false
}

extension Bus {
  /// Whether nothing is left for a poll to take.
  var isQuiet: Bool {
    var waits = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    return !Wakeup.wait(for: &waits, timeout: 0)
  }
}
