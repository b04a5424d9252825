import NetBack
import TestSupport
import Testing
import XenLoopback

/// A card's two ends whose backend's queue the test polls by itself, at instants of its own.
struct HandPolledPair {
  private let host: OneQueue
  let rig: Rig
  let frontBus: Bus
  let backBus: Bus

  /// - Parameters:
  ///   - backendKeys: written to the backend's directory before anybody looks at it.
  ///   - connects: whether the two are to come together.
  ///   - queue: how the name of the queue that is polled ends.
  init(
    frontend: any FrontendDriver, backend: any BackendDriver, backendKeys: [StoreEntry] = [], connects: Bool = true,
    queue: String = ""
  ) throws {
    host = OneQueue(queue)
    rig = try Rig()
    frontBus = try Bus(on: rig.guest, log: .silent)
    backBus = try Bus(on: rig.driverDomain, queueHost: host, log: .silent)
    try backBus.register(backend)
    try frontBus.register(frontend)
    let device = try rig.toolstack.addVif(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    try rig.directory(device.backendPath).write(backendKeys)
    for _ in 0..<20 {
      frontBus.poll()
      backBus.poll()
    }
    if connects { try #require(frontBus.isConnected && backBus.isConnected) }
  }

  @discardableResult func poll(at seconds: Double = 0, budget: Int = 64, looks: Bool = false) -> PollOutcome {
    host.poll(at: Uptime(nanoseconds: UInt64(seconds * 1e9)), budget: budget, looks: looks)
  }

  /// Whether the queue's rings hold something to do.
  var hasWork: Bool { host.hasWork }

  /// Polls the queue until it has nothing to do, or a hundred times.
  @discardableResult func pollUntilIdle(at seconds: Double = 0, looks: Bool = false) -> PollOutcome {
    var outcome = PollOutcome.more
    for _ in 0..<100 where outcome == .more {
      outcome = poll(at: seconds, looks: looks)
    }
    return outcome
  }
}
