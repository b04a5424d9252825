import NetFront
import TestSupport
import Testing

/// N4: a card of several queues.
struct NetFrontQueuesTests {
  private let backend = ManyRingsNetBackend()

  private func pair(
    maxQueueCount: Int, splits: Bool = true, limit: Int = 4096, mtu: Int = 1500
  ) throws -> NetPair {
    let pair = try NetPair(
      mtu: mtu, features: NetFeatures(splitEventChannels: splits, maxQueueCount: maxQueueCount), backend: backend)
    pair.guest.sharedPageLimit = limit
    #expect(pair.scheduler.run { pair.card.isConnected })
    return pair
  }

  private func lines(_ pair: NetPair) -> [String: Negotiation.Line] {
    Dictionary(uniqueKeysWithValues: pair.card.negotiation.lines.map { ($0.feature, $0) })
  }

  private func own(_ pair: NetPair) -> StoreDirectory { pair.rig.directory(pair.device.frontendPath) }

  @Test(arguments: [
    (1, 1, "the frontend does not use more"), (2, 2, "the frontend does not use more"), (4, 4, ""),
    (7, 4, "the backend offers no more"),
  ])
  func asManyQueuesAsBothEndsHave(asked: Int, agreed: Int, reason: String) throws {
    let pair = try pair(maxQueueCount: asked)
    #expect(backend.queueCount == agreed && pair.card.queueStatistics.count == agreed)
    #expect(lines(pair)["queues"]?.agreed == "\(agreed)" && lines(pair)["queues"]?.reason == reason)
    #expect(pair.loopback.grantCounts.sharedPages == agreed * 514)
    pair.frontBus.close()
    #expect(pair.scheduler.run { pair.holdsNothing }, "\(pair.loopback.grantCounts) \(pair.loopback.openPortCount)")
  }

  @Test(arguments: [true, false])
  func eachQueueHasADirectoryOfItsOwn(splits: Bool) throws {
    let pair = try pair(maxQueueCount: 3, splits: splits)
    let channels = splits ? ["event-channel-rx", "event-channel-tx"] : ["event-channel"]
    for number in 0..<3 {
      #expect(try own(pair).children().contains("queue-\(number)"))
      let queue = StoreDirectory(own(pair).path(of: "queue-\(number)"), in: pair.rig.store)
      #expect(try queue.children().sorted() == channels + ["rx-ring-ref", "tx-ring-ref"])
    }
    #expect(try own(pair).optionalString("multi-queue-num-queues") == "3")
    #expect(try !own(pair).children().contains { $0.hasSuffix("ring-ref") || $0.hasPrefix("event-channel") })
  }

  /// A backend takes what it finds.
  @Test func keysOfAnEarlierConnectionAreGone() throws {
    let pair = try pair(maxQueueCount: 4)
    for (offered, splits) in [(1, true), (2, false), (1, false), (4, true)] {
      pair.backBus.close()
      #expect(pair.scheduler.run { pair.backBus.isEmpty && !pair.card.isConnected })
      pair.scheduler.remove(pair.backBus)
      let next = ManyRingsNetBackend(
        offered: [
          StoreEntry("multi-queue-max-queues", offered), StoreEntry("feature-split-event-channels", splits),
        ])
      let bus = try pair.addBackBus(next)
      #expect(pair.scheduler.run { pair.card.isConnected && next.queueCount == offered }, "\(bus.report)")
      let names = try own(pair).children().filter {
        $0.hasPrefix("queue-") || $0.hasSuffix("ring-ref") || $0.hasPrefix("event-channel") || $0.hasPrefix("multi")
      }
      let channels = splits ? ["event-channel-rx", "event-channel-tx"] : ["event-channel"]
      #expect(
        names.sorted()
          == (offered > 1
            ? ["multi-queue-num-queues"] + (0..<offered).map { "queue-\($0)" }
            : channels + ["rx-ring-ref", "tx-ring-ref"]))
      bus.close()
      #expect(pair.scheduler.run { bus.isEmpty && !pair.card.isConnected })
      pair.scheduler.remove(bus)
      let last = try pair.addBackBus(ManyRingsNetBackend())
      #expect(pair.scheduler.run { last.isConnected && pair.card.isConnected })
      last.close()
      #expect(pair.scheduler.run { last.isEmpty && !pair.card.isConnected })
      pair.scheduler.remove(last)
    }
  }

  /// What was offered before was right.
  @Test(arguments: ["feature-sg", "feature-gso-tcpv4", "carrier"])
  func aKeyThatTurnsBadWhenTheBackendConnectsClosesTheCardAlone(key: String) throws {
    backend.keysAtTheConnection = [StoreEntry(key, "x")]
    let pair = try NetPair(features: NetFeatures(maxQueueCount: 4), backend: backend)
    pair.guest.sharedPageLimit = 4096
    #expect(try pair.scheduler.run { try pair.frontendError != nil })
    #expect(try pair.frontendError?.contains("\(pair.device.backendPath)/\(key) holds \"x\"") == true)
    #expect(!pair.card.isConnected && !pair.card.hasCarrier && pair.card.queueStatistics.total == NetStatistics())
    #expect(try pair.scheduler.run { try pair.frontendState == .closed && pair.holdsNothing })
  }

  private func flow(_ number: Int, _ network: NetHeaders.Network, _ sequence: Int) -> [UInt8] {
    var packet = TestPacket(network: network, transport: number % 2 == 0 ? .tcp : .udp)
    packet.ports = (UInt16(1024 + number), 80)
    packet.source = [10, 9, UInt8(number / 256), UInt8(number % 256)]
    packet.payload = [UInt8(sequence)] + pattern(40, seed: number)
    return packet.bytes
  }

  @Test(arguments: [NetHeaders.Network.ipv4, .ipv6], [2, 3, 4])
  func aFlowStaysOnItsQueueAndAllQueuesAreUsed(network: NetHeaders.Network, queueCount: Int) throws {
    let pair = try pair(maxQueueCount: queueCount)
    let (flowCount, roundCount) = (60, 5)
    var queues: [[UInt8]: Set<Int>] = [:]
    var counts = Array(repeating: 0, count: queueCount)
    for round in 0..<roundCount {
      for number in 0..<flowCount { try pair.card.send(flow(number, network, round).span) }
      pair.card.push()
      for queue in 0..<queueCount {
        let slots = try backend.requests(queue: queue)
        for slot in slots {
          var bytes = backend.frame([slot])
          let place = bytes.count - 41
          // In its order.
          #expect(bytes[place] == UInt8(round))
          bytes[place] = 0
          // Lengths and checksums are the same in all packets of a flow here.
          queues[bytes, default: []].insert(queue)
        }
        counts[queue] += slots.count
        backend.answerAll(queue: queue, slots)
      }
      pair.pollCard()
    }
    #expect(queues.count == flowCount && queues.values.allSatisfy { $0.count == 1 })
    // Each has at least a third of its share.
    #expect(
      counts.reduce(0, +) == flowCount * roundCount
        && counts.allSatisfy { $0 * queueCount * 3 > flowCount * roundCount }, "\(counts)")
    let statistics = pair.card.queueStatistics
    #expect(statistics.map(\.tx.packets) == counts.map { UInt64($0) })
    #expect(statistics.total == pair.card.statistics && pair.card.inFlightCount == 0)
  }

  /// What has no flow has no place of its own.
  @Test func whatIsNotIPTakesTheFirstQueue() throws {
    let pair = try pair(maxQueueCount: 4)
    for number in 0..<50 { try pair.card.send(frame(number, byteCount: 14 + number).span) }
    var short = flow(3, .ipv4, 0)
    short.removeSubrange(30...)
    try pair.card.send(short.span)
    pair.card.push()
    #expect(try backend.requests(queue: 0).count == 51)
  }

  /// Later fragments have no ports, so the first one's do not count.
  @Test func fragmentsOfAPacketTakeOneQueue() throws {
    let pair = try pair(maxQueueCount: 4)
    for number in 0..<40 {
      var (first, later) = (flow(number, .ipv4, 0), flow(number, .ipv4, 0))
      (first[20], first[21]) = (0x20, 0)
      (later[20], later[21]) = (0, 3)
      later.replaceSubrange(34..<38, with: pattern(4, seed: number))
      try pair.card.send(first.span)
      try pair.card.send(later.span)
      pair.card.push()
      let counts = try (0..<4).map { try backend.requests(queue: $0).count }
      #expect(counts.sorted() == [0, 0, 0, 2], "\(number)")
    }
  }

  @Test(arguments: [true, false])
  func framesArriveFromEveryQueueAndEachIsWokenForItself(splits: Bool) throws {
    let pair = try pair(maxQueueCount: 4, splits: splits)
    var random = SeededGenerator(Seed(1))
    for round in 0..<300 {
      for queue in (0..<4).shuffled(using: &random) { try backend.fill(queue: queue, frame(round * 4 + queue)) }
      if round % 7 == 0 { pair.pollCard() }
    }
    pair.pollCard()
    #expect(pair.received.count == 1200)
    for queue in 0..<4 {
      let own = pair.received.filter { one in (0..<300).contains { frame($0 * 4 + queue) == one } }
      #expect(own == (0..<300).map { frame($0 * 4 + queue) })
    }
    #expect(pair.card.queueStatistics.map(\.rx.packets) == [300, 300, 300, 300])
    let descriptor = try #require(pair.card.descriptor)
    for queue in 0..<4 {
      while isReadable(descriptor, within: 0) { pair.pollCard() }
      try backend.fill(queue: queue, frame(5000 + queue))
      #expect(isReadable(descriptor, within: 0), "queue \(queue)")
      pair.pollCard()
      #expect(pair.received.last == frame(5000 + queue))
    }
  }

  @Test func aFullQueueStopsItsOwnFlowsAlone() throws {
    let pair = try pair(maxQueueCount: 2)
    // Two flows on two queues.
    var numbers: [Int: Int] = [:]
    for number in 0..<20 {
      try pair.card.send(flow(number, .ipv4, 0).span)
      pair.card.push()
      for queue in 0..<2 {
        let slots = try backend.requests(queue: queue)
        if !slots.isEmpty { numbers[queue] = number }
        backend.answerAll(queue: queue, slots)
      }
      pair.pollCard()
    }
    let (full, open) = (flow(try #require(numbers[0]), .ipv4, 0), flow(try #require(numbers[1]), .ipv4, 0))
    for _ in 0..<256 { try pair.card.send(full.span) }
    #expect(throws: NetFrontError.busy) { try pair.card.send(full.span) }
    #expect(pair.card.waitsForSlots)
    for _ in 0..<256 { try pair.card.send(open.span) }
    #expect(throws: NetFrontError.busy) { try pair.card.send(open.span) }
    pair.card.push()
    backend.answerAll(queue: 1, try backend.requests(queue: 1))
    pair.pollCard()
    try pair.card.send(open.span)
    #expect(throws: NetFrontError.busy) { try pair.card.send(full.span) }
  }

  @Test(arguments: [0, 1, 2])
  func whatOneQueueBreaksClosesTheCard(queue: Int) throws {
    let pair = try pair(maxQueueCount: 3)
    backend.scribbleProducer(queue: queue, 257)
    let refused = try pair.scheduler.run {
      pair.pollCard()
      return try pair.frontendError != nil
    }
    #expect(refused && !pair.card.isConnected)
    #expect(pair.scheduler.run { pair.holdsNothing }, "\(pair.loopback.grantCounts) \(pair.loopback.openPortCount)")
  }

  /// Fewer queues first, then smaller pools; the report says so, and names what to raise.
  @Test(arguments: [
    (4 * 514, 4, 256), (4 * 514 - 1, 3, 256), (2 * 514, 2, 256), (2 * 514 - 1, 1, 256), (514, 1, 256), (513, 1, 128),
    (2 * 258, 1, 256), (100, 1, 32),
  ])
  func whereTooFewPagesAreLeftThereAreFewerQueuesAndThenSmallerPools(
    limit: Int, queueCount: Int, pageCount: Int
  ) throws {
    let pair = try pair(maxQueueCount: 4, limit: limit)
    #expect(backend.queueCount == queueCount)
    let lines = lines(pair)
    #expect(lines["queues"]?.agreed == "\(queueCount)")
    #expect(lines["tx pages"]?.agreed == "\(pageCount)" && lines["rx pages"]?.agreed == "\(pageCount)")
    #expect(lines["queues"]?.reason.hasPrefix("no more pages can be shared: ") == (queueCount < 4))
    #expect(lines["tx pages"]?.reason.hasPrefix("no more can be shared: ") == (pageCount < 256))
    #expect(pair.loopback.grantCounts.sharedPages == queueCount * (2 + 2 * pageCount))
    pair.frontBus.close()
    #expect(pair.scheduler.run { pair.holdsNothing })
  }

  /// With all its queues' pools small, each asks for what it lacks.
  @Test func missingPagesOfEachQueueAreAskedForAgain() throws {
    // Room for one queue of 64 pages each way, and what is left makes others of that size.
    let pair = try pair(maxQueueCount: 4, limit: 2 * 130 + 100)
    #expect(backend.queueCount == 1)
    #expect(pair.card.nextPoll != nil)
    pair.guest.sharedPageLimit = 4096
    pair.card.poll(now: Uptime(nanoseconds: 1_000_000_000)) { _ in }
    #expect(pair.card.nextPoll == nil)
    #expect(try backend.pages().count == 256)
  }
}
