import XenBus

/// Both ends of one device before any device exists: the two processes (nil: crashed) and the two keys, with the number of
/// the rings that each end is talking of.
struct HandshakeWorld: Hashable {
  /// A driver's work that may fail.
  enum Work: Hashable, CaseIterable { case publish, frontConnect, offer, backConnect }

  var front: FrontendHandshake?
  var back: BackendHandshake?
  var frontKey: XenbusState
  var backKey: XenbusState
  /// What the backend has read of the frontend's key, and not yet acted upon.
  var backSees: XenbusState?
  var ringsShared = 0
  /// Negative: such as a backend has served before, whose place in them nobody knows any more.
  var ringsServed: Int?
  /// Whether a backend has served the rings that are shared; what the first processes find in the keys may have been.
  var isUsed = true
  /// The rings that a backend has served up to a place of which it has left word, and the word's key.
  var detachedRings: Int?
  var isOnline = true
  /// Whether the hotplug script has finished.
  var isPlugged = true
  /// The frontend took pages back that the backend was using, or about to map: never, whatever happens.
  var releasedWhileServed = false
  var faultsLeft: Int
  let publishedState: XenbusState
  var servesUntilClosed = false
  /// What fails whenever it is tried.
  var failing: Set<Work> = []

  /// One turn of the frontend's bus; false when there was nothing to do.
  mutating func frontTurn() -> Bool {
    guard var front else { return false }
    let action = front.observe(backend: backKey)
    self.front = front
    switch action {
    case .none: return false
    case .publish where failing.contains(.publish): failFront()
    case .connect where failing.contains(.frontConnect): failFront()
    case .publish(let state):
      ringsShared += 1
      isUsed = false
      frontKey = state
    case .connect: frontKey = .connected
    case .stop: frontKey = .closed
    case .release:
      let isAboutToMap = back?.phase == .initWait && (backSees == .initialised || backSees == .connected)
      releasedWhileServed = releasedWhileServed || ringsServed != nil || isAboutToMap
    case .write(let state): frontKey = state
    }
    return true
  }

  mutating func backTurn() -> Bool {
    guard var back else { return false }
    let wasOld = backSees != nil
    let action = back.observe(frontend: backSees ?? frontKey, isOnline: isOnline, isPlugged: isPlugged)
    (self.back, backSees) = (back, nil)
    switch action {
    // It looks again.
    case .none: return wasOld
    case .offer where failing.contains(.offer): failBack()
    case .connect where failing.contains(.backConnect): failBack()
    case .offer: (backKey, detachedRings) = (.initWait, nil)
    case .connect:
      ringsServed = isUsed ? -1 : ringsShared
      isUsed = true
      backKey = .connected
    case .resume: (ringsServed, detachedRings) = (detachedRings, nil)
    case .reconfigure: backKey = .reconfigured
    case .disconnect(let state):
      ringsServed = nil
      backKey = state
    case .write(let state): backKey = state
    case .remove: self.back = nil
    }
    return true
  }

  mutating func failFront() {
    front?.fail()
    frontKey = .closing
  }

  mutating func failBack() {
    guard back != nil else { return }
    back?.fail()
    ringsServed = nil
    backKey = .closing
  }

  /// Every world that one turn, crash or reappearance can make of this one.
  var next: [HandshakeWorld] {
    var worlds: [HandshakeWorld] = []
    var world = self
    if world.frontTurn() { worlds.append(world) }
    world = self
    if world.backTurn() { worlds.append(world) }
    if back != nil, backSees == nil {
      world = self
      world.backSees = frontKey
      worlds.append(world)
    }
    if faultsLeft > 0 {
      worlds += [frontRestarted, backRestarted]
      if back?.phase == .connected { worlds.append(backDetached) }
    }
    return worlds
  }

  /// The frontend's process has crashed, and another one found the keys.
  var frontRestarted: HandshakeWorld {
    var world = self
    world.faultsLeft -= 1
    world.front = FrontendHandshake(own: frontKey, publishedState: publishedState)
    return world
  }

  /// The backend's process has crashed, and another one found the keys.
  var backRestarted: HandshakeWorld {
    var world = self
    world.faultsLeft -= 1
    (world.ringsServed, world.backSees) = (nil, nil)
    world.back = BackendHandshake(
      own: backKey, isDetached: detachedRings != nil, servesUntilClosed: servesUntilClosed)
    return world
  }

  /// The backend's process has left the device connected, and another one found it.
  var backDetached: HandshakeWorld {
    var world = self
    world.detachedRings = ringsServed
    return world.backRestarted
  }

  /// Ring numbers only count up, which would make the worlds infinite: all that matters is whether they agree.
  var normalised: HandshakeWorld {
    var world = self
    let agree = ringsServed == ringsShared
    world.ringsShared = 0
    world.ringsServed = ringsServed.map { _ in agree ? 0 : -1 }
    world.detachedRings = detachedRings.map { $0 == ringsShared ? 0 : -1 }
    return world
  }

  /// Who takes turns, and how many steps one takes before the other has its turn.
  struct Order {
    enum End { case front, back }

    let ends: [End]
    let steps: Int

    static let frontFirst = Order(ends: [.front, .back], steps: 1)
    /// Both orders of two live peers, step by step, and as a bus does it: as far as its end goes.
    static let fair = [
      frontFirst, Order(ends: [.back, .front], steps: 1), Order(ends: [.front, .back], steps: 8),
      Order(ends: [.back, .front], steps: 8),
    ]
    /// One end whose peer is dead.
    static let alone = [Order(ends: [.front], steps: 1), Order(ends: [.back], steps: 1)]
  }

  /// Gives turns until nobody has anything to do; nil when that never happens.
  static func settle(_ start: HandshakeWorld, _ order: Order) -> HandshakeWorld? {
    var world = start
    for _ in 0..<64 {
      var hasMoved = false
      for end in order.ends {
        for _ in 0..<order.steps {
          guard end == .front ? world.frontTurn() : world.backTurn() else { break }
          hasMoved = true
        }
      }
      if !hasMoved { return world }
    }
    return nil
  }

  /// All worlds reachable from the given ones.
  static func reachable(from starts: [HandshakeWorld]) -> Set<HandshakeWorld> {
    var seen = Set(starts)
    var frontier = starts
    while let world = frontier.popLast() {
      for next in world.next where seen.insert(next.normalised).inserted { frontier.append(next.normalised) }
    }
    return seen
  }

  static func starts(publishedState: XenbusState, faults: Int) -> [HandshakeWorld] {
    XenbusState.allCases.flatMap { frontKey in
      XenbusState.allCases.flatMap { backKey in
        [false, true].map { servesUntilClosed in
          HandshakeWorld(
            front: FrontendHandshake(own: frontKey, publishedState: publishedState),
            back: BackendHandshake(own: backKey, servesUntilClosed: servesUntilClosed),
            frontKey: frontKey, backKey: backKey, faultsLeft: faults, publishedState: publishedState,
            servesUntilClosed: servesUntilClosed)
        }
      }
    }
  }
}
