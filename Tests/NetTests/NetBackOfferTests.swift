import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// X8: a backend that was killed between its offer and Connected, and comes back with less to offer, while the card has made its
/// rings for what it had found.
struct NetBackOfferTests {
  /// A card whose backend has offered four queues and all else, and was killed before it connected.
  private func killed(
    _ features: NetFeatures = NetFeatures(maxQueueCount: 3), mtu: Int = 1500, end: any NetworkEnd = EchoEnd()
  ) throws -> NetPair {
    let pair = try NetPair(
      mtu: mtu, features: features, backendFeatures: NetFeatures(maxQueueCount: 4), end: end)
    pair.guest.sharedPageLimit = 1 << 16
    pair.scheduler.remove(pair.frontBus)
    #expect(try pair.scheduler.run { try pair.backendState == .initWait })
    pair.driverDomain.kill()
    pair.scheduler.add(pair.frontBus, of: pair.guest, name: "card's bus") { [bus = pair.frontBus] _ in bus.poll() }
    #expect(try pair.scheduler.run { try pair.frontendState == .connected })
    return pair
  }

  private static let fewer: [NetFeatures] = [
    NetFeatures(maxQueueCount: 1), NetFeatures(splitEventChannels: false, maxQueueCount: 4),
    NetFeatures(scatterGather: false, maxQueueCount: 2),
    {
      var features = NetFeatures(splitEventChannels: false, scatterGather: false, maxQueueCount: 1)
      (features.controlRing, features.multicastControl, features.offloads) = (false, false, [])
      return features
    }(),
  ]

  @Test(arguments: fewer.indices) func ringsMadeForAFormerLargerOfferAreServed(index: Int) throws {
    let pair = try killed(mtu: 9000)
    let bus = try pair.addBackBus(NetBackDriver(features: Self.fewer[index]) { _ in EchoEnd() })
    #expect(
      pair.scheduler.run { bus.isConnected && pair.frontBus.isConnected }, "\(bus.report) \(pair.frontBus.report)")
    let lines = try #require(bus.negotiations[pair.device.backendPath]).lines
    #expect(lines.first { $0.feature == "queues" }?.agreed == "3")
    #expect(lines.first { $0.feature == "feature-split-event-channels" }?.agreed == "on")
    #expect(lines.first { $0.feature == "feature-sg" }?.agreed == "on")
    let packets = (0..<40 as Range<UInt16>).map { number in
      var packet = TestPacket(payload: pattern(200, seed: Int(number)))
      packet.ports = (1000 + number * 7, 80)
      return packet.whole
    }
    for packet in packets { try pair.card.send(packet.span) }
    pair.card.push()
    #expect(pair.receive(packets.count))
    #expect(Set(pair.received) == Set(packets))
    // Larger than a page: several slots.
    let large = frame(7, byteCount: 9000)
    try pair.card.send(large.span)
    pair.card.push()
    #expect(pair.receive(packets.count + 1) && pair.received.last == large)
    #expect(try pair.rig.error(of: pair.driverDomain, pair.device.backendPath) == nil)
  }

  /// What the card sends unfinished it decides by what the backend takes that has connected.
  @Test func cardGoesByTheOffloadsOfTheBackendThatConnected() throws {
    let end = NotingEnd(offloads: .all)
    let pair = try killed(end: end)
    let offer = pair.rig.directory(pair.device.backendPath)
    #expect(try offer.flag("feature-gso-tcpv4") && !offer.flag("feature-no-csum-offload"), "the former one")
    var features = NetFeatures(maxQueueCount: 4)
    features.offloads = []
    let bus = try pair.addBackBus(NetBackDriver(features: features) { _ in end })
    #expect(pair.scheduler.run { bus.isConnected && pair.card.isConnected })
    #expect(pair.card.offloads == [])
  }

  @Test func countOfQueuesThatNobodyOfferedIsRefused() throws {
    let frontend = RawNetFrontend()
    frontend.keys = [StoreEntry("multi-queue-num-queues", 5)]
    let pair = try NetPair(
      backend: NetBackDriver(features: NetFeatures(maxQueueCount: 4)) { _ in EchoEnd() }, frontend: frontend)
    pair.scheduler.remove(pair.frontBus)
    #expect(try pair.scheduler.run { try pair.backendState == .initWait })
    pair.driverDomain.kill()
    pair.scheduler.add(pair.frontBus, of: pair.guest, name: "card's bus") { [bus = pair.frontBus] _ in bus.poll() }
    #expect(try pair.scheduler.run { try pair.frontendState == .connected })
    let bus = try pair.addBackBus(NetBackDriver(features: NetFeatures(maxQueueCount: 2)) { _ in EchoEnd() })
    #expect(
      try pair.scheduler.run {
        try pair.rig.error(of: pair.driverDomain, pair.device.backendPath)?
          .contains("multi-queue-num-queues holds \"5\" where a number from 1 to 4 is expected") == true
      })
    #expect(!bus.isConnected)
  }
}
