import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// N15: a backend or a frontend that goes away and comes back under traffic, with every page and grant counted.
struct NetFrontRestartTests {
  private static let queueCount = 3

  /// Packets of every kind: short ones, such with a blank checksum, and such to be cut.
  private func send(_ card: NetFrontDevice, _ number: Int) throws {
    var packet = TestPacket(payload: pattern(number % 3 == 0 ? 9000 : 300, seed: number))
    packet.ports = (UInt16(1000 + number % 40), 80)
    let bytes = packet.bytes
    var metadata = NetPacketMetadata()
    if number % 3 != 1 { metadata.checksum = .blank }
    if number % 3 == 0 { metadata.segmentation = NetPacketMetadata.Segmentation(.tcpv4, payloadByteCount: 1448) }
    try card.send(bytes.span, metadata)
  }

  /// Sends back what has come, also what was to be cut, as it came.
  private func echo(_ backend: ManyRingsNetBackend) throws {
    for queue in 0..<backend.queueCount {
      let slots = try backend.requests(queue: queue)
      backend.answerAll(queue: queue, slots)
      var info: NetIfExtraInfo?
      var blank: UInt16 = 0
      var isExtra = false
      for slot in slots {
        if isExtra {
          info = NetIfExtraInfo(slot)
          isExtra = false
          try backend.fill(queue: queue, info!)
          continue
        }
        isExtra = slot.flags & NetIf.TxFlag.extraInfo != 0
        blank = slot.flags & NetIf.TxFlag.checksumBlank != 0 ? NetIf.RxFlag.checksumBlank : 0
        guard try !backend.pages(queue: queue).isEmpty else { return }
        try backend.fill(
          queue: queue, pattern(64, seed: 1),
          flags: blank | slot.flags & (NetIf.TxFlag.moreData | NetIf.TxFlag.extraInfo))
      }
    }
  }

  @Test(arguments: seeds(1...50, of: NetFrontRestartTests.self))
  func restartedBackendIsFollowedUnderTraffic(seed: Seed) throws {
    let features = NetFeatures(maxQueueCount: Self.queueCount)
    var backend = ManyRingsNetBackend()
    let pair = try NetPair(seed: seed, features: features, backend: backend)
    pair.guest.sharedPageLimit = 4096
    #expect(pair.scheduler.run { pair.card.isConnected && pair.backBus.isConnected })
    let before = pair.loopback.heldPages
    #expect(before == [Self.queueCount * 514, Self.queueCount * 2, 0, 0])
    var random = SeededGenerator(seed)
    var (put, number) = (UInt64(0), 0)
    func traffic(_ turns: Int) throws {
      for _ in 0..<turns {
        for _ in 0..<Int.random(in: 0..<99, using: &random) where pair.card.isConnected && !pair.card.waitsForSlots {
          try send(pair.card, number)
          (put, number) = (put + 1, number + 1)
        }
        pair.card.push()
        pair.scheduler.round()
        try echo(backend)
        pair.pollCard()
      }
    }
    var bus = pair.backBus
    for life in 0..<3 {
      try traffic(Int.random(in: 5..<30, using: &random))
      #expect(pair.card.inFlightCount > 0 || pair.card.statistics.tx.packets > 0)
      let former = pair.card.statistics.tx.packets
      bus.close()
      let left = try pair.scheduler.run {
        if pair.card.isConnected { try traffic(1) }
        return bus.isEmpty && pair.holdsNothing
      }
      #expect(left, "\(pair.loopback.grantCounts), \(pair.loopback.openPortCount) ports; \(bus.report)")
      pair.scheduler.remove(bus)
      backend = ManyRingsNetBackend()
      bus = try pair.addBackBus(backend)
      #expect(pair.scheduler.run { bus.isConnected && pair.card.isConnected }, "\(life): \(bus.report)")
      #expect(pair.loopback.heldPages == before, "\(pair.loopback.heldPages)")
      #expect(pair.card.offloads == .all && pair.card.inFlightCount == 0)
      let received = pair.received.count
      try traffic(20)
      #expect(pair.received.count > received && pair.card.statistics.tx.packets > former)
    }
    bus.close()
    #expect(pair.scheduler.run { bus.isEmpty && pair.holdsNothing })
    let counts = pair.card.statistics.tx
    #expect(counts.packets + counts.drops == put && counts.errors == 0, "\(counts) of \(put)")
    #expect(pair.card.queueStatistics.count == Self.queueCount)
  }

  /// Its pages and ports are gone, and the two states say Connected.
  @Test(arguments: seeds(1...20, of: NetFrontRestartTests.self))
  func killedBackendIsFollowed(seed: Seed) throws {
    let pair = try NetPair(seed: seed, end: EchoEnd())
    try pair.connect()
    let before = pair.loopback.heldPages
    for number in 0..<50 { try pair.card.send(frame(number).span) }
    pair.card.push()
    _ = pair.scheduler.run(turns: seed.modulo(9)) { false }
    pair.driverDomain.kill()
    let bus = try pair.addBackBus(NetBackDriver { _ in EchoEnd() })
    #expect(pair.scheduler.run { bus.isConnected && pair.card.isConnected }, "\(bus.report)")
    #expect(pair.scheduler.run { pair.loopback.heldPages == before }, "\(pair.loopback.heldPages)")
    let (one, received) = (frame(99), pair.received.count)
    try pair.card.send(one.span)
    pair.card.push()
    #expect(pair.receive(received + 1) && pair.received.last == one)
    let counts = pair.card.statistics.tx
    #expect(counts.packets + counts.drops + UInt64(pair.card.inFlightCount) == 51)
  }

  @Test(arguments: seeds(1...20, of: NetFrontRestartTests.self))
  func killedFrontendConnectsAgain(seed: Seed) throws {
    let pair = try NetPair(seed: seed, end: EchoEnd())
    try pair.connect()
    let before = pair.loopback.heldPages
    for number in 0..<50 { try pair.card.send(frame(number).span) }
    pair.card.push()
    _ = pair.scheduler.run(turns: seed.modulo(9)) { false }
    pair.guest.kill()
    let card = NetFrontDevice()
    let bus = try pair.addFrontBus(card, at: pair.device.frontendPath)
    #expect(pair.scheduler.run { bus.isConnected && card.isConnected }, "\(bus.report) \(pair.backBus.report)")
    #expect(pair.scheduler.run { pair.loopback.heldPages == before }, "\(pair.loopback.heldPages)")
    let one = frame(99)
    try card.send(one.span)
    card.push()
    var received: [[UInt8]] = []
    let answered = pair.scheduler.run {
      card.poll { received.append($0.copied()) }
      return !received.isEmpty
    }
    #expect(answered && received == [one])
  }
}

extension Loopback {
  /// What is shared, mapped, and held back because somebody still maps it.
  var heldPages: [Int] {
    [grantCounts.sharedPages, grantCounts.mappedPages, grantCounts.quarantinedPages, grantCounts.orphanedPages]
  }
}
