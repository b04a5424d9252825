import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// X9: a guest that is suspended and resumed, here or served by another domain, goes on with its card.
struct NetFrontSuspendTests {
  private func flow(_ number: Int) -> [UInt8] {
    var packet = TestPacket(payload: pattern(200, seed: number))
    packet.ports = (UInt16(1000 + number % 50), 80)
    return packet.bytes
  }

  /// Puts frames, some of which are answered before this returns.
  private func work(_ pair: NetPair, _ put: inout UInt64, _ random: inout SeededGenerator) throws {
    for number in 0..<40 {
      try pair.card.send(flow(number).span)
      put += 1
    }
    pair.card.push()
    for _ in 0..<Int.random(in: 0..<6, using: &random) { pair.scheduler.round() }
  }

  private func isEven(_ pair: NetPair, _ put: UInt64) -> Bool {
    let counts = pair.card.statistics.tx
    return counts.packets + counts.drops == put && counts.errors == 0 && pair.card.inFlightCount == 0
  }

  @Test(arguments: seeds(1...30, of: NetFrontSuspendTests.self), [1, 3])
  func cardGoesOnWhereverItIsServed(seed: Seed, queueCount: Int) throws {
    let features = NetFeatures(maxQueueCount: queueCount)
    let pair = try NetPair(seed: seed, features: features, backendFeatures: features, end: EchoEnd())
    pair.guest.sharedPageLimit = 4096
    try pair.connect()
    var random = SeededGenerator(seed)
    var put: UInt64 = 0
    var device = pair.device
    for _ in 0..<4 {
      let before = pair.loopback.heldPages
      try work(pair, &put, &random)
      pair.guest.suspendAndResume()
      #expect(pair.loopback.grantCounts.sharedPages == 0)
      try pair.toolstack.remove(device)
      // Here or on another host.
      var domain = pair.driverDomain
      if Bool.random(using: &random) {
        domain = pair.rig.loopback.addDomain()
        let bus = try Bus(on: domain, queueHost: pair.scheduler.host(of: domain), log: .silent)
        try bus.register(NetBackDriver(features: features) { _ in EchoEnd() })
        pair.scheduler.add(bus, of: domain, name: "another host's bus") { _ in bus.poll() }
      }
      device = try pair.toolstack.addVif(to: pair.guest.domain, servedBy: domain.domain, mac: "00:16:3e:00:00:01")
      pair.frontBus.resume()
      #expect(!pair.card.isConnected && !pair.frontBus.isConnected && isEven(pair, put))
      #expect(pair.scheduler.run { pair.card.isConnected && pair.frontBus.isConnected }, "\(pair.frontBus.report)")
      let received = pair.received.count
      let sent = (0..<20).map { flow(100 + $0) }
      for one in sent { try pair.card.send(one.span) }
      put += 20
      pair.card.push()
      #expect(pair.receive(received + 20))
      #expect(Set(pair.received.suffix(20)) == Set(sent))
      // Nothing is lost of what there was: not a page, not a grant.
      #expect(pair.scheduler.run { pair.loopback.heldPages == before }, "\(before) \(pair.loopback.heldPages)")
    }
    try pair.toolstack.unplug(device)
    let closed = pair.scheduler.run { pair.holdsNothing }
    #expect(closed, "\(pair.loopback.grantCounts) \(pair.loopback.openPortCount)")
    #expect(isEven(pair, put))
  }

  @Test(arguments: seeds(1...10, of: NetFrontSuspendTests.self))
  func cardWaitsForADeviceThatIsMadeLater(seed: Seed) throws {
    let pair = try NetPair(seed: seed, end: EchoEnd())
    try pair.connect()
    var random = SeededGenerator(seed)
    var put: UInt64 = 0
    try work(pair, &put, &random)
    try pair.toolstack.remove(pair.device)
    pair.guest.suspendAndResume()
    pair.frontBus.resume()
    for _ in 0..<20 {
      pair.scheduler.round()
      pair.pollCard()
    }
    #expect(
      pair.frontBus.report == ["\(pair.device.frontendPath): waits for its directory, since the domain was resumed"])
    let one = flow(1)
    #expect(throws: NetFrontError.notConnected) { try pair.card.send(one.span) }
    _ = try pair.toolstack.addVif(
      to: pair.guest.domain, servedBy: pair.driverDomain.domain, mac: "00:16:3e:00:00:09")
    #expect(pair.scheduler.run { pair.card.isConnected })
    #expect(isEven(pair, put) && pair.card.macAddress?.description == "00:16:3e:00:00:09")
  }

  /// As after a checkpoint: nobody has made the directories anew, and what they say is of the life before.
  @Test(arguments: seeds(1...10, of: NetFrontSuspendTests.self))
  func directoriesThatAreStillThereAreBegunAnew(seed: Seed) throws {
    let pair = try NetPair(seed: seed, end: EchoEnd())
    try pair.connect()
    let before = pair.loopback.heldPages
    var random = SeededGenerator(seed)
    var put: UInt64 = 0
    try work(pair, &put, &random)
    pair.guest.suspendAndResume()
    pair.frontBus.resume()
    #expect(pair.scheduler.run { pair.card.isConnected }, "\(pair.frontBus.report) \(pair.backBus.report)")
    #expect(pair.scheduler.run { pair.loopback.heldPages == before } && isEven(pair, put))
  }

  /// What is closing does not come up again, and waits for nobody.
  @Test(arguments: seeds(1...10, of: NetFrontSuspendTests.self), [true, false])
  func cardThatWasLeavingHasLeft(seed: Seed, isMadeAnew: Bool) throws {
    let pair = try NetPair(seed: seed, end: EchoEnd())
    try pair.connect()
    var random = SeededGenerator(seed)
    var put: UInt64 = 0
    try work(pair, &put, &random)
    pair.frontBus.close()
    for _ in 0..<Int.random(in: 0..<6, using: &random) { pair.scheduler.round() }
    pair.guest.suspendAndResume()
    if isMadeAnew {
      try pair.toolstack.remove(pair.device)
      _ = try pair.toolstack.addVif(
        to: pair.guest.domain, servedBy: pair.driverDomain.domain, mac: "00:16:3e:00:00:01")
    }
    pair.frontBus.resume()
    #expect(pair.frontBus.isEmpty && !pair.card.isConnected && isEven(pair, put))
    #expect(pair.loopback.grantCounts.sharedPages == 0)
    for _ in 0..<20 { pair.scheduler.round() }
    #expect(pair.frontBus.isEmpty && !pair.card.isConnected, "\(pair.frontBus.report)")
    if isMadeAnew {
      #expect(try pair.frontendState == .initialising, "that is another device")
    } else {
      #expect(try pair.scheduler.run { try pair.toolstack.isClosed(pair.device) })
    }
  }

  @Test func deviceThatIsMadeAnewIsNotClosedByACardThatHadPublishedNothing() throws {
    let pair = try NetPair(end: EchoEnd())
    // Its backend is not there yet.
    pair.scheduler.remove(pair.backBus)
    #expect(pair.scheduler.run { !pair.frontBus.report.isEmpty })
    pair.frontBus.close()
    pair.guest.suspendAndResume()
    try pair.toolstack.remove(pair.device)
    _ = try pair.toolstack.addVif(
      to: pair.guest.domain, servedBy: pair.driverDomain.domain, mac: "00:16:3e:00:00:01")
    pair.frontBus.resume()
    #expect(try pair.frontBus.isEmpty && pair.frontendState == .initialising)
  }

  /// Backends of a domain that was resumed begin as after a restart.
  @Test func driverDomainThatIsResumedServesAnew() throws {
    let pair = try NetPair(end: EchoEnd())
    try pair.connect()
    pair.driverDomain.suspendAndResume()
    pair.backBus.resume()
    #expect(pair.scheduler.run { !pair.card.isConnected })
    #expect(pair.scheduler.run { pair.card.isConnected && pair.backBus.isConnected }, "\(pair.backBus.report)")
    let (one, received) = (flow(1), pair.received.count)
    try pair.card.send(one.span)
    pair.card.push()
    #expect(pair.receive(received + 1) && pair.received.last == one)
  }
}
