import Testing
import XenBus

/// X10: every interleaving of the two handshakes, with crashes and reappearances, before any device exists.
struct HandshakeInterleavingTests {
  /// The two processes (nil: crashed) and the two keys, with the number of the rings that each end is talking of.
  struct World: Hashable {
    var front: FrontendHandshake?
    var back: BackendHandshake?
    var frontKey: XenbusState
    var backKey: XenbusState
    var ringsShared = 0
    var ringsServed: Int?
    var isOnline = true
    /// The frontend took pages back that the backend was using: never, whatever happens.
    var releasedWhileServed = false
    var faultsLeft: Int
    let publishedState: XenbusState

    /// One turn of the frontend's bus; false when there was nothing to do.
    mutating func frontTurn() -> Bool {
      guard var front else { return false }
      let action = front.observe(backend: backKey)
      self.front = front
      switch action {
      case .none: return false
      case .publish(let state):
        ringsShared += 1
        frontKey = state
      case .connect: frontKey = .connected
      case .stop: frontKey = .closed
      case .release: if ringsServed != nil { releasedWhileServed = true }
      case .write(let state): frontKey = state
      }
      return true
    }

    mutating func backTurn() -> Bool {
      guard var back else { return false }
      let action = back.observe(frontend: frontKey, isOnline: isOnline)
      self.back = back
      switch action {
      case .none: return false
      case .offer: backKey = .initWait
      case .connect:
        ringsServed = ringsShared
        backKey = .connected
      case .disconnect(let state):
        ringsServed = nil
        backKey = state
      case .write(let state): backKey = state
      case .remove: self.back = nil
      }
      return true
    }

    /// Every world that one turn, crash or reappearance can make of this one.
    var next: [World] {
      var worlds: [World] = []
      var world = self
      if world.frontTurn() { worlds.append(world) }
      world = self
      if world.backTurn() { worlds.append(world) }
      guard faultsLeft > 0 else { return worlds }
      world = self
      world.faultsLeft -= 1
      world.front = FrontendHandshake(own: frontKey, publishedState: publishedState)
      worlds.append(world)
      world = self
      world.faultsLeft -= 1
      world.ringsServed = nil
      world.back = BackendHandshake(own: backKey)
      worlds.append(world)
      return worlds
    }

    /// Ring numbers only count up, which would make the worlds infinite: all that matters is whether they agree.
    var normalised: World {
      var world = self
      let agree = ringsServed == ringsShared
      world.ringsShared = 0
      world.ringsServed = ringsServed.map { _ in agree ? 0 : -1 }
      return world
    }
  }

  /// Runs fair turns until neither end has anything to do.
  static func settle(_ start: World, backFirst: Bool) -> World? {
    var world = start
    for _ in 0..<64 {
      let moved = backFirst ? [world.backTurn(), world.frontTurn()] : [world.frontTurn(), world.backTurn()]
      if !moved.contains(true) { return world }
    }
    return nil
  }

  /// All worlds reachable from the given ones.
  static func reachable(from starts: [World]) -> Set<World> {
    var seen = Set(starts)
    var frontier = starts
    while let world = frontier.popLast() {
      for next in world.next where seen.insert(next.normalised).inserted { frontier.append(next.normalised) }
    }
    return seen
  }

  static func starts(publishedState: XenbusState, faults: Int) -> [World] {
    XenbusState.allCases.flatMap { frontKey in
      XenbusState.allCases.map { backKey in
        World(
          front: FrontendHandshake(own: frontKey, publishedState: publishedState), back: BackendHandshake(own: backKey),
          frontKey: frontKey, backKey: backKey, faultsLeft: faults, publishedState: publishedState)
      }
    }
  }

  @Test(arguments: [XenbusState.initialised, .connected])
  func everyInterleavingOfTwoLivePeersConnects(publishedState: XenbusState) throws {
    let worlds = Self.reachable(from: Self.starts(publishedState: publishedState, faults: 2))
    #expect(worlds.count > 300)
    for world in worlds {
      try #require(!world.releasedWhileServed, "\(world)")
      for backFirst in [false, true] {
        guard let end = Self.settle(world, backFirst: backFirst) else {
          Issue.record("never settles: \(world)")
          return
        }
        if end.back == nil, end.frontKey == .unknown || world.frontKey == .unknown { continue }  // the device is gone
        guard end.frontKey == .connected, end.backKey == .connected, end.ringsServed == end.ringsShared else {
          Issue.record("from \(world)\nends at \(end)")
          return
        }
      }
    }
  }

  @Test(arguments: [XenbusState.initialised, .connected])
  func withdrawnDeviceEndsClosedFromEveryInterleaving(publishedState: XenbusState) throws {
    for var world in Self.reachable(from: Self.starts(publishedState: publishedState, faults: 1)) {
      world.isOnline = false
      let closing = Self.reachable(from: [world])
      try #require(!closing.contains { $0.releasedWhileServed }, "\(world)")
      for backFirst in [false, true] {
        guard let end = Self.settle(world, backFirst: backFirst) else {
          Issue.record("never settles: \(world)")
          return
        }
        let frontWaits = end.front?.waitsFor(backend: end.backKey) != nil
        guard end.back == nil, end.backKey == .closed, end.ringsServed == nil, frontWaits else {
          Issue.record("from \(world)\nends at \(end)")
          return
        }
      }
    }
  }

  @Test(arguments: [XenbusState.initialised, .connected])
  func leavingFrontendEndsClosedAndItsBackendWaits(publishedState: XenbusState) {
    for var world in Self.reachable(from: Self.starts(publishedState: publishedState, faults: 1)) {
      world.front?.leave()
      for backFirst in [false, true] {
        guard let end = Self.settle(world, backFirst: backFirst), end.frontKey == .closed, end.ringsServed == nil else {
          Issue.record("from \(world)")
          return
        }
        #expect(end.front?.waitsFor(backend: end.backKey) == nil)
        #expect(end.back == nil || end.back?.waitsFor(frontend: .closed) != nil)
      }
    }
  }
}
