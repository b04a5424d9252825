import TestSupport
import Testing
import XenBus
import XenPlatform

/// X10: a peer that keeps to no protocol: it writes any state at any time.
struct RawPeerTests {
  static let seeds = TestSupport.seeds(0...249, of: RawPeerTests.self)

  // MARK: Handshakes alone

  /// Every move of the peer is seen, so its rings can be told apart: it shares new ones when it comes from a state in which
  /// it had none.
  @Test(arguments: seeds) func backendNeverServesRingsOfAnEarlierLife(seed: Seed) {
    var random = SeededGenerator(seed)
    var key = XenbusState.allCases.randomElement(using: &random)!
    var back = BackendHandshake(own: key)
    // What a predecessor that got this far may have served.
    var (frontend, rings, served) = (XenbusState.initialising, 0, nil as Int?)
    var used: Set<Int> = []
    for _ in 0..<400 {
      let next = XenbusState.allCases.randomElement(using: &random)!
      if next.mayShareRings, !frontend.mayShareRings { rings += 1 }
      frontend = next
      switch Int.random(in: 0..<20, using: &random) {
      case 0: (back, served) = (BackendHandshake(own: key), nil)
      case 1:
        back.fail()
        (key, served) = (.closing, nil)
      default: break
      }
      var actions = 0
      acting: while true {
        actions += 1
        guard actions < 16 else {
          Issue.record("no rest at \(frontend)")
          return
        }
        switch back.observe(frontend: frontend, isOnline: true) {
        case .none: break acting
        case .offer: key = .initWait
        case .resume: Issue.record("nobody has detached")
        case .connect:
          #expect(frontend == .initialised || frontend == .connected)
          #expect(used.insert(rings).inserted, "rings served twice")
          (key, served) = (.connected, rings)
        case .reconfigure:
          #expect(served != nil && frontend == .reconfiguring)
          key = .reconfigured
        case .disconnect(let state): (key, served) = (state, nil)
        case .write(let state): key = state
        case .remove:
          back = BackendHandshake(own: key)
          // Without a frontend it is removed again: the toolstack shows it only when there is one.
          break acting
        }
      }
      guard served == nil || served == rings else {
        Issue.record("serves rings \(served ?? 0) while \(rings) are shared")
        return
      }
    }
  }

  @Test(arguments: seeds) func frontendUsesOnlyRingsThatItsBackendHasTaken(seed: Seed) {
    var random = SeededGenerator(seed)
    var key = XenbusState.allCases.randomElement(using: &random)!
    let publishedState: XenbusState = seed.modulo(2) == 0 ? .initialised : .connected
    var front = FrontendHandshake(own: key, publishedState: publishedState)
    var (isShared, isUsed) = (false, false)
    for _ in 0..<400 {
      let backend = XenbusState.allCases.randomElement(using: &random)!
      switch Int.random(in: 0..<20, using: &random) {
      case 0: (front, isShared, isUsed) = (FrontendHandshake(own: key, publishedState: publishedState), false, false)
      case 1:
        front.fail()
        key = .closing
      default: break
      }
      var actions = 0
      acting: while true {
        actions += 1
        guard actions < 16 else {
          Issue.record("no rest at \(backend)")
          return
        }
        switch front.observe(backend: backend) {
        case .none: break acting
        case .publish(let state):
          #expect(!isShared && backend == .initWait)
          (key, isShared) = (state, true)
        case .connect:
          #expect(isShared && !isUsed)
          (key, isUsed) = (.connected, true)
        case .stop: (key, isUsed) = (.closed, false)
        case .release:
          #expect(isShared && !isUsed)
          isShared = false
        case .write(let state): key = state
        }
      }
      if front.phase == .connected {
        let isTaken = [.connected, .reconfiguring, .reconfigured].contains(backend)
        #expect(isUsed && isTaken, "uses its rings while the backend is \(backend)")
      }
    }
  }

  // MARK: A bus, and a peer that writes to the store

  private static let texts = XenbusState.allCases.map { String($0.rawValue) } + ["", "9", "-1", "+4", "four", "\u{0}"]

  /// Writes one random move of a hostile end to its directory; the bus sees some of the moves merged.
  private func move(_ rig: BusRig, _ path: String, _ bus: Bus, _ random: inout SeededGenerator) throws {
    if Int.random(in: 0..<12, using: &random) == 0 {
      try rig.directory(path).remove("state")
    } else {
      try rig.write(path, "state", Self.texts.randomElement(using: &random)!)
    }
    if Bool.random(using: &random) { bus.poll() }
  }

  /// Whether the calls keep to the order that drivers may rely on.
  private func isOrdered(_ calls: [Call]) -> Bool {
    var isOpen = false
    for call in calls {
      switch call {
      case .publish, .start:
        if isOpen { return false }
        isOpen = true
      case .disconnect, .release: isOpen = false
      case .probe, .offer, .connect, .stop, .otherEndChanged, .attend, .detach, .resume: continue
      }
    }
    return true
  }

  @Test(arguments: seeds) func backendServesAnHonestFrontendAfterAHostileOne(seed: Seed) throws {
    var random = SeededGenerator(seed)
    let rig = try BusRig()
    let disk = try rig.addDisk()
    let back = FakeBackend()
    let backBus = try rig.backBus(back)
    for _ in 0..<60 { try move(rig, disk.frontendPath, backBus, &random) }
    #expect(settle(backBus))
    #expect(isOrdered(back.log.calls(at: disk.backendPath)))
    try rig.toolstack.remove(disk)
    #expect(settle(backBus))
    _ = try rig.addDisk()
    let frontBus = try rig.frontBus(FakeFrontend())
    #expect(settle(backBus, frontBus))
    #expect(backBus.isConnected && frontBus.isConnected)
  }

  @Test(arguments: seeds) func frontendUsesAnHonestBackendAfterAHostileOne(seed: Seed) throws {
    var random = SeededGenerator(seed)
    let rig = try BusRig()
    let disk = try rig.addDisk()
    let front = FakeFrontend(publishedState: seed.modulo(2) == 0 ? .initialised : .connected)
    let frontBus = try rig.frontBus(front)
    for _ in 0..<60 { try move(rig, disk.backendPath, frontBus, &random) }
    #expect(settle(frontBus))
    #expect(isOrdered(front.log.calls(at: disk.frontendPath)))
    // An honest backend process on the very device that the hostile one leaves behind.
    try rig.write(disk.backendPath, .initialising)
    let backBus = try rig.backBus(FakeBackend())
    #expect(settle(frontBus, backBus))
    #expect(backBus.isConnected && frontBus.isConnected, "\(frontBus.report) \(backBus.report)")
  }
}

extension XenbusState {
  fileprivate var mayShareRings: Bool {
    [.initialised, .connected, .closing, .reconfiguring, .reconfigured].contains(self)
  }
}
