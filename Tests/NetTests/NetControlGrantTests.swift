import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// Grants that the backend keeps mapped, and copies as memory (io/netif.h, "Static Grants").
struct NetControlGrantTests {
  private let frontend = RawControlFrontend()

  private var features: NetFeatures {
    var features = NetFeatures()
    features.staticGrants = true
    return features
  }

  // MARK: Both ends

  private func exchange(_ pair: NetPair, _ end: InProcessEnd, count: Int) throws {
    let before = pair.received.count
    var sent: [[UInt8]] = []
    for number in 0..<count {
      let bytes = frame(number, byteCount: number % 3 == 0 ? 1514 : 64)
      end.send(bytes.span)
      try pair.card.send(bytes.span)
      pair.card.push()
      sent.append(bytes)
      pair.scheduler.round()
      pair.pollCard()
    }
    var arrived: [[UInt8]] = []
    let done = pair.scheduler.run {
      pair.pollCard()
      end.receive { arrived.append($0.bytes.copied()) }
      return arrived.count == count && pair.received.count == before + count
    }
    #expect(done && arrived == sent && Array(pair.received[before...]) == sent)
  }

  /// After the pools have been mapped, nothing more is asked of the hypervisor; and all is given back at the end.
  @Test(arguments: [1, 2])
  func mappedPoolsAreCopiedAsMemory(queues: Int) throws {
    var features = features
    features.maxQueueCount = queues
    let end = try InProcessEnd()
    let pair = try NetPair(features: features, backendFeatures: features, end: end)
    pair.guest.sharedPageLimit = 4096
    try pair.connect()
    let mapped = pair.scheduler.run {
      pair.pollCard()
      return pair.card.mappedGrantCount == 512 * queues
    }
    #expect(mapped)
    let before = pair.loopback.grantCounts
    #expect(before.mappedPages >= 512 * queues)
    try exchange(pair, end, count: 60)
    #expect(pair.loopback.grantCounts.copyTotal == before.copyTotal)
    pair.frontBus.close()
    let isGone = pair.scheduler.run {
      pair.pollCard()
      return pair.frontBus.isEmpty && pair.holdsNothing
    }
    #expect(isGone, "\(pair.loopback.grantCounts)")
  }

  /// Whichever of them does not know it, packets go as before.
  @Test(arguments: [true, false])
  func whereOneEndDoesNotKnowItPacketsGoAsBefore(frontendDoes: Bool) throws {
    let end = try InProcessEnd()
    let pair = try NetPair(
      features: frontendDoes ? features : NetFeatures(), backendFeatures: frontendDoes ? NetFeatures() : features,
      end: end)
    try pair.connect()
    try exchange(pair, end, count: 10)
    #expect(pair.card.mappedGrantCount == 0 && pair.loopback.grantCounts.copyTotal >= 20)
  }

  /// Hashing is asked for when the pools are mapped.
  @Test func hashingIsSetBesides() throws {
    let pair = try NetPair(features: features, backendFeatures: features, end: EchoEnd())
    let wish = NetHashConfiguration(toeplitz: [1, 2, 3])
    pair.card.setHashing(wish)
    try pair.connect()
    let isSet = pair.scheduler.run {
      pair.pollCard()
      return pair.card.hashing == .set(wish)
    }
    #expect(isSet && pair.card.mappedGrantCount == 512)
  }

  // MARK: A frontend that asks for what it likes

  private func rawPair(seed: Seed = 1, features: NetFeatures? = nil) throws -> NetPair {
    let driver = NetBackDriver(features: features ?? self.features) { _ in EchoEnd() }
    let pair = try NetPair(seed: seed, backend: driver, frontend: frontend)
    let connected = pair.scheduler.run { frontend.isConnected && pair.backBus.isConnected }
    try #require(connected, "\(pair.frontBus.report + pair.backBus.report)")
    return pair
  }

  /// Puts a list into the first page, asks, and gives status and data.
  private func ask(
    _ pair: NetPair, _ type: UInt16, _ list: [NetIfGrantMapping] = [], queue: UInt32 = 0, page: UInt32? = nil
  ) throws -> [UInt32] {
    let bytes = NetIfGrantMapping.bytes(list)
    frontend.page(0).copy(from: bytes.span)
    let reference = page ?? frontend.references[0].rawValue
    frontend.put(NetIfControlRequest(id: 5, type: type, data: (queue, reference, UInt32(list.count))))
    frontend.pushControl()
    var responses: [NetIfControlResponse] = []
    let answered = try pair.scheduler.run(turns: 2000) {
      responses += try frontend.controlResponses()
      return !responses.isEmpty
    }
    #expect(answered)
    let response = try #require(responses.first)
    #expect(response.id == 5 && response.type == type)
    return [response.status, response.data]
  }

  private func entry(_ page: Int, flags: UInt16 = 0) -> NetIfGrantMapping {
    NetIfGrantMapping(gref: frontend.references[page], flags: flags, status: 0xEEEE)
  }

  private func mappedPages(_ pair: NetPair) -> Int { pair.loopback.grantCounts.mappedPages }

  @Test func listsAreMappedWholeOrNotAtAll() throws {
    let pair = try rawPair()
    let before = mappedPages(pair)
    #expect(try ask(pair, 8) == [0, 512])
    #expect(try ask(pair, 8, queue: 1) == [2, 0])
    let unknown = NetIfGrantMapping(gref: GrantReference(rawValue: 4242))
    #expect(try ask(pair, 9, [entry(2), unknown]) == [2, 0])
    #expect(try ask(pair, 9, [entry(2), entry(2)]) == [2, 0])
    #expect(try ask(pair, 9, [entry(2), entry(3, flags: 2)]) == [2, 0])
    #expect(try ask(pair, 9, [entry(2)], queue: 1) == [2, 0])
    #expect(try ask(pair, 9, [entry(2)], page: 4242) == [2, 0])
    #expect(try ask(pair, 9, []) == [2, 0])
    #expect(mappedPages(pair) == before)
    #expect(try ask(pair, 9, [entry(2), entry(3, flags: 1)]) == [0, 0])
    #expect(mappedPages(pair) == before + 2)
    #expect(try ask(pair, 9, [entry(4), entry(3)]) == [2, 0], "one is mapped already")
    #expect(mappedPages(pair) == before + 2 && pair.backBus.isConnected)
  }

  @Test func noMoreAreMappedThanAreOffered() throws {
    let pair = try rawPair()
    let before = mappedPages(pair)
    let pages = try pair.guest.grants.share(pageCount: 512, with: pair.driverDomain.domain, writable: true)
    let list = pages.references.map { NetIfGrantMapping(gref: $0) }
    #expect(try ask(pair, 9, [entry(2)]) == [0, 0])
    #expect(try ask(pair, 9, list) == [2, 0], "one too many")
    #expect(mappedPages(pair) == before + 1)
    #expect(try ask(pair, 9, Array(list.dropLast())) == [0, 0])
    #expect(mappedPages(pair) == before + 512)
    #expect(try ask(pair, 9, [entry(3)]) == [2, 0], "one too many")
    #expect(mappedPages(pair) == before + 512 && pair.backBus.isConnected)
    // Shared until here.
    _ = consume pages
  }

  /// The list comes back with what became of each entry.
  @Test func whatIsUnmappedIsSaidEntryByEntry() throws {
    let pair = try rawPair()
    let before = mappedPages(pair)
    #expect(try ask(pair, 10, [entry(2)]) == [0, 0], "none was mapped")
    #expect(try ask(pair, 9, [entry(2), entry(3), entry(4)]) == [0, 0])
    #expect(try ask(pair, 10, [entry(3), entry(5), entry(3), entry(2)]) == [0, 2])
    let answered = frontend.page(0).slice(from: 0, count: 32).copied()
    #expect(NetIfGrantMapping.list(answered.span).map(\.status) == [0, 2, 2, 0])
    #expect(mappedPages(pair) == before + 1)
    // A page that the backend may not write: it could not say what it has done, and does nothing.
    #expect(try ask(pair, 10, [entry(4)], page: frontend.readOnlyReference.rawValue) == [2, 0])
    #expect(try ask(pair, 10, [entry(4)], page: 4242) == [2, 0])
    #expect(mappedPages(pair) == before + 1)
    #expect(try ask(pair, 10, [entry(4)], queue: 7) == [2, 0])
    #expect(try ask(pair, 10, [entry(4)]) == [0, 1])
    #expect(mappedPages(pair) == before)
  }

  @Test func whatIsNotOfferedIsNotSupported() throws {
    let pair = try rawPair(features: NetFeatures())
    for type in [8, 9, 10] as [UInt16] {
      let answer = try ask(pair, type, [entry(2)])
      #expect(answer == [1, 0])
    }
  }

  /// One packet from page 1, which comes back into page 2; gives how many copies the hypervisor made.
  private func echo(_ pair: NetPair, _ number: UInt16) throws -> Int {
    let before = pair.loopback.grantCounts.copyTotal
    let bytes = frame(Int(number))
    frontend.page(1).copy(from: bytes.span)
    frontend.put(NetIfRxRequest(id: number, gref: frontend.references[2]))
    frontend.put(NetIfTxRequest(gref: frontend.references[1], id: number, size: 64))
    frontend.push()
    var (statuses, arrivals): ([Int16], [NetIfRxResponse]) = ([], [])
    let done = try pair.scheduler.run(turns: 2000) {
      statuses += try frontend.txResponses().map(\.status)
      arrivals += try frontend.rxResponses()
      return !statuses.isEmpty && !arrivals.isEmpty
    }
    #expect(done && statuses == [0] && arrivals.map(\.status) == [64])
    #expect(frontend.page(2).slice(from: 0, count: 64).copied() == bytes)
    return pair.loopback.grantCounts.copyTotal - before
  }

  /// Only what is mapped, and so as it was mapped, is copied as memory.
  @Test func onlyWhatIsMappedIsCopiedAsMemory() throws {
    let pair = try rawPair()
    #expect(try echo(pair, 1) == 2)
    #expect(try ask(pair, 9, [entry(1, flags: 1)]) == [0, 0])
    #expect(try echo(pair, 2) == 1)
    // For reading only: what is written there is the hypervisor's to do.
    #expect(try ask(pair, 9, [entry(2, flags: 1)]) == [0, 0])
    #expect(try echo(pair, 3) == 1)
    #expect(try ask(pair, 10, [entry(2)]) == [0, 1])
    #expect(try ask(pair, 9, [entry(2)]) == [0, 0])
    #expect(try echo(pair, 4) == 0)
    #expect(try ask(pair, 10, [entry(1), entry(2)]) == [0, 2])
    #expect(try echo(pair, 5) == 2)
  }

  /// Lists of every kind between packets: each is answered, each packet comes back, and nothing stays mapped at the end.
  @Test(arguments: seeds(1...15, of: NetControlGrantTests.self))
  func randomListsAreAnsweredAndPacketsGoOn(seed: Seed) throws {
    var random = SeededGenerator(seed)
    let pair = try rawPair(seed: seed)
    var most = 0
    let before = mappedPages(pair)
    for round in 0..<40 as Range<UInt16> {
      let list = (0..<Int.random(in: 0...5, using: &random)).map { _ -> NetIfGrantMapping in
        let page = Int.random(in: 1...6, using: &random)
        return page == 6
          ? NetIfGrantMapping(gref: GrantReference(rawValue: UInt32.random(in: 0...UInt32.max, using: &random)))
          : entry(page, flags: UInt16.random(in: 0...9, using: &random) / 8)
      }
      let status = try ask(pair, UInt16.random(in: 8...10, using: &random), list)[0]
      #expect(status == 0 || status == 2)
      most = max(most, mappedPages(pair) - before)
      if round % 3 == 0 { _ = try echo(pair, round) }
    }
    #expect(pair.backBus.isConnected && most > 0)
    pair.frontBus.close()
    #expect(pair.scheduler.run { pair.frontBus.isEmpty })
    #expect(pair.loopback.grantCounts.mappedPages == 0 && pair.loopback.grantCounts.quarantinedPages == 0)
  }
}
