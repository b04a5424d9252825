import Testing
import XenBus

/// X10: whatever fails, at whichever moment, both ends come to rest and say what they wait for.
struct HandshakeFailureTests {
  /// Why the world is no state to rest in; nil when it is one.
  private static func fault(of world: HandshakeWorld) -> String? {
    let isServed = world.ringsServed != nil
    if world.front?.phase == .connected || world.back?.phase == .connected || isServed {
      let agrees = world.front?.phase == .connected && world.back?.phase == .connected
      return agrees && world.ringsServed == world.ringsShared ? nil : "one end is connected alone"
    }
    if let front = world.front, front.waitsFor(backend: world.backKey) == nil {
      return "the frontend waits for nothing"
    }
    if let back = world.back, back.waitsFor(frontend: world.frontKey) == nil { return "the backend waits for nothing" }
    if world.front?.phase == .closing || world.back?.phase == .closing { return "one end closes for ever" }
    return nil
  }

  /// Records the first order of turns that does not bring `world` to a proper rest.
  private func expectRest(_ world: HandshakeWorld) -> Bool {
    for order in HandshakeWorld.Order.fair {
      guard let end = HandshakeWorld.settle(world, order) else {
        Issue.record("never settles: \(world)")
        return false
      }
      if let fault = Self.fault(of: end) {
        Issue.record("\(fault): from \(world)\nends at \(end)")
        return false
      }
    }
    return true
  }

  private func worlds(_ publishedState: XenbusState) -> Set<HandshakeWorld> {
    HandshakeWorld.reachable(from: HandshakeWorld.starts(publishedState: publishedState, faults: 1))
  }

  @Test(arguments: [XenbusState.initialised, .connected])
  func failureOfTheFrontendAtAnyMomentSettles(publishedState: XenbusState) {
    for var world in worlds(publishedState) {
      world.failFront()
      guard expectRest(world) else { return }
    }
  }

  @Test(arguments: [XenbusState.initialised, .connected])
  func failureOfTheBackendAtAnyMomentSettles(publishedState: XenbusState) {
    for var world in worlds(publishedState) {
      world.failBack()
      guard expectRest(world) else { return }
    }
  }

  /// Every choice of work that fails each time that it is tried.
  private static var choices: [Set<HandshakeWorld.Work>] {
    HandshakeWorld.Work.allCases.reduce([[]]) { choices, work in choices + choices.map { $0.union([work]) } }
  }

  @Test(arguments: [XenbusState.initialised, .connected])
  func workThatAlwaysFailsIsNotTriedForEver(publishedState: XenbusState) {
    let worlds = worlds(publishedState)
    for failing in Self.choices where !failing.isEmpty {
      for var world in worlds {
        world.failing = failing
        guard expectRest(world) else { return }
        // Also after another crash, with what the failures left in the keys.
        guard let rest = HandshakeWorld.settle(world, .frontFirst) else { return }
        guard expectRest(rest.frontRestarted), expectRest(rest.backRestarted) else { return }
      }
    }
  }

  @Test(arguments: [XenbusState.initialised, .connected])
  func endWhosePeerIsDeadComesToRest(publishedState: XenbusState) {
    for failing in Self.choices {
      for var world in worlds(publishedState) {
        world.failing = failing
        for order in HandshakeWorld.Order.alone where HandshakeWorld.settle(world, order) == nil {
          Issue.record("the \(order.ends) never settles: \(world)")
          return
        }
      }
    }
  }

  @Test(arguments: [XenbusState.initialised, .connected])
  func endThatFailedConnectsWhenItIsRestarted(publishedState: XenbusState) {
    for work in HandshakeWorld.Work.allCases {
      for var world in worlds(publishedState) where world.frontKey != .unknown && world.back != nil {
        world.failing = [work]
        guard var rest = HandshakeWorld.settle(world, .frontFirst), rest.back != nil else { continue }
        rest.failing = []
        let isFrontends = work == .publish || work == .frontConnect
        let end = HandshakeWorld.settle(isFrontends ? rest.frontRestarted : rest.backRestarted, .frontFirst)
        guard let end, end.frontKey == .connected, end.backKey == .connected else {
          Issue.record("\(work) failed: from \(rest)\nends at \(String(describing: end))")
          return
        }
      }
    }
  }
}
