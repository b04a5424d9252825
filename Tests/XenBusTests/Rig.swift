import Glibc
import XenBus
import XenLoopback
import XenPlatform

/// An in-process Xen with a control domain, a guest and a driver domain.
struct Rig {
  let xen = Loopback()
  let control: LoopbackDomain
  let guest: LoopbackDomain
  let driverDomain: LoopbackDomain
  let toolstack: Toolstack
  /// The control domain's connection: it may read and write everything.
  let store: any Xenstore

  init() throws {
    control = xen.addDomain()
    guest = xen.addDomain()
    driverDomain = xen.addDomain()
    toolstack = try Toolstack(on: control)
    store = try control.openXenstore()
  }

  func addDisk(_ number: Int = 51712) throws -> Toolstack.Device {
    try toolstack.addVbd(number, to: guest.domain, servedBy: driverDomain.domain, params: "disk.img")
  }

  func frontBus(_ driver: FakeFrontend) throws -> Bus {
    let bus = try Bus(on: guest)
    try bus.register(driver)
    return bus
  }

  func backBus(_ driver: FakeBackend) throws -> Bus {
    let bus = try Bus(on: driverDomain)
    try bus.register(driver)
    return bus
  }

  func directory(_ path: String) -> StoreDirectory { StoreDirectory(path, in: store) }

  func state(_ path: String) throws -> XenbusState { XenbusState(key: try directory(path).optionalString("state")) }

  func write(_ path: String, _ key: String, _ value: String) throws {
    try directory(path).write([StoreEntry(key, value)])
  }

  func write(_ path: String, _ state: XenbusState) throws { try write(path, "state", String(state.rawValue)) }

  /// The message that a domain left for the toolstack about the device at `path`.
  func error(of domain: LoopbackDomain, _ path: String) throws -> String? {
    let home = "/local/domain/\(domain.domain.rawValue)/"
    return try directory("\(home)error/\(path.dropFirst(home.count))").optionalString("error")
  }
}

/// Polls the buses in turn until none has anything to do; false when they never come to rest.
func settle(_ buses: Bus...) -> Bool {
  for _ in 0..<200 {
    for bus in buses { bus.poll() }
    if buses.allSatisfy(\.isQuiet) { return true }
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
