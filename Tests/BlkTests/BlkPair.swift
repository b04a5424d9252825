import BlkBack
import BlkFront
import Testing
import XenBus
import XenLoopback

/// A disk with both its ends on one ``Loopback``, stepped by one ``Scheduler``.
final class BlkPair {
  let loopback = Loopback()
  let scheduler: Scheduler
  let toolstack: Toolstack
  let guest: LoopbackDomain
  let driverDomain: LoopbackDomain
  let disk = BlkFrontDevice()
  let device: Toolstack.Device
  private(set) var frontBus: Bus
  private(set) var backBus: Bus

  init(
    seed: UInt64 = 1, isReadOnly: Bool = false, backend: BlkBackDriver
  ) throws {
    scheduler = Scheduler(seed: seed)
    let domainZero = loopback.addDomain()
    driverDomain = loopback.addDomain()
    guest = loopback.addDomain()
    toolstack = try Toolstack(on: domainZero)
    backBus = try Bus(on: driverDomain, queueHost: scheduler)
    frontBus = try Bus(on: guest, queueHost: scheduler)
    device = try toolstack.addVbd(
      to: guest.domain, servedBy: driverDomain.domain, params: "test", isReadOnly: isReadOnly)
    try backBus.register(backend)
    try frontBus.register(disk)
    scheduler.add(backBus, name: "backend's bus") { [backBus] _ in backBus.poll() }
    scheduler.add(frontBus, name: "frontend's bus") { [frontBus] _ in frontBus.poll() }
  }

  convenience init(seed: UInt64 = 1, isReadOnly: Bool = false, store: any BlockStore) throws {
    try self.init(seed: seed, isReadOnly: isReadOnly, backend: BlkBackDriver { _ in store })
  }

  /// Runs until both ends are connected.
  func connect(_ location: SourceLocation = #_sourceLocation) throws {
    let connected = scheduler.run { disk.isConnected && backBus.isConnected }
    try #require(connected, "\(frontBus.report + backBus.report)", sourceLocation: location)
  }

  /// Runs until everything put has completed; the results by tag, with what reads brought.
  func complete() -> [UInt64: (result: BlkFrontCompletion.Result, bytes: [UInt8])] {
    var results: [UInt64: (result: BlkFrontCompletion.Result, bytes: [UInt8])] = [:]
    disk.push()
    _ = scheduler.run {
      disk.poll { results[$0.tag] = ($0.result, $0.bytes.copied()) }
      return disk.inFlightCount == 0
    }
    return results
  }
}
