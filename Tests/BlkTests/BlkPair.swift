import BlkBack
import BlkFront
import Testing
import XenLoopback

/// Disks with both their ends on one ``Loopback``, stepped by one ``Scheduler``.
final class BlkPair {
  let loopback = Loopback()
  let scheduler: Scheduler
  let toolstack: Toolstack
  let guest: LoopbackDomain
  let driverDomain: LoopbackDomain
  let device: Toolstack.Device
  let frontBus: Bus
  let backBus: Bus
  /// What the backend said of each disk that it was disconnected from.
  let closed: Closed

  final class Closed { var list: [BlkBackStatistics] = [] }

  let store: StoreDirectory

  /// Makes disk 51712 for `frontend`, served from `store`.
  convenience init(
    seed: UInt64 = 1, isReadOnly: Bool = false, frontend: any FrontendDriver, store: any BlockStore
  ) throws {
    let closed = Closed()
    try self.init(
      seed: seed, isReadOnly: isReadOnly, frontend: frontend,
      backend: BlkBackDriver(whenClosed: { closed.list.append($1) }) { _ in store }, closed: closed)
  }

  init(
    seed: UInt64 = 1, isReadOnly: Bool = false, frontend: any FrontendDriver, backend: any BackendDriver,
    closed: Closed = Closed()
  ) throws {
    self.closed = closed
    scheduler = Scheduler(seed: seed)
    let domainZero = loopback.addDomain()
    driverDomain = loopback.addDomain()
    guest = loopback.addDomain()
    toolstack = try Toolstack(on: domainZero)
    self.store = StoreDirectory("/local/domain", in: try domainZero.openXenstore())
    backBus = try Bus(on: driverDomain, queueHost: scheduler, log: .silent)
    frontBus = try Bus(on: guest, queueHost: scheduler, log: .silent)
    device = try toolstack.addVbd(
      to: guest.domain, servedBy: driverDomain.domain, params: "test", isReadOnly: isReadOnly)
    try backBus.register(backend)
    try frontBus.register(frontend, at: device.frontendPath)
    scheduler.add(backBus, name: "backend's bus") { [backBus] _ in backBus.poll() }
    scheduler.add(frontBus, name: "frontend's bus") { [frontBus] _ in frontBus.poll() }
  }

  /// Runs until both ends are connected.
  func connect(_ location: SourceLocation = #_sourceLocation) throws {
    let connected = scheduler.run { frontBus.isConnected && backBus.isConnected }
    try #require(connected, "\(frontBus.report + backBus.report)", sourceLocation: location)
  }

  /// Runs until everything that `disk` has put is completed; the results by tag, with what reads brought.
  func complete(_ disk: BlkFrontDevice) -> [UInt64: (result: BlkFrontCompletion.Result, bytes: [UInt8])] {
    var results: [UInt64: (result: BlkFrontCompletion.Result, bytes: [UInt8])] = [:]
    disk.push()
    _ = scheduler.run {
      disk.poll { results[$0.tag] = ($0.result, $0.bytes.copied()) }
      return disk.inFlightCount == 0
    }
    return results
  }

  /// Runs until `count` responses have come for a raw frontend; their statuses by id.
  func statuses(_ frontend: RawBlkFrontend, _ count: Int) throws -> [UInt64: Int16] {
    var statuses: [UInt64: Int16] = [:]
    frontend.push()
    _ = try scheduler.run(turns: 500) {
      for response in try frontend.responses() { statuses[response.id] = response.status }
      return statuses.count == count
    }
    return statuses
  }

  func backendState() throws -> XenbusState {
    XenbusState(key: try store.at(device.backendPath).optionalString("state"))
  }

  /// The message in the backend's error node; nil when there is none.
  func backendError() throws -> String? {
    let domain = driverDomain.domain.rawValue
    let home = "/local/domain/\(domain)/"
    return try store.at("\(home)error/\(device.backendPath.dropFirst(home.count))").optionalString("error")
  }
}

extension StoreDirectory {
  func at(_ path: String) -> StoreDirectory { StoreDirectory(path, in: store) }
}
