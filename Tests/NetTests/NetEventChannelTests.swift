import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// One event channel for each ring, or one for both.
struct NetEventChannelTests {
  private static let without = NetFeatures(splitEventChannels: false)

  /// Either end may not have the feature: then one channel does for both.
  @Test(arguments: [
    (NetFeatures(), NetFeatures(), true), (without, NetFeatures(), false), (NetFeatures(), without, false),
    (without, without, false),
  ])
  func channelsAreSplitWhereBothEndsCan(
    features: NetFeatures, backendFeatures: NetFeatures, isSplit: Bool
  ) throws {
    // An earlier life has left keys of both kinds.
    let old = ["event-channel": "4242", "event-channel-tx": "4243", "event-channel-rx": "4244"]
    let pair = try NetPair(
      frontendKeys: old, features: features, backendFeatures: backendFeatures, end: EchoEnd())
    try pair.connect()
    let keys = pair.rig.directory(pair.device.frontendPath)
    #expect(try (keys.optionalString("event-channel-tx") != nil) == isSplit)
    #expect(try (keys.optionalString("event-channel-rx") != nil) == isSplit)
    #expect(try (keys.optionalString("event-channel") == nil) == isSplit)
    // Two ends of each ring's, or of both rings', and of the control ring's.
    #expect(pair.loopback.openPortCount == (isSplit ? 6 : 4))
    let agreed = isSplit ? "on" : "off"
    for negotiation in [pair.card.negotiation, try #require(pair.backBus.negotiations.first?.value)] {
      #expect(negotiation.lines.first { $0.feature == "feature-split-event-channels" }?.agreed == agreed)
    }
    for number in 0..<10 {
      let one = frame(number)
      try pair.card.send(one.span)
      pair.card.push()
      #expect(pair.receive(number + 1))
    }
    #expect(pair.received == (0..<10).map { frame($0) })
  }

  /// The queue's own threads, which nothing but an event wakes.
  @Test func splitChannelsWakeBothEnds() throws {
    let rig = try Rig()
    let (card, end) = (NetFrontDevice(), try InProcessEnd())
    _ = try rig.toolstack.addVif(to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    let pair = try ThreadedPair(rig, frontend: card, backend: NetBackDriver { _ in end })
    #expect(pair.run { card.isConnected && pair.backBus.isConnected } && rig.loopback.openPortCount == 6)
    for number in 0..<500 {
      let sent = frame(number)
      var received: [UInt8]?
      if number % 2 == 0 {
        try card.send(sent.span)
        card.push()
        while received == nil {
          try #require(isReadable(end.descriptor), "frame \(number) wakes nobody")
          end.receive { received = $0.bytes.copied() }
        }
      } else {
        end.send(sent.span)
        while received == nil {
          try #require(isReadable(try #require(card.descriptor)), "frame \(number) does not wake the card")
          card.poll { received = $0.copied() }
        }
      }
      try #require(received == sent)
    }
  }

  /// More frames than the card has pages: the backend sleeps until some have come back.
  @Test(arguments: [true, false]) func pagesThatComeBackWakeTheBackend(isSplit: Bool) throws {
    let rig = try Rig()
    let card = NetFrontDevice(features: NetFeatures(splitEventChannels: isSplit))
    let end = try InProcessEnd(capacity: 600)
    _ = try rig.toolstack.addVif(to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    let pair = try ThreadedPair(rig, frontend: card, backend: NetBackDriver { _ in end })
    #expect(pair.run { card.isConnected && pair.backBus.isConnected })
    let one = frame(1)
    for _ in 0..<600 { end.send(one.span) }
    var (received, vainTurns) = (0, 0)
    while received < 600, vainTurns < 10 {
      Wakeup.wait(for: try #require(card.descriptor), timeout: 500)
      vainTurns = card.poll { _ in received += 1 } == 0 ? vainTurns + 1 : 0
    }
    #expect(received == 600)
  }

  @Test(arguments: [("event-channel-tx", "4242"), ("event-channel-rx", "4242"), ("event-channel-rx", "two")])
  func badSplitChannelClosesTheDevice(key: String, value: String) throws {
    let frontend = RawNetFrontend()
    // Whichever is right is the one that the frontend has allocated.
    frontend.splitsEventChannels = true
    frontend.keys = [StoreEntry(key, value)]
    let pair = try NetPair(backend: NetBackDriver { _ in EchoEnd() }, frontend: frontend)
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    #expect(try pair.backendError?.contains(value) == true)
    #expect(pair.scheduler.run { pair.holdsNothing })
  }

  /// One of the two keys alone means nothing.
  @Test func oneHalfOfASplitChannelIsPassedOver() throws {
    let frontend = RawNetFrontend()
    frontend.keys = [StoreEntry("event-channel-tx", "4242")]
    let pair = try NetPair(backend: NetBackDriver { _ in EchoEnd() }, frontend: frontend)
    #expect(pair.scheduler.run { frontend.isConnected && pair.backBus.isConnected })
  }

  // MARK: The pair of ports

  private struct Ends {
    let loopback = Loopback()
    let near: any EventChannels
    let far: any EventChannels
    var pair: EventChannelPair
    let farTx: EventChannelPort
    let farRx: EventChannelPort?

    init(isSplit: Bool) throws {
      let (first, second) = (loopback.addDomain(), loopback.addDomain())
      near = try first.openEventChannels()
      far = try second.openEventChannels()
      let tx = try near.allocateUnbound(for: second.domain)
      let rx = isSplit ? try near.allocateUnbound(for: second.domain) : nil
      pair = EventChannelPair(tx: tx, rx: rx, on: near)
      farTx = try far.bindInterdomain(to: first.domain, port: tx)
      if let rx { farRx = try far.bindInterdomain(to: first.domain, port: rx) } else { farRx = nil }
      // A new binding is pending at once.
      while let port = far.nextPending() { far.unmask(port) }
    }

    func arrived() -> [EventChannelPort] {
      var ports: [EventChannelPort] = []
      while let port = far.nextPending() {
        ports.append(port)
        far.unmask(port)
      }
      return ports
    }
  }

  @Test func eachRingIsNotifiedOnItsOwnPort() throws {
    let ends = try Ends(isSplit: true)
    #expect(ends.pair.isSplit)
    ends.pair.notify(tx: true, rx: false)
    #expect(ends.arrived() == [ends.farTx])
    ends.pair.notify(tx: false, rx: true)
    #expect(ends.arrived() == [ends.farRx])
    ends.pair.notify(tx: true, rx: true)
    #expect(Set(ends.arrived()) == [ends.farTx, ends.farRx])
    ends.pair.notify(tx: false, rx: false)
    #expect(ends.arrived().isEmpty)
  }

  @Test func onePortServesBothRings() throws {
    let ends = try Ends(isSplit: false)
    #expect(!ends.pair.isSplit)
    for (tx, rx) in [(true, false), (false, true), (true, true)] {
      ends.pair.notify(tx: tx, rx: rx)
      #expect(ends.arrived() == [ends.farTx])
    }
  }

  /// A port whose event was taken gives no other before the work is done; the other port does.
  @Test func eachPortIsMaskedByItself() throws {
    var ends = try Ends(isSplit: true)
    ends.pair.take()
    ends.pair.rearm()
    ends.far.notify(ends.farTx)
    ends.pair.take()
    ends.far.notify(ends.farTx)
    ends.far.notify(ends.farRx!)
    #expect(ends.near.nextPending() == ends.pair.rx)
    #expect(ends.near.nextPending() == nil)
    ends.pair.rearm()
    #expect(ends.near.nextPending() == ends.pair.tx)
  }
}
