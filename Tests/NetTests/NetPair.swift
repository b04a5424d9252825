import Logging
import NetBack
import NetFront
import Testing
import XenLoopback

extension Logger {
  /// For tests that provoke errors on purpose.
  static let silent = Logger(label: "silent") { _ in SwiftLogNoOpLogHandler() }
}

/// A network card with both its ends on one ``Loopback``, stepped by one ``Scheduler``.
final class NetPair {
  let loopback = Loopback()
  let scheduler: Scheduler
  let toolstack: Toolstack
  /// The control domain's view of the store.
  let store: any Xenstore
  let guest: LoopbackDomain
  let driverDomain: LoopbackDomain
  let card = NetFrontDevice()
  let device: Toolstack.Device
  private(set) var frontBus: Bus
  private(set) var backBus: Bus
  /// Every frame that the card has received.
  private(set) var received: [[UInt8]] = []

  /// - Parameter frontendKeys: written to the card's directory before anybody looks at it; nil removes a key.
  init(
    seed: UInt64 = 1, mac: String = "00:16:3e:00:00:01", mtu: Int = 1500, frontendKeys: [String: String?] = [:],
    backend: any BackendDriver, frontend: (any FrontendDriver)? = nil
  ) throws {
    scheduler = Scheduler(seed: seed)
    let domainZero = loopback.addDomain()
    store = try domainZero.openXenstore()
    driverDomain = loopback.addDomain()
    guest = loopback.addDomain()
    toolstack = try Toolstack(on: domainZero)
    backBus = try Bus(on: driverDomain, queueHost: scheduler, log: .silent)
    frontBus = try Bus(on: guest, queueHost: scheduler, log: .silent)
    device = try toolstack.addVif(to: guest.domain, servedBy: driverDomain.domain, mac: mac, mtu: mtu)
    let directory = StoreDirectory(device.frontendPath, in: store)
    for (key, value) in frontendKeys {
      if let value { try directory.write([StoreEntry(key, value)]) } else { try directory.remove(key) }
    }
    try backBus.register(backend)
    try frontBus.register(frontend ?? card, at: device.frontendPath)
    scheduler.add(backBus, name: "backend's bus") { [backBus] _ in backBus.poll() }
    scheduler.add(frontBus, name: "frontend's bus") { [frontBus] _ in frontBus.poll() }
  }

  convenience init(
    seed: UInt64 = 1, mac: String = "00:16:3e:00:00:01", mtu: Int = 1500, frontendKeys: [String: String?] = [:],
    end: any NetworkEnd
  ) throws {
    try self.init(
      seed: seed, mac: mac, mtu: mtu, frontendKeys: frontendKeys, backend: NetBackDriver { _ in end })
  }

  /// Runs until both ends are connected.
  func connect(_ location: SourceLocation = #_sourceLocation) throws {
    let connected = scheduler.run { card.isConnected && backBus.isConnected }
    try #require(connected, "\(frontBus.report + backBus.report)", sourceLocation: location)
  }

  /// Runs until the card has received `count` frames in all.
  func receive(_ count: Int) -> Bool {
    scheduler.run {
      pollCard()
      return received.count >= count
    }
  }

  func pollCard() { card.poll { received.append($0.copied()) } }

  /// What an end has left for the toolstack; nil when nothing.
  func errorNode(of domain: LoopbackDomain, device path: String) throws -> String? {
    let home = "/local/domain/\(domain.domain.rawValue)/"
    return try StoreDirectory("\(home)error/\(path.dropFirst(home.count))", in: store).optionalString("error")
  }

  var frontendError: String? {
    get throws { try errorNode(of: guest, device: device.frontendPath) }
  }
  var backendError: String? {
    get throws { try errorNode(of: driverDomain, device: device.backendPath) }
  }

  func state(of path: String) throws -> XenbusState {
    XenbusState(key: try StoreDirectory(path, in: store).optionalString("state"))
  }

  /// Whether everything shared, mapped and bound has been given back.
  var holdsNothing: Bool {
    let counts = loopback.grantCounts
    return counts.sharedPages == 0 && counts.mappedPages == 0 && counts.quarantinedPages == 0
      && loopback.openPortCount == 0
  }
}

/// A frame that no other number gives.
func frame(_ number: Int, byteCount: Int = 64) -> [UInt8] {
  precondition(byteCount >= 14)
  return (0..<byteCount).map { UInt8(truncatingIfNeeded: (number >> (8 * ($0 & 3))) ^ ($0 >> 2)) }
}
