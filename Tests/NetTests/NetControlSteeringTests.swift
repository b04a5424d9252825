import NetBack
import NetFront
import TestSupport
import Testing

/// Both halves of the control ring: what NetFront sets decides the queue of each frame that NetBack sends it.
struct NetControlSteeringTests {
  private let key = [UInt8](0..<40).map { $0 &* 37 &+ 11 }
  private let mapping: [UInt32] = [2, 0, 1, 1, 2, 0, 2]

  private func pair(queues: Int = 3, seed: Seed = 1, _ end: any NetworkEnd) throws -> NetPair {
    let features = NetFeatures(maxQueueCount: queues)
    let pair = try NetPair(seed: seed, features: features, backendFeatures: features, end: end)
    pair.guest.sharedPageLimit = 4096
    try pair.connect()
    #expect(pair.card.queueStatistics.count == queues)
    return pair
  }

  private func set(_ configuration: NetHashConfiguration, on pair: NetPair) throws {
    pair.card.setHashing(configuration)
    let isSet = pair.scheduler.run {
      pair.pollCard()
      return pair.card.hashing == .set(configuration)
    }
    try #require(isSet, "\(pair.card.hashing)")
  }

  private struct Arrival: Equatable {
    let queue: Int
    let hash: NetPacketMetadata.Hash?
  }

  /// Where a frame arrives that `send` has sent.
  private func arrival(_ pair: NetPair, _ send: () throws -> Void) throws -> Arrival? {
    let before = pair.card.queueStatistics.map(\.rx.packets)
    var arrivals: [NetPacketMetadata.Hash?] = []
    try send()
    let arrived = pair.scheduler.run(turns: 2000) {
      pair.card.poll(now: pair.scheduler.now) { arrivals.append($0.metadata.hash) }
      return !arrivals.isEmpty
    }
    #expect(arrived && arrivals.count == 1)
    let after = pair.card.queueStatistics.map(\.rx.packets)
    let queues = after.indices.filter { after[$0] > before[$0] }
    return queues.count == 1 && arrivals.count == 1 ? Arrival(queue: queues[0], hash: arrivals[0]) : nil
  }

  private var flows: [TestPacket] {
    (0..<40 as Range<UInt16>).map { number in
      var packet = TestPacket(
        network: number % 3 == 0 ? .ipv6 : .ipv4, transport: number % 5 == 0 ? .udp : .tcp, payload: [1, 2, 3])
      packet.ports = (1000 + number * 7, 80)
      packet.source = [10, 1, UInt8(number % 4), UInt8(number)]
      return packet
    }
  }

  /// What Toeplitz predicts.
  private func prediction(_ packet: TestPacket, mapping: [UInt32]) throws -> Arrival {
    let frame = packet.whole
    let flow = NetFlow(of: frame.span)
    let isTCP = packet.transport == .tcp
    let value = Toeplitz(key: key.span).value(of: try #require(flow), withPorts: isTCP)
    let kind: NetExtraInfo.HashKind =
      packet.network == .ipv4 ? (isTCP ? .ipv4TCP : .ipv4) : (isTCP ? .ipv6TCP : .ipv6)
    return Arrival(
      queue: Int(mapping[Int(value % UInt32(mapping.count))]), hash: NetPacketMetadata.Hash(kind, value: value))
  }

  @Test(arguments: seeds(1...3, of: NetControlSteeringTests.self))
  func eachFlowArrivesOnTheQueueThatToeplitzPredicts(seed: Seed) throws {
    let end = try InProcessEnd()
    let pair = try pair(seed: seed, end)
    try set(NetHashConfiguration(toeplitz: key, mapping: mapping), on: pair)
    var queues = Set<Int>()
    for packet in flows {
      let arrival = try arrival(pair) { end.send(packet.whole.span) }
      #expect(try arrival == prediction(packet, mapping: mapping))
      if let arrival { queues.insert(arrival.queue) }
    }
    #expect(queues == [0, 1, 2])
    // What has no hash goes where a hash of zero does.
    let arp = try arrival(pair) { end.send(frame(1).span) }
    #expect(arp == Arrival(queue: 2, hash: nil))
  }

  /// Without a mapping, by what is left of the hash; and without an algorithm as if nothing had ever been set.
  @Test func anotherWishHoldsFromThenOn() throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    try set(NetHashConfiguration(toeplitz: key, mapping: mapping), on: pair)
    try set(NetHashConfiguration(toeplitz: key), on: pair)
    for packet in flows.prefix(12) {
      let arrival = try arrival(pair) { end.send(packet.whole.span) }
      #expect(try arrival == prediction(packet, mapping: [0, 1, 2]))
    }
    try set(NetHashConfiguration(), on: pair)
    for packet in flows.prefix(12) {
      let arrival = try arrival(pair) { end.send(packet.whole.span) }
      let expected = NetFlow.queue(for: packet.whole.span, of: 3)
      #expect(arrival == Arrival(queue: expected, hash: nil))
    }
  }

  /// Each queue has an end of its own, and a frame may come to the wrong one; what an end answers may, too.
  @Test func framesOfSplitEndsAndAnswersAreHandedOver() throws {
    let ends = [try InProcessEnd(), try InProcessEnd(), try InProcessEnd()]
    let pair = try pair(SplitEnd(ends))
    try set(NetHashConfiguration(toeplitz: key, mapping: mapping), on: pair)
    for (number, packet) in flows.enumerated() {
      let arrival = try arrival(pair) { ends[number % 3].send(packet.whole.span) }
      #expect(try arrival == prediction(packet, mapping: mapping))
    }
    let echo = try self.pair(EchoEnd())
    try set(NetHashConfiguration(toeplitz: key, mapping: mapping), on: echo)
    for packet in flows {
      let arrival = try arrival(echo) {
        try echo.card.send(packet.whole.span)
        echo.card.push()
      }
      #expect(try arrival == prediction(packet, mapping: mapping))
    }
  }

  /// A card of one queue has hashes, too.
  @Test func oneQueueHasHashes() throws {
    let end = try InProcessEnd()
    let pair = try pair(queues: 1, end)
    try set(NetHashConfiguration(toeplitz: key), on: pair)
    for packet in flows.prefix(6) {
      let arrival = try arrival(pair) { end.send(packet.whole.span) }
      #expect(try arrival == prediction(packet, mapping: [0]))
    }
  }

  /// Many frames at once, while what is set changes: none is lost.
  @Test(arguments: seeds(1...10, of: NetControlSteeringTests.self))
  func noFrameIsLostWhileTheMappingChanges(seed: Seed) throws {
    var random = SeededGenerator(seed)
    let ends = [try InProcessEnd(), try InProcessEnd(), try InProcessEnd()]
    let pair = try pair(seed: seed, seed.modulo(2) == 0 ? ends[0] : SplitEnd(ends))
    var sentCount = 0
    let flows = flows.map(\.whole)
    for round in 0..<20 {
      if round % 3 == 0 {
        let mapping = (0..<5).map { _ in UInt32.random(in: 0...2, using: &random) }
        pair.card.setHashing(
          round % 2 == 0 ? NetHashConfiguration(toeplitz: key, mapping: mapping) : NetHashConfiguration())
      }
      for _ in 0..<10 {
        let end = ends[seed.modulo(2) == 0 ? 0 : Int.random(in: 0...2, using: &random)]
        let frame = flows[Int.random(in: 0..<flows.count, using: &random)]
        if end.send(frame.span) { sentCount += 1 }
      }
      pair.scheduler.round()
      pair.pollCard()
    }
    #expect(sentCount == 200 && pair.receive(sentCount))
    _ = pair.scheduler.run(turns: 100) {
      pair.pollCard()
      return false
    }
    #expect(pair.received.count == sentCount)
  }

  /// A backend that has come back is asked again.
  @Test func aBackendThatBeginsAnewIsAskedAgain() throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    let wish = NetHashConfiguration(toeplitz: key, mapping: mapping)
    try set(wish, on: pair)
    pair.backBus.close()
    #expect(pair.scheduler.run { !pair.card.isConnected })
    #expect(pair.card.hashing == .pending(wish))
    _ = try pair.addBackBus(NetBackDriver(features: NetFeatures(maxQueueCount: 3)) { _ in end })
    let isSet = pair.scheduler.run {
      pair.pollCard()
      return pair.card.hashing == .set(wish)
    }
    #expect(isSet)
    let arrival = try arrival(pair) { end.send(flows[1].whole.span) }
    #expect(try arrival == prediction(flows[1], mapping: mapping))
  }
}

/// Each queue's end is another one.
private final class SplitEnd: NetworkEnd {
  private let all: [any NetworkEnd]

  init(_ all: [any NetworkEnd]) { self.all = all }

  func ends(forQueues queueCount: Int, guestOffloads: NetOffloads) throws(DeviceError) -> [any NetworkEnd] {
    Array(all[..<queueCount])
  }

  func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {}
}
