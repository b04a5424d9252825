import NetBack
import NetFront
import TestSupport
import Testing

/// Ends that go on looking at their rings: they ask the other end for no event, and find what is there.
struct NetLookTests {
  private let frontend = RawNetFrontend()

  private func pair(_ end: any NetworkEnd) throws -> HandPolledPair {
    let pair = try HandPolledPair(frontend: frontend, backend: NetBackDriver { _ in end })
    pair.pollUntilIdle()
    return pair
  }

  private func put(_ id: UInt16) {
    frontend.put(NetIfTxRequest(gref: frontend.references[0], id: id, size: 64))
  }

  @Test func aBackendThatLooksIsNotNotifiedOfWhatIsSent() throws {
    let end = NotingEnd()
    let pair = try pair(end)
    put(0)
    #expect(frontend.push().tx)
    #expect(pair.hasWork)
    #expect(pair.pollUntilIdle(looks: true) == .idle)
    #expect(!pair.hasWork)
    for id in 1...3 as ClosedRange<UInt16> {
      put(id)
      #expect(!frontend.push().tx)
      #expect(pair.hasWork)
      #expect(pair.pollUntilIdle(looks: true) == .idle)
      #expect(!pair.hasWork)
    }
    #expect(end.taken.count == 4)
    // Before it sleeps it asks.
    pair.pollUntilIdle()
    put(4)
    #expect(frontend.push().tx)
    #expect(try frontend.txResponses().map(\.id) == [0, 1, 2, 3])
  }

  @Test func aBackendThatLooksIsNotNotifiedOfPagesForWhatWaits() throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    for number in 0..<3 { end.send(frame(number).span) }
    pair.pollUntilIdle(looks: true)
    #expect(!pair.hasWork)
    for id in 0..<3 as Range<UInt16> {
      frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id)]))
      // A fresh ring asks for an event at the first request.
      #expect(frontend.push().rx == (id == 0))
      #expect(pair.hasWork)
      pair.pollUntilIdle(looks: true)
      #expect(!pair.hasWork)
      #expect(try frontend.rxResponses().map(\.id) == [id])
    }
    // Pages alone are nothing to do.
    frontend.put(NetIfRxRequest(id: 3, gref: frontend.references[3]))
    frontend.push()
    #expect(!pair.hasWork)
  }

  /// Whatever index it shows: the poll that it leads to is the one that judges.
  @Test(arguments: [3, 257, 0x8000_0000, UInt32.max]) func aProducerThatIsFarAwayIsWorkForThePollToRefuse(
    producer: UInt32
  ) throws {
    let pair = try pair(NotingEnd())
    pair.pollUntilIdle(looks: true)
    frontend.scribbleProducer(producer, of: .tx)
    #expect(pair.hasWork)
    // Three requests of zeros are bad packets; the others no ring can hold.
    #expect(pair.pollUntilIdle(looks: true) == (producer == 3 ? .idle : .stopped))
  }

  @Test func aCardThatLooksIsNotNotifiedOfAnswersAndFrames() throws {
    let backend = RawNetBackend()
    let pair = try NetPair(backend: backend)
    #expect(pair.scheduler.run { pair.card.isConnected })
    let requests = try backend.rxRequests()
    for number in 0..<32 { try pair.card.send(frame(number).span) }
    pair.card.push()
    pair.card.poll(looks: true) { _ in Issue.record("nothing has come") }
    #expect(!pair.card.hasWork)
    let sent = try backend.txRequests()
    // Those asked for before the card began to look: an event at each.
    for request in sent.prefix(2) { backend.answer(NetIfTxResponse(id: request.id, status: NetIf.Status.okay)) }
    // A sixteenth is not enough.
    #expect(!pair.card.hasWork)
    backend.answer(NetIfTxResponse(id: sent[2].id, status: NetIf.Status.okay))
    #expect(pair.card.hasWork)
    pair.card.poll(looks: true) { _ in Issue.record("nothing has come") }
    #expect(pair.card.inFlightCount == 29 && !pair.card.hasWork)
    for request in sent.dropFirst(3) {
      let isNotified = backend.answer(NetIfTxResponse(id: request.id, status: NetIf.Status.okay))
      #expect(!isNotified)
    }
    var received = 0
    backend.answer(NetIfRxResponse(id: requests[0].id, status: 64))
    #expect(pair.card.hasWork)
    pair.card.poll(looks: true) { received += $0.byteCount }
    #expect(received == 64 && pair.card.inFlightCount == 0 && !pair.card.hasWork)
    // Before it sleeps it asks.
    try pair.card.send(frame(9).span)
    pair.card.push()
    pair.card.poll { _ in Issue.record("nothing has come") }
    let last = try #require(try backend.txRequests().first)
    let isNotified = backend.answer(NetIfTxResponse(id: last.id, status: NetIf.Status.okay))
    #expect(isNotified)
  }

  /// A card of a backend that has as many requests as the card has pages.
  private func card(of backend: RawNetBackend, trusted: String) throws -> (NetPair, [NetIfRxRequest]) {
    let pair = try NetPair(frontendKeys: ["trusted": trusted], backend: backend)
    #expect(pair.scheduler.run { pair.card.isConnected })
    return (pair, try backend.rxRequests())
  }

  /// The pages of the first frames are the backend's again while the others are handed over: it fills them meanwhile.
  @Test(arguments: [false, true], ["0", "1"])
  func theBackendSeesPagesThatHaveComeBackBeforeAllFramesAreHandedOver(looks: Bool, trusted: String) throws {
    let backend = RawNetBackend()
    let (pair, requests) = try card(of: backend, trusted: trusted)
    for request in requests.prefix(100) { backend.answer(NetIfRxResponse(id: request.id, status: 64)) }
    var seen: [Int] = []
    pair.card.poll(looks: looks) { _ in seen.append((try? backend.rxRequests().count) ?? -1) }
    #expect(seen.count == 100 && seen.reduce(0, +) == 96)
    #expect(seen.enumerated().filter { $1 == 32 }.map(\.offset) == [32, 64, 96])
    #expect(try backend.rxRequests().count == 4)
  }

  /// However often pages are shown meanwhile: with the first of them, which it waits for, or with each, when it asks anew.
  @Test(arguments: [false, true]) func aBackendThatWaitsForPagesIsToldOfThemOnce(asksAnew: Bool) throws {
    let backend = RawNetBackend()
    let (pair, requests) = try card(of: backend, trusted: "1")
    for request in requests.prefix(100) { backend.answer(NetIfRxResponse(id: request.id, status: 64)) }
    // What connecting has brought.
    while backend.hasEvent() {}
    let before = pair.card.statistics.rxRing.notificationsSent
    var received = 0
    pair.card.poll(looks: true) { _ in
      received += 1
      if asksAnew { #expect((try? backend.rxRequests()) != nil) }
      #expect(!backend.hasEvent())
    }
    #expect(received == 100 && backend.hasEvent())
    #expect(pair.card.statistics.rxRing.notificationsSent == before + 1)
  }

  /// Else a backend that is quick enough would keep its frontend for ever.
  @Test(arguments: [false, true], ["0", "1"]) func aPollEndsThoughTheBackendFillsEachPageAtOnce(
    looks: Bool, trusted: String
  ) throws {
    let backend = RawNetBackend()
    let (pair, requests) = try card(of: backend, trusted: trusted)
    for request in requests { backend.answer(NetIfRxResponse(id: request.id, status: 64)) }
    var received = 0
    pair.card.poll(looks: looks) { _ in
      received += 1
      for request in (try? backend.rxRequests()) ?? [] { backend.answer(NetIfRxResponse(id: request.id, status: 64)) }
    }
    #expect(requests.count == 256 && received == 512)
    // Nothing is lost: the pages are shown when the poll is over.
    #expect(try backend.rxRequests().count == 256)
  }
}
