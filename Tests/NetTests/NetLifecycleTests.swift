import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// The way in and out of Connected, with the card's pages and ports counted.
struct NetLifecycleTests {
  @Test(arguments: seeds(1...50, of: NetLifecycleTests.self))
  func cardUnpluggedInMidTrafficLeavesNothingBehind(seed: Seed) throws {
    var closed: [NetStatistics] = []
    let pair = try NetPair(
      seed: seed, backend: NetBackDriver(whenClosed: { closed.append($1.total) }) { _ in EchoEnd() })
    try pair.connect()
    // Two rings and their pools, the control ring and a page for what it brings; the rings are mapped.
    #expect(pair.loopback.grantCounts.sharedPages == 516 && pair.loopback.grantCounts.mappedPages == 3)
    var put: UInt64 = 0
    let one = frame(1)
    func traffic() throws {
      while pair.card.isConnected, !pair.card.waitsForSlots, put < 400 {
        try pair.card.send(one.span)
        put += 1
      }
      pair.card.push()
      pair.pollCard()
    }
    _ = try pair.scheduler.run(turns: Int(seed.value)) {
      try traffic()
      return false
    }
    try pair.toolstack.unplug(pair.device)
    let done = try pair.scheduler.run {
      try traffic()
      return try pair.toolstack.isClosed(pair.device) && pair.holdsNothing
    }
    #expect(done, "\(pair.loopback.grantCounts), \(pair.loopback.openPortCount) ports")
    let card = pair.card.statistics
    #expect(card.tx.packets + card.tx.drops == put, "every frame is sent or dropped")
    #expect(closed.count == 1 && closed[0].tx.packets >= card.tx.packets)
    #expect(closed[0].rx.packets + closed[0].rx.drops == closed[0].tx.packets)
    try pair.toolstack.remove(pair.device)
    _ = pair.scheduler.run(turns: 50) { false }
    #expect(pair.frontBus.report.isEmpty && pair.backBus.report.isEmpty)
  }

  @Test func framesAnsweredBeforeTheEndCountAsSent() throws {
    let pair = try NetPair(end: EchoEnd())
    try pair.connect()
    let one = frame(1)
    for _ in 0..<5 { try pair.card.send(one.span) }
    pair.card.push()
    _ = pair.scheduler.run(turns: 200) { false }
    pair.frontBus.close()
    #expect(pair.scheduler.run { pair.frontBus.isEmpty && !pair.card.isConnected })
    #expect(pair.card.statistics.tx.packets == 5 && pair.card.statistics.tx.drops == 0)
  }

  @Test(arguments: seeds(1...50, of: NetLifecycleTests.self))
  func restartedBackendIsFollowedInMidTraffic(seed: Seed) throws {
    let pair = try NetPair(seed: seed, end: EchoEnd())
    try pair.connect()
    let one = frame(1)
    for _ in 0..<100 { try pair.card.send(one.span) }
    pair.card.push()
    _ = pair.scheduler.run(turns: seed.modulo(7)) { false }
    pair.backBus.close()
    let left = pair.scheduler.run {
      pair.pollCard()
      return pair.backBus.isEmpty && pair.holdsNothing
    }
    #expect(left, "\(pair.loopback.grantCounts), \(pair.loopback.openPortCount) ports")
    pair.scheduler.remove(pair.backBus)
    let before = pair.received.count
    let bus = try pair.addBackBus(NetBackDriver { _ in EchoEnd() })
    #expect(pair.scheduler.run { bus.isConnected && pair.card.isConnected }, "\(bus.report)")
    let sent = (0..<10).map { frame(1000 + $0, byteCount: 500) }
    for one in sent { try pair.card.send(one.span) }
    pair.card.push()
    #expect(pair.receive(before + 10))
    #expect(Array(pair.received.suffix(10)) == sent)
    let counts = pair.card.statistics.tx
    #expect(counts.packets + counts.drops == 110)
  }

  @Test func cardThatLeavesGivesEverythingBack() throws {
    let pair = try NetPair(end: EchoEnd())
    try pair.connect()
    pair.frontBus.close()
    #expect(pair.scheduler.run { pair.frontBus.isEmpty && pair.holdsNothing })
    let one = frame(1)
    #expect(throws: NetFrontError.notConnected) { try pair.card.send(one.span) }
    #expect(pair.card.poll { _ in } == 0 && pair.card.descriptor == nil && !pair.card.hasCarrier)
  }

  @Test func eachDeviceNeedsACardOfItsOwn() throws {
    let card = NetFrontDevice()
    let pair = try NetPair(backend: NetBackDriver { _ in EchoEnd() }, frontend: card)
    try pair.connect()
    let other = try pair.toolstack.addVif(
      1, to: pair.guest.domain, servedBy: pair.driverDomain.domain, mac: "00:16:3e:00:00:02")
    try pair.frontBus.register(card, at: other.frontendPath)
    #expect(try pair.scheduler.run { try pair.rig.error(of: pair.guest, other.frontendPath) != nil })
    let error = try pair.rig.error(of: pair.guest, other.frontendPath)
    #expect(error == "22 this card is \(pair.device.frontendPath) already; each device needs an object of its own")
    #expect(card.isConnected)
  }

  @Test func negotiationSaysWhatIsOffAndWhy() throws {
    let pair = try NetPair(end: EchoEnd())
    try pair.connect()
    let lines = Dictionary(uniqueKeysWithValues: pair.card.negotiation.lines.map { ($0.feature, $0) })
    #expect(lines["feature-rx-copy"]?.agreed == "on")
    #expect(lines["feature-sg"]?.agreed == "on")
    #expect(lines["feature-gso-tcpv4"]?.agreed == "off")
    #expect(lines["feature-gso-tcpv4"]?.reason == "the backend does not offer it")
    #expect(lines["mtu"]?.agreed == "1500" && lines["queues"]?.agreed == "1")
  }
}
