import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback
import XenRing

/// What a frontend can do to its backend: lose its own packets or its own device, and nothing else.
struct NetHostileFrontendTests {
  private let frontend = RawNetFrontend()

  private func pair(_ end: any NetworkEnd = EchoEnd()) throws -> NetPair {
    let driver = NetBackDriver { device -> any NetworkEnd in
      if device.own.path.hasSuffix("/0") { return end } else { return EchoEnd() }
    }
    let pair = try NetPair(backend: driver, frontend: frontend)
    let connected = pair.scheduler.run { frontend.isConnected && pair.backBus.isConnected }
    try #require(connected, "\(pair.frontBus.report + pair.backBus.report)")
    return pair
  }

  /// The statuses of what has been put, by id, when `count` responses have come.
  private func statuses(_ pair: NetPair, _ count: Int) throws -> [UInt16: Int16] {
    var responses: [NetIfTxResponse] = []
    frontend.push()
    let answered = try pair.scheduler.run(turns: 500) {
      responses += try frontend.txResponses()
      return responses.count >= count
    }
    #expect(answered && responses.count == count)
    return Dictionary(responses.map { ($0.id, $0.status) }) { first, _ in first }
  }

  @Test func everyBadPacketIsAnsweredForItselfAlone() throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    let good = frame(1)
    frontend.page(0).copy(from: good.span)
    let granted = frontend.references[0]
    frontend.put(NetIfTxRequest(gref: granted, id: 0, size: 64))
    frontend.put(NetIfTxRequest(gref: granted, offset: 4095, id: 1, size: 64))
    frontend.put(NetIfTxRequest(gref: granted, offset: 0xFFFF, id: 2, size: 0xFFFF))
    frontend.put(NetIfTxRequest(gref: granted, id: 3, size: 13))
    frontend.put(NetIfTxRequest(gref: GrantReference(rawValue: 4242), id: 4, size: 64))
    frontend.put(NetIfTxRequest(gref: granted, flags: NetIf.TxFlag.checksumBlank, id: 5, size: 64))
    frontend.put(NetIfTxRequest(gref: granted, id: 0xFFFF, size: 64))
    let statuses = try statuses(pair, 7)
    #expect(statuses == [0: 0, 1: -1, 2: -1, 3: -1, 4: -1, 5: -1, 0xFFFF: 0])
    var arrived: [[UInt8]] = []
    end.receive { arrived.append($0.bytes.copied()) }
    #expect(arrived == [good, good])
    #expect(pair.backBus.isConnected)
  }

  /// A packet of several slots, its extra info's bytes made to look like a packet, in the schedule's own batches.
  @Test(arguments: seeds(1...20, of: NetHostileFrontendTests.self))
  func slotsOfARefusedPacketAreNoPackets(seed: Seed) throws {
    let end = try InProcessEnd()
    let pair = try NetPair(seed: seed, backend: NetBackDriver { _ in end }, frontend: frontend)
    #expect(pair.scheduler.run { frontend.isConnected })
    let good = frame(1)
    frontend.page(0).copy(from: good.span)
    let granted = frontend.references[0]
    let several = NetIf.TxFlag.moreData | NetIf.TxFlag.extraInfo
    for slot in [
      NetIfTxRequest(gref: granted, flags: several, id: 1, size: 200),
      NetIfTxRequest(gref: GrantReference(rawValue: 0x0001), id: 2, size: 64),
      NetIfTxRequest(gref: granted, flags: NetIf.TxFlag.moreData, id: 3, size: 64),
      NetIfTxRequest(gref: granted, id: 4, size: 64),
      NetIfTxRequest(gref: granted, id: 5, size: 64),
    ] {
      frontend.put(slot)
      if seed.modulo(2) == 0 {
        frontend.push()
        _ = pair.scheduler.run(turns: seed.modulo(5)) { false }
      }
    }
    // The extra info's slot has no id of its own.
    #expect(try statuses(pair, 5) == [1: -1, 0: 1, 3: -1, 4: -1, 5: 0])
    var arrived: [[UInt8]] = []
    end.receive { arrived.append($0.bytes.copied()) }
    #expect(arrived == [good])
  }

  @Test func receivePagesThatCannotBeReachedCostTheirFrameAlone() throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    let frames = (0..<3).map { frame($0) }
    frontend.put(NetIfRxRequest(id: 0xFFFF, gref: frontend.references[1]))
    frontend.put(NetIfRxRequest(id: 8, gref: GrantReference(rawValue: 4242)))
    frontend.put(NetIfRxRequest(id: 8, gref: frontend.references[2]))
    frontend.push()
    for one in frames { end.send(one.span) }
    var responses: [NetIfRxResponse] = []
    let answered = try pair.scheduler.run {
      responses += try frontend.rxResponses()
      return responses.count == 3
    }
    #expect(answered)
    #expect(responses.map(\.id) == [0xFFFF, 8, 8])
    #expect(responses.map(\.status) == [64, -1, 64])
    #expect(frontend.page(1).slice(from: 0, count: 64).copied() == frames[0])
    #expect(frontend.page(2).slice(from: 0, count: 64).copied() == frames[2])
  }

  @Test(arguments: [NetRingViolation.Ring.tx, .rx], [257, 0x8000_0000, UInt32.max] as [UInt32])
  func requestProducerOutOfRangeClosesTheDeviceAlone(ring: NetRingViolation.Ring, producer: UInt32) throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    // The receive ring is looked at when there is something to receive.
    let one = frame(1)
    end.send(one.span)
    // A second card of the same two domains, which goes on.
    let other = NetFrontDevice()
    let otherDevice = try pair.toolstack.addVif(
      1, to: pair.guest.domain, servedBy: pair.driverDomain.domain, mac: "00:16:3e:00:00:02")
    let otherBus = try Bus(on: pair.guest, queueHost: pair.scheduler, log: .silent)
    try otherBus.register(other, at: otherDevice.frontendPath)
    pair.scheduler.add(otherBus, name: "other card's bus") { _ in otherBus.poll() }
    #expect(pair.scheduler.run { other.isConnected })

    frontend.scribbleProducer(producer, of: ring)
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    let error = try #require(try pair.backendError)
    #expect(error.hasPrefix("22 \(ring) ring: ") && error.contains("moved its request producer to \(producer)"))
    #expect(pair.scheduler.run { !frontend.isConnected })
    // The other card's rings.
    #expect(pair.loopback.grantCounts.mappedPages == 3)
    try other.send(one.span)
    other.push()
    var answers: [[UInt8]] = []
    let answered = pair.scheduler.run {
      other.poll { answers.append($0.copied()) }
      return !answers.isEmpty
    }
    #expect(answered && answers == [one])
  }

  @Test func framesWaitForPagesUntilTheyAreThere() throws {
    for notifies in [true, false] {
      let end = try InProcessEnd()
      let frontend = RawNetFrontend()
      frontend.keys = [StoreEntry("feature-rx-notify", notifies)]
      let pair = try NetPair(backend: NetBackDriver { _ in end }, frontend: frontend)
      #expect(pair.scheduler.run { frontend.isConnected })
      let one = frame(1)
      end.send(one.span)
      _ = pair.scheduler.run(turns: 50) { false }
      frontend.put(NetIfRxRequest(id: 0, gref: frontend.references[0]))
      frontend.push()
      var responses: [NetIfRxResponse] = []
      _ = try pair.scheduler.run(turns: 100) {
        responses += try frontend.rxResponses()
        return !responses.isEmpty
      }
      #expect(responses.map(\.status) == [64])
    }
  }
}

/// What a backend can do to its frontend: lose it, and nothing else.
struct NetHostileBackendTests {
  private let backend = RawNetBackend()

  private func pair() throws -> NetPair {
    let pair = try NetPair(backend: backend)
    try pair.connect()
    return pair
  }

  private func sendOne(_ pair: NetPair) throws {
    let one = frame(1)
    try pair.card.send(one.span)
    pair.card.push()
  }

  /// Runs until the card has given up; what it says. It must have received nothing.
  private func refusal(_ pair: NetPair) throws -> String? {
    let refused = try pair.scheduler.run {
      pair.pollCard()
      return try !pair.card.isConnected && pair.frontendError != nil
    }
    #expect(refused && pair.received.isEmpty)
    let error = try pair.frontendError
    #expect(pair.scheduler.run { pair.holdsNothing }, "\(pair.loopback.grantCounts) \(pair.loopback.openPortCount)")
    return error
  }

  @Test(arguments: [1, 255, 256, 0xFFFF] as [UInt16])
  func transmitResponseForWhatIsNotInFlightClosesTheCard(id: UInt16) throws {
    let pair = try pair()
    try sendOne(pair)
    #expect(try backend.txRequests().map(\.id) == [0])
    backend.answer(NetIfTxResponse(id: id, status: 0))
    #expect(try refusal(pair) == "22 the backend answered tx request \(id), which is not in flight")
    #expect(pair.card.statistics.tx.drops == 1)
  }

  /// What is sent may be read and nothing else.
  @Test func aBackendCannotWriteIntoWhatIsSent() throws {
    let pair = try pair()
    try sendOne(pair)
    let reference = GrantReference(rawValue: try #require(try backend.txRequests().first).gref)
    let own = PrivatePages(pageCount: 1)
    for (direction, isAllowed) in [(GrantCopy.Direction.fromGrant, true), (.toGrant, false)] {
      var copies = [
        GrantCopy(
          direction, local: own.bytes.slice(from: 0, count: 64), reference: reference, of: pair.guest.domain, offset: 0)
      ]
      var span = copies.mutableSpan
      pair.driverDomain.grants.copy(&span)
      #expect((copies[0].status == .okay) == isAllowed)
    }
  }

  @Test func transmitResponseGivenTwiceClosesTheCard() throws {
    let pair = try pair()
    try sendOne(pair)
    try sendOne(pair)
    let id = try backend.txRequests()[1].id
    backend.answer(NetIfTxResponse(id: id, status: 0))
    backend.answer(NetIfTxResponse(id: id, status: 0))
    #expect(try refusal(pair) == "22 the backend answered tx request \(id), which is not in flight")
  }

  @Test func transmitResponsesMayComeInAnyOrderAndWithErrors() throws {
    let pair = try pair()
    for _ in 0..<3 { try sendOne(pair) }
    let ids = try backend.txRequests().map(\.id)
    backend.answer(NetIfTxResponse(id: ids[2], status: 0))
    backend.answer(NetIfTxResponse(id: ids[0], status: NetIf.Status.error))
    backend.answer(NetIfTxResponse(id: ids[1], status: NetIf.Status.dropped))
    pair.pollCard()
    let counts = pair.card.statistics.tx
    #expect(counts.packets == 1 && counts.errors == 1 && counts.drops == 1)
    #expect(pair.card.isConnected && pair.card.inFlightCount == 0)
  }

  @Test(arguments: [NetRingViolation.Ring.tx, .rx], [257, 0x8000_0000, UInt32.max] as [UInt32])
  func responseProducerOutOfRangeClosesTheCard(ring: NetRingViolation.Ring, producer: UInt32) throws {
    let pair = try pair()
    try sendOne(pair)
    backend.scribbleProducer(producer, of: ring)
    let error = try refusal(pair)
    #expect(error?.hasPrefix("22 \(ring) ring: the back end moved its response producer to \(producer)") == true)
  }

  @Test(arguments: [
    NetIfRxResponse(id: 1, status: 64), NetIfRxResponse(id: 0xFFFF, status: 64),
    NetIfRxResponse(id: 0, status: 4097), NetIfRxResponse(id: 0, offset: 4090, status: 64),
    NetIfRxResponse(id: 0, offset: 0xFFFF, status: Int16.max),
    NetIfRxResponse(id: 0, flags: NetIf.RxFlag.gsoPrefix, status: 64),
  ])
  func receiveResponseOutOfBoundsClosesTheCard(response: NetIfRxResponse) throws {
    let pair = try pair()
    #expect(try backend.rxRequests().map(\.id) == Array(0..<256))
    backend.answer(response)
    #expect(try refusal(pair)?.hasPrefix("22 the backend answered rx request") == true)
  }

  /// The card posts each page again in the slot that it came from.
  @Test func failedReceiveResponsesAreCountedAndTheirPagesPostedAgain() throws {
    let pair = try pair()
    for round in 0..<3 {
      #expect(try backend.rxRequests().map(\.id) == Array(0..<256))
      for id in 0..<UInt16(256) { backend.answer(NetIfRxResponse(id: id, status: id % 2 == 0 ? -1 : 60)) }
      pair.pollCard()
      #expect(pair.received.count == 128 * (round + 1))
    }
    #expect(pair.card.statistics.rx.errors == 384 && pair.card.statistics.rx.packets == 384)
    #expect(pair.card.isConnected)
  }
}
