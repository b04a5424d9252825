import NetBack
import NetFront
import TestSupport
import Testing

/// N4 on the backend's side: several queues, each with its rings, its thread and its counts.
struct NetBackQueuesTests {
  private final class Closed { var statistics: [NetStatistics] = [] }

  private let closed = Closed()

  private func pair(_ end: any NetworkEnd, queues: Int, of offered: Int = 4, seed: Seed = 1) throws -> NetPair {
    let pair = try NetPair(
      seed: seed, features: NetFeatures(maxQueueCount: queues),
      backend: NetBackDriver(
        features: NetFeatures(maxQueueCount: offered), whenClosed: { [closed] in closed.statistics = $1 }
      ) { _ in end })
    pair.guest.sharedPageLimit = 1 << 16
    try pair.connect()
    return pair
  }

  /// What each queue has counted, once it is disconnected.
  private func statistics(_ pair: NetPair) -> [NetStatistics] {
    pair.backBus.close()
    _ = pair.scheduler.run { !closed.statistics.isEmpty }
    return closed.statistics
  }

  /// A packet of a flow, with its place in it.
  private func packet(flow: Int, _ number: Int) -> [UInt8] {
    TestPacket(
      transport: .udp, payload: big(UInt16(number)) + [1, 2, 3],
      ports: (UInt16(1000 + flow), 53)
    ).whole
  }

  private func queue(of packet: [UInt8], _ count: Int) -> Int { NetFlow.queue(for: packet.span, of: count) }

  @Test(arguments: [(1, 4, 1), (2, 4, 2), (4, 4, 4), (4, 2, 2), (4, 1, 1)])
  func aFrontendHasAsManyQueuesAsBothWant(wanted: Int, offered: Int, agreed: Int) throws {
    let pair = try pair(EchoEnd(), queues: wanted, of: offered)
    let lines = try #require(pair.backBus.negotiations[pair.device.backendPath]).lines
    #expect(lines.first { $0.feature == "queues" }?.agreed == "\(agreed)")
    let packets = (0..<40).map { packet(flow: $0, 0) }
    for packet in packets { try pair.card.send(packet.span) }
    pair.card.push()
    #expect(pair.receive(packets.count))
    #expect(Set(pair.received) == Set(packets))
    let sent = pair.card.queueStatistics.map(\.tx.packets)
    let counted = statistics(pair)
    #expect(counted.count == agreed)
    // Answers come back in the queue that they answer.
    #expect(sent.allSatisfy { $0 > 0 })
    #expect(counted.map(\.tx.packets) == sent && counted.map(\.rx.packets) == sent)
    #expect(pair.scheduler.run { pair.holdsNothing })
  }

  @Test(arguments: ["0", "5", "64", "65", "-1", "9223372036854775808", "two", ""])
  func aNumberOfQueuesThatCannotBeClosesTheDevice(text: String) throws {
    let frontend = RawNetFrontend()
    frontend.keys = [StoreEntry("multi-queue-num-queues", text)]
    let pair = try NetPair(
      backend: NetBackDriver(features: NetFeatures(maxQueueCount: 4)) { _ in EchoEnd() }, frontend: frontend)
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    let error = try #require(try pair.backendError)
    #expect(error.contains("multi-queue-num-queues") && error.contains("where a number from "), "\(error)")
    #expect(pair.scheduler.run { pair.holdsNothing })
  }

  @Test(arguments: [
    ("queue-0/tx-ring-ref", ""), ("queue-0/rx-ring-ref", ""), ("queue-0/event-channel", ""),
    ("queue-1/tx-ring-ref", ""), ("queue-1/rx-ring-ref", ""), ("queue-1/event-channel", ""),
    ("queue-1/tx-ring-ref", "-1"), ("queue-1/rx-ring-ref", "4294967296"), ("queue-1/event-channel", "x"),
  ])
  func aQueueWithoutAKeyClosesTheDevice(key: String, text: String) throws {
    let frontend = RawNetFrontend()
    let keys = ["tx-ring-ref", "rx-ring-ref", "event-channel"].flatMap { ["queue-0/\($0)", "queue-1/\($0)"] }
    frontend.keys =
      [StoreEntry("multi-queue-num-queues", 2)]
      + keys.filter { $0 != key || !text.isEmpty }.map { StoreEntry($0, $0 == key ? text : "8") }
    let pair = try NetPair(
      backend: NetBackDriver(features: NetFeatures(maxQueueCount: 4)) { _ in EchoEnd() }, frontend: frontend)
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    let error = try #require(try pair.backendError)
    #expect(error.contains(key) && error.contains(text.isEmpty ? "is missing" : "where a number from 0 to"), "\(error)")
    #expect(pair.scheduler.run { pair.holdsNothing })
  }

  /// Later queues are given back as well when one of them cannot be had.
  @Test func aQueueThatCannotBeMappedLeavesNothingMapped() throws {
    let frontend = RawNetFrontend()
    frontend.keys =
      [StoreEntry("multi-queue-num-queues", 2)]
      + ["queue-0", "queue-1"].flatMap { queue in
        ["tx-ring-ref", "rx-ring-ref", "event-channel"].map { StoreEntry("\(queue)/\($0)", "4242") }
      }
    let pair = try NetPair(
      backend: NetBackDriver(features: NetFeatures(maxQueueCount: 4)) { _ in EchoEnd() }, frontend: frontend)
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    #expect(try pair.backendError?.contains("cannot map grant reference 4242") == true)
    #expect(pair.scheduler.run { pair.holdsNothing })
  }

  // MARK: An end that the queues share

  /// Whatever the order in which queues have their turns: each flow stays in order, and in its queue.
  @Test(arguments: seeds(1...10, of: NetBackQueuesTests.self))
  func aSharedEndsFramesGoToTheQueuesOfTheirFlows(seed: Seed) throws {
    let end = NotingEnd()
    let pair = try pair(end, queues: 3, seed: seed)
    let packets = (0..<300).map { packet(flow: min($0 % 12, $0 % 7), $0) }
    end.toGive = packets.map { .init($0) }
    #expect(pair.receive(packets.count))
    for flow in 0..<12 {
      let ofFlow = { (packets: [[UInt8]]) in
        packets.filter { $0[34] == UInt8((1000 + flow) >> 8) && $0[35] == UInt8((1000 + flow) & 0xFF) }
      }
      #expect(ofFlow(pair.received) == ofFlow(packets))
    }
    let expected = (0..<3).map { queue in packets.count { self.queue(of: $0, 3) == queue } }
    // Each another number, so that none is taken for another.
    try #require(Set(expected).count == 3 && expected.allSatisfy { $0 > 0 }, "\(expected)")
    #expect(pair.card.queueStatistics.map { Int($0.rx.packets) } == expected)
    #expect(statistics(pair).map { Int($0.rx.packets) } == expected)
  }

  /// What has no flow has a queue all the same, and what goes with a frame is handed over with it.
  @Test func whatGoesWithAFrameIsHandedOver() throws {
    let end = NotingEnd()
    let pair = try pair(end, queues: 4)
    let flow = try #require((0..<40).first { queue(of: packet(flow: $0, 0), 4) == 3 })
    let blank = packet(flow: flow, 0)
    end.toGive = [.init(blank, .init(checksum: .blank)), .init(frame(1))]
    #expect(pair.receive(2))
    #expect(pair.card.queueStatistics.map(\.rx.packets) == [1, 0, 0, 1])
  }

  /// A guest that takes nothing in one queue loses the frames of that queue alone, all of them counted.
  @Test func aQueueThatIsFullHoldsBackNoOther() throws {
    let end = NotingEnd()
    let pair = try pair(end, queues: 2)
    let flows = (0..<40).map { packet(flow: $0, 0) }
    let first = try #require(flows.first { queue(of: $0, 2) == 0 })
    let second = try #require(flows.first { queue(of: $0, 2) == 1 })
    // The card is not polled: there are 256 pages in each queue, a line of 256 frames, and a mailbox of as many.
    end.toGive = Array(repeating: .init(second), count: 2000) + Array(repeating: .init(first), count: 200)
    #expect(pair.scheduler.run { end.toGive.isEmpty })
    _ = pair.scheduler.run(turns: 200) { false }
    let statistics = statistics(pair)
    try #require(statistics.count == 2)
    #expect(statistics[0].rx.packets == 200 && statistics[0].rx.drops == 0)
    #expect(statistics[1].rx.packets == 256)
    #expect(statistics[1].rx.packets + statistics[1].rx.drops == 2000)
  }

  // MARK: An end for each

  @Test func eachQueueAsksItsOwnEnd() throws {
    let ends = (0..<3).map { _ in NotingEnd() }
    let end = NotingEnd { ends[$0] }
    let pair = try pair(end, queues: 3)
    for (number, end) in ends.enumerated() { end.toGive = [.init(frame(number)), .init(packet(flow: 0, number))] }
    #expect(pair.receive(6))
    #expect(pair.card.queueStatistics.map(\.rx.packets) == [2, 2, 2])
    let packets = (0..<30).map { packet(flow: $0, 0) }
    for packet in packets { try pair.card.send(packet.span) }
    pair.card.push()
    #expect(
      pair.scheduler.run {
        pair.pollCard()
        return pair.card.statistics.tx.packets == 30
      })
    #expect(Set(ends.flatMap { $0.taken.map(\.bytes) }) == Set(packets))
    #expect(ends.map { UInt64($0.taken.count) } == pair.card.queueStatistics.map(\.tx.packets))
    #expect(end.taken.isEmpty)
  }

  @Test func theLinkIsUpWhenEachEndSaysSo() throws {
    let ends = (0..<2).map { _ in NotingEnd() }
    let pair = try pair(NotingEnd { ends[$0] }, queues: 2)
    let directory = pair.rig.directory(pair.device.backendPath)
    #expect(try directory.string("carrier") == "1")
    ends[1].hasCarrier = false
    #expect(try pair.scheduler.run { try directory.string("carrier") == "0" })
    ends[1].hasCarrier = true
    #expect(try pair.scheduler.run { try directory.string("carrier") == "1" })
  }

  // MARK: Threads

  /// Each queue sleeps, and is woken for what is handed over to it.
  @Test func aQueueOfAnotherThreadIsWokenForItsFrames() throws {
    let rig = try Rig()
    let end = try InProcessEnd()
    let card = NetFrontDevice(features: NetFeatures(maxQueueCount: 2))
    rig.guest.sharedPageLimit = 1 << 16
    _ = try rig.toolstack.addVif(to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    let pair = try ThreadedPair(
      rig, frontend: card, backend: NetBackDriver(features: NetFeatures(maxQueueCount: 2)) { _ in end })
    try #require(pair.run { pair.frontBus.isConnected && pair.backBus.isConnected })
    var received = 0
    for number in 0..<60 {
      let packet = packet(flow: number, number)
      end.send(packet.span)
      let arrived = pair.run {
        received += card.poll { frame in #expect(frame.copied() == packet) }
        return received == number + 1
      }
      try #require(arrived)
    }
    #expect(card.queueStatistics.allSatisfy { $0.rx.packets > 10 })
    pair.backBus.close()
    pair.frontBus.close()
  }
}
