import Testing
import XenBus

/// X10: every interleaving of the two handshakes, with crashes and reappearances, before any device exists.
struct HandshakeInterleavingTests {
  @Test(arguments: [XenbusState.initialised, .connected])
  func everyInterleavingOfTwoLivePeersConnects(publishedState: XenbusState) throws {
    let worlds = HandshakeWorld.reachable(from: HandshakeWorld.starts(publishedState: publishedState, faults: 2))
    #expect(worlds.count > 600)
    for world in worlds {
      try #require(!world.releasedWhileServed, "\(world)")
      for order in HandshakeWorld.Order.fair {
        guard let end = HandshakeWorld.settle(world, order) else {
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

  /// X8: Linux's backend, bound anew, maps the rings that it finds, answers a frontend's Closed with its own, and waits for
  /// Initialising.
  @Test(arguments: [XenbusState.initialised, .connected], [[XenbusState.initWait], [.initWait, .connected]])
  func backendThatIsBoundAnewIsFollowed(publishedState: XenbusState, comesBackThrough: [XenbusState]) {
    var front = FrontendHandshake(own: .initialising, publishedState: publishedState)
    #expect(front.observe(backend: .initWait) == .publish(publishedState))
    #expect(front.observe(backend: .connected) == .connect)
    #expect(front.observe(backend: .initWait) == .write(.closing))
    for state in comesBackThrough { #expect(front.observe(backend: state) == .none) }
    #expect(front.observe(backend: .closing) == .stop)
    #expect(front.observe(backend: .closing) == .none)
    #expect(front.observe(backend: .closed) == .release)
    #expect(front.observe(backend: .closed) == .write(.initialising))
    #expect(front.observe(backend: .initWait) == .publish(publishedState))
  }

  @Test(arguments: [XenbusState.initialised, .connected])
  func withdrawnDeviceEndsClosedFromEveryInterleaving(publishedState: XenbusState) throws {
    for var world in HandshakeWorld.reachable(from: HandshakeWorld.starts(publishedState: publishedState, faults: 1)) {
      world.isOnline = false
      let closing = HandshakeWorld.reachable(from: [world])
      try #require(!closing.contains { $0.releasedWhileServed }, "\(world)")
      for order in HandshakeWorld.Order.fair {
        guard let end = HandshakeWorld.settle(world, order) else {
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

  /// X7: whenever the hotplug script finishes, both connect, and the backend did not before.
  @Test(arguments: [XenbusState.initialised, .connected])
  func unpluggedDeviceWaitsForItsHotplugScript(publishedState: XenbusState) {
    let starts = HandshakeWorld.starts(publishedState: publishedState, faults: 1).map { start in
      var start = start
      start.isPlugged = false
      return start
    }
    for world in HandshakeWorld.reachable(from: starts) {
      for order in HandshakeWorld.Order.fair {
        guard var end = HandshakeWorld.settle(world, order), end.back?.phase != .connected, end.ringsServed == nil
        else {
          Issue.record("connects, or never settles: \(world)")
          return
        }
        guard end.back != nil else { continue }  // the device is gone
        #expect(end.back?.waitsFor(frontend: end.frontKey, isPlugged: false) != nil)
        end.isPlugged = true
        guard let plugged = HandshakeWorld.settle(end, order), plugged.frontKey == .connected,
          plugged.backKey == .connected, plugged.ringsServed == plugged.ringsShared
        else {
          Issue.record("from \(end)")
          return
        }
      }
    }
  }

  @Test(arguments: [XenbusState.initialised, .connected])
  func leavingFrontendEndsClosedAndItsBackendWaits(publishedState: XenbusState) {
    for var world in HandshakeWorld.reachable(from: HandshakeWorld.starts(publishedState: publishedState, faults: 1)) {
      world.front?.leave()
      for order in HandshakeWorld.Order.fair {
        guard let end = HandshakeWorld.settle(world, order), end.frontKey == .closed,
          end.ringsServed == nil
        else {
          Issue.record("from \(world)")
          return
        }
        #expect(end.front?.waitsFor(backend: end.backKey) == nil)
        #expect(end.back == nil || end.back?.waitsFor(frontend: .closed) != nil)
      }
    }
  }
}
