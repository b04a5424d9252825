import Logging
import NetBack
import NetFront
import TestSupport

/// A network card with both its ends.
final class NetPair: DriverPair {
  let card: NetFrontDevice
  /// Every frame that the card has received.
  private(set) var received: [[UInt8]] = []

  /// - Parameters:
  ///   - frontendKeys: written to the card's directory before anybody looks at it; nil removes a key.
  ///   - features: the card's.
  ///   - frontend: in the card's place.
  init(
    seed: Seed = 1, mac: String = "00:16:3e:00:00:01", mtu: Int = 1500, frontendKeys: [String: String?] = [:],
    features: NetFeatures = NetFeatures(), backend: any BackendDriver, frontend: (any FrontendDriver)? = nil,
    log: Logger = .silent
  ) throws {
    card = NetFrontDevice(features: features)
    try super.init(seed: seed, frontend: frontend ?? card, backend: backend, log: log) { rig in
      let device = try rig.toolstack.addVif(
        to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: mac, mtu: mtu)
      let directory = rig.directory(device.frontendPath)
      try directory.write(
        frontendKeys.map { key, value in value.map { StoreEntry(key, $0) } ?? StoreEntry(absent: key) })
      return device
    }
  }

  convenience init(
    seed: Seed = 1, mac: String = "00:16:3e:00:00:01", mtu: Int = 1500, frontendKeys: [String: String?] = [:],
    features: NetFeatures = NetFeatures(), backendFeatures: NetFeatures = NetFeatures(), end: any NetworkEnd
  ) throws {
    try self.init(
      seed: seed, mac: mac, mtu: mtu, frontendKeys: frontendKeys, features: features,
      backend: NetBackDriver(features: backendFeatures) { _ in end })
  }

  /// Runs until the card has received `count` frames in all.
  func receive(_ count: Int) -> Bool {
    scheduler.run {
      pollCard()
      return received.count >= count
    }
  }

  func pollCard() { card.poll(now: scheduler.now) { received.append($0.copied()) } }
}

/// A frame that no other number gives.
func frame(_ number: Int, byteCount: Int = 64) -> [UInt8] {
  precondition(byteCount >= 14)
  return pattern(byteCount, seed: number)
}
