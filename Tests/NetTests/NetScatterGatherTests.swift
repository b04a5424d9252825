import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// Frames of more than a page, both ways.
struct NetScatterGatherTests {
  @Test(arguments: [1519, 4095, 4096, 4097, 8192, 8193, 9018, 65535])
  func longFramesGoThereAndBack(byteCount: Int) throws {
    let pair = try NetPair(mtu: 65517, end: EchoEnd())
    try pair.connect()
    #expect(pair.card.mtu == 65517 && pair.card.maxFrameByteCount == 65535)
    let sent = frame(7, byteCount: byteCount)
    try pair.card.send(sent.span)
    #expect(pair.card.inFlightCount == 1)
    pair.card.push()
    #expect(pair.receive(1))
    #expect(pair.received == [sent])
    #expect(pair.card.inFlightCount == 0)
    let statistics = pair.card.statistics
    #expect(statistics.tx.packets == 1 && statistics.tx.bytes == UInt64(byteCount))
    #expect(statistics.rx.packets == 1 && statistics.rx.bytes == UInt64(byteCount))
  }

  /// Frames of every length, in batches of the schedule's choosing, so that a frame's slots come in several turns.
  @Test(arguments: seeds(0...19, of: NetScatterGatherTests.self))
  func framesOfAllLengthsComeBackInOrder(seed: Seed) throws {
    let pair = try NetPair(seed: seed, mtu: 65517, end: EchoEnd())
    try pair.connect()
    var random = SeededGenerator(seed)
    func next(_ bound: Int) -> Int { Int.random(in: 0..<bound, using: &random) }
    let lengths = (0..<40).map { _ in 14 + next(next(4) == 0 ? 65522 : 6000) }
    var sent = 0
    let done = try pair.scheduler.run(turns: 100_000) {
      // As much on the way as may wait for pages at the other end.
      while sent < lengths.count, sent - pair.received.count < 6, pair.card.hasRoom(for: lengths[sent]) {
        let one = frame(sent, byteCount: lengths[sent])
        try pair.card.send(one.span)
        sent += 1
        if next(2) == 0 { pair.card.push() }
      }
      if next(2) == 0 || sent == lengths.count { pair.card.push() }
      if next(3) == 0 || sent == lengths.count { pair.pollCard() }
      return pair.received.count >= lengths.count
    }
    #expect(done, "\(pair.received.count) of \(lengths.count)")
    #expect(pair.received == lengths.enumerated().map { frame($0, byteCount: $1) })
    let statistics = pair.card.statistics
    #expect(statistics.tx.errors + statistics.tx.drops + statistics.rx.errors == 0)
  }

  @Test func aFrameTakesItsSlotsOrNone() throws {
    let pair = try NetPair(mtu: 65517, end: EchoEnd())
    try pair.connect()
    let long = frame(1, byteCount: 65535)
    for _ in 0..<15 { try pair.card.send(long.span) }
    let nearly = frame(2, byteCount: 15 * 4096)
    try pair.card.send(nearly.span)
    // One slot of 256 is left.
    #expect(pair.card.waitsForSlots && pair.card.hasRoom(for: 4096) && !pair.card.hasRoom(for: 4097))
    let two = frame(3, byteCount: 4097)
    #expect(throws: NetFrontError.busy) { try pair.card.send(two.span) }
    let one = frame(4, byteCount: 4096)
    try pair.card.send(one.span)
    #expect(pair.card.inFlightCount == 17)
    pair.card.push()
    let done = pair.scheduler.run {
      pair.pollCard()
      return pair.card.inFlightCount == 0
    }
    #expect(done && !pair.card.waitsForSlots)
    #expect(pair.card.statistics.tx.packets == 17)
  }

  @Test func aFrameLongerThanTheMTUIsNotTaken() throws {
    let pair = try NetPair(mtu: 9000, end: EchoEnd())
    try pair.connect()
    let long = frame(1, byteCount: 9019)
    #expect(throws: NetFrontError.tooLong(byteCount: 9019, limit: 9018)) { try pair.card.send(long.span) }
    #expect(pair.card.inFlightCount == 0)
  }

  /// From the end's side: a guest without scatter-gather takes a page, and the rest is dropped and counted.
  @Test(arguments: [
    (NetFeatures(scatterGather: false), NetFeatures()), (NetFeatures(), NetFeatures(scatterGather: false)),
  ])
  func anEndsLongFramesAreDroppedWithoutScatterGather(features: NetFeatures, backendFeatures: NetFeatures) throws {
    var seen: NetStatistics?
    let end = try InProcessEnd()
    let pair = try NetPair(
      features: features,
      backend: NetBackDriver(features: backendFeatures, whenClosed: { seen = $1.total }) { _ in end })
    try pair.connect()
    let (long, fits) = (frame(1, byteCount: 4097), frame(2, byteCount: 4096))
    end.send(long.span)
    end.send(fits.span)
    #expect(pair.receive(1))
    #expect(pair.received == [fits])
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.holdsNothing })
    #expect(seen?.rx.packets == 1 && seen?.rx.drops == 1)
  }

  // MARK: A frontend that sends by slots

  private func connected(
    _ frontend: RawNetFrontend, _ end: any NetworkEnd, seed: Seed = 1, features: NetFeatures = NetFeatures(),
    whenClosed: @escaping (NetStatistics) -> Void = { _ in }
  ) throws -> NetPair {
    let pair = try NetPair(
      seed: seed, backend: NetBackDriver(features: features, whenClosed: { whenClosed($1.total) }) { _ in end },
      frontend: frontend)
    #expect(pair.scheduler.run { frontend.isConnected && pair.backBus.isConnected })
    return pair
  }

  private func responses(_ frontend: RawNetFrontend, _ pair: NetPair, _ count: Int) throws -> [NetIfTxResponse] {
    var responses: [NetIfTxResponse] = []
    let answered = try pair.scheduler.run(turns: 500) {
      responses += try frontend.txResponses()
      return responses.count >= count
    }
    #expect(answered && responses.count == count, "\(responses)")
    return responses
  }

  /// Each slot is shown by itself, with turns of the backend between: it keeps its place and takes nothing for a packet.
  @Test func aPacketWhoseSlotsComeOneByOneWaitsForTheRest() throws {
    let frontend = RawNetFrontend()
    let end = try InProcessEnd()
    let pair = try connected(frontend, end)
    let bytes = frame(3, byteCount: 3 * 4096)
    for page in 0..<3 { frontend.page(page).copy(from: bytes.span.extracting(page * 4096..<(page + 1) * 4096)) }
    for page in 0..<3 {
      frontend.put(
        NetIfTxRequest(
          gref: frontend.references[page], flags: page < 2 ? NetIf.TxFlag.moreData : 0, id: UInt16(page),
          size: page == 0 ? UInt16(bytes.count) : 4096))
      frontend.push()
      _ = pair.scheduler.run(turns: 20) { false }
      if page < 2 { #expect(try frontend.txResponses().isEmpty) }
    }
    #expect(try responses(frontend, pair, 3).map(\.status) == [0, 0, 0])
    var arrived: [[UInt8]] = []
    end.receive { arrived.append($0.bytes.copied()) }
    #expect(arrived == [bytes])
  }

  @Test func aPacketThatNeverEndsKeepsNobodyAwake() throws {
    let frontend = RawNetFrontend()
    let pair = try HandPolledPair(frontend: frontend, backend: NetBackDriver { _ in EchoEnd() })
    frontend.put(NetIfTxRequest(gref: frontend.references[0], flags: NetIf.TxFlag.moreData, id: 0, size: 200))
    frontend.push()
    #expect(pair.pollUntilIdle() == .idle)
  }

  @Test func aPacketOfTwentySlotsIsDroppedAndTheTwentyFirstClosesTheDevice() throws {
    let frontend = RawNetFrontend()
    let pair = try connected(frontend, EchoEnd())
    for slot in 0..<20 {
      frontend.put(
        NetIfTxRequest(
          gref: frontend.references[0], flags: slot < 19 ? NetIf.TxFlag.moreData : 0, id: UInt16(slot),
          size: slot == 0 ? 2000 : 100))
    }
    frontend.put(NetIfTxRequest(gref: frontend.references[0], id: 99, size: 64))
    frontend.push()
    let answers = try responses(frontend, pair, 21)
    #expect(answers.map(\.status) == Array(repeating: -1, count: 20) + [0])
    #expect(Set(answers.map(\.id)) == Set((0..<20).map { UInt16($0) } + [99]))
    for slot in 0..<21 {
      frontend.put(
        NetIfTxRequest(
          gref: frontend.references[0], flags: NetIf.TxFlag.moreData, id: UInt16(slot), size: slot == 0 ? 4000 : 1))
    }
    frontend.push()
    // In place of what was said of the packet before.
    let reason = "22 the frontend sent a packet of more than 20 slots"
    #expect(try pair.scheduler.run { try pair.backendError == reason })
    #expect(try pair.backendError == reason)
  }

  @Test func oneBadReferenceFailsItsPacketWhole() throws {
    let frontend = RawNetFrontend()
    let end = try InProcessEnd()
    let pair = try connected(frontend, end)
    for slot in 0..<3 {
      frontend.put(
        NetIfTxRequest(
          gref: slot == 1 ? GrantReference(rawValue: 4242) : frontend.references[slot],
          flags: slot < 2 ? NetIf.TxFlag.moreData : 0, id: UInt16(slot), size: slot == 0 ? 300 : 100))
    }
    frontend.put(NetIfTxRequest(gref: frontend.references[3], id: 3, size: 64))
    frontend.push()
    #expect(try responses(frontend, pair, 4).map(\.status) == [-1, -1, -1, 0])
    #expect(end.receive { _ in } == 1)
  }

  /// GSO, which the end does not take, and what is not known: the packet is lost and counted, its slots are consumed as the
  /// header says, and the next packet is one.
  @Test(arguments: [
    NetIfExtraInfo(type: 1, words: (1448, 1, 0)), NetIfExtraInfo(type: 2, words: (0x0002, 0x005E, 0x0100)),
    NetIfExtraInfo(type: 4, words: (0x0200, 1, 2)), NetIfExtraInfo(type: 5, words: (0x8000, 0, 0)),
    NetIfExtraInfo(type: 9, words: (0xFFFF, 0xFFFF, 0xFFFF)),
  ])
  func packetsWithExtraInfosAreAnsweredWithAnError(info: NetIfExtraInfo) throws {
    var seen: NetStatistics?
    let frontend = RawNetFrontend()
    let end = try InProcessEnd()
    let pair = try connected(frontend, end) { seen = $0 }
    let granted = frontend.references[0]
    frontend.put(
      NetIfTxRequest(gref: granted, flags: NetIf.TxFlag.moreData | NetIf.TxFlag.extraInfo, id: 1, size: 200))
    frontend.put(info.transmitSlot)
    frontend.put(NetIfTxRequest(gref: granted, id: 2, size: 100))
    frontend.put(NetIfTxRequest(gref: granted, id: 3, size: 100))
    frontend.push()
    let answers = try responses(frontend, pair, 4)
    #expect(answers.map(\.status).sorted() == [-1, -1, 0, 1])
    #expect(answers.filter { $0.status == -1 }.map(\.id) == [1, 2])
    #expect(end.receive { _ in } == 1)
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.holdsNothing })
    #expect(seen?.tx.errors == 1 && seen?.tx.packets == 1)
  }

  /// Whatever a frontend puts, the backend survives, and answers every slot once as long as it serves.
  @Test(arguments: seeds(1...100, of: NetScatterGatherTests.self))
  func randomSlotsAreAnsweredOnceEach(seed: Seed) throws {
    let frontend = RawNetFrontend()
    let pair = try connected(frontend, EchoEnd(), seed: seed, features: NetFeatures(scatterGather: seed.modulo(3) != 0))
    var random = SeededGenerator(seed)
    func next(_ bound: UInt32) -> UInt32 { UInt32.random(in: 0..<bound, using: &random) }
    var (put, answered) = (0, 0)
    for _ in 0..<60 {
      for _ in 0..<next(20) where put - answered < 250 {
        let isWild = next(8) == 0
        frontend.put(
          NetIfTxRequest(
            gref: isWild ? GrantReference(rawValue: next(.max)) : frontend.references[Int(next(16))],
            offset: UInt16(next(isWild ? 65536 : 300)), flags: UInt16(next(isWild ? 65536 : 10)), id: UInt16(next(300)),
            size: UInt16(next(isWild ? 65536 : 3000))))
        put += 1
      }
      frontend.push()
      _ = pair.scheduler.run(turns: Int(next(10))) { false }
      guard frontend.isConnected else { break }
      answered += try frontend.txResponses().count
      #expect(answered <= put)
    }
    guard frontend.isConnected, pair.backBus.isConnected else {
      // More slots in a packet than any may have.
      #expect(try pair.backendError?.contains("the frontend sent a packet") == true)
      return
    }
    // At most what ends the packet under way: an extra info that is the last, then a fragment that is; twice, since the
    // first may begin a packet.
    for _ in 0..<2 { frontend.put(NetIfTxRequest(gref: GrantReference(rawValue: 0), id: 0, size: 0)) }
    put += 2
    frontend.push()
    let done = try pair.scheduler.run(turns: 500) {
      answered += try frontend.txResponses().count
      return answered == put
    }
    #expect(done, "\(answered) of \(put)")
  }

  // MARK: Receive pages of a raw frontend

  @Test func aLongFrameWaitsForAsManyPagesAsItNeeds() throws {
    let frontend = RawNetFrontend()
    frontend.keys = [StoreEntry("feature-sg", true)]
    let end = try InProcessEnd()
    let pair = try connected(frontend, end)
    let (long, short) = (frame(1, byteCount: 3 * 4096 - 10), frame(2))
    end.send(long.span)
    end.send(short.span)
    for page in 0..<2 { frontend.put(NetIfRxRequest(id: UInt16(page), gref: frontend.references[page])) }
    frontend.push()
    _ = pair.scheduler.run(turns: 50) { false }
    #expect(try frontend.rxResponses().isEmpty)
    for page in 2..<4 { frontend.put(NetIfRxRequest(id: UInt16(page), gref: frontend.references[page])) }
    frontend.push()
    var responses: [NetIfRxResponse] = []
    let answered = try pair.scheduler.run {
      responses += try frontend.rxResponses()
      return responses.count == 4
    }
    #expect(answered && responses.map(\.id) == [0, 1, 2, 3])
    #expect(responses.map(\.status) == [4096, 4096, 4086, 64])
    #expect(responses.map(\.flags) == [4, 4, 0, 0])
    #expect((0..<3).flatMap { frontend.page($0).slice(from: 0, count: $0 < 2 ? 4096 : 4086).copied() } == long)
  }

  @Test func onePageThatCannotBeReachedFailsItsFrameWhole() throws {
    let frontend = RawNetFrontend()
    frontend.keys = [StoreEntry("feature-sg", true)]
    let end = try InProcessEnd()
    let pair = try connected(frontend, end)
    let (long, short) = (frame(1, byteCount: 5000), frame(2))
    end.send(long.span)
    end.send(short.span)
    frontend.put(NetIfRxRequest(id: 0, gref: frontend.references[0]))
    frontend.put(NetIfRxRequest(id: 1, gref: GrantReference(rawValue: 4242)))
    frontend.put(NetIfRxRequest(id: 2, gref: frontend.references[2]))
    frontend.push()
    var responses: [NetIfRxResponse] = []
    let answered = try pair.scheduler.run {
      responses += try frontend.rxResponses()
      return responses.count == 3
    }
    #expect(answered && responses.map(\.status) == [-1, -1, 64] && responses.map(\.flags) == [4, 0, 0])
  }
}

/// What a backend's slots come to at the card.
struct NetScatteredReceiveTests {
  private let backend = RawNetBackend()

  private func pair() throws -> NetPair {
    let pair = try NetPair(backend: backend)
    try pair.connect()
    #expect(try backend.rxRequests().map(\.id) == Array(0..<256))
    return pair
  }

  private func answer(_ id: UInt16, _ status: Int16, more: Bool, flags: UInt16 = 0) {
    backend.answer(NetIfRxResponse(id: id, flags: flags | (more ? NetIf.RxFlag.moreData : 0), status: status))
  }

  @Test func aFrameIsHandedOverWithItsLastSlot() throws {
    let pair = try pair()
    answer(0, 4096, more: true)
    answer(1, 0, more: true)
    pair.pollCard()
    #expect(pair.received.isEmpty)
    answer(2, 13, more: false)
    answer(3, 14, more: false)
    pair.pollCard()
    #expect(pair.received.map(\.count) == [4109, 14])
    // Each page comes back in the ring's next slots.
    #expect(try backend.rxRequests().map(\.id) == [0, 1, 2, 3])
  }

  /// The pieces may be tiny, empty or failed; what is less than a header, too long or failed anywhere is one lost frame.
  @Test func whatIsNoFrameIsCountedOnceAndItsPagesComeBack() throws {
    let pair = try pair()
    let frames: [[Int16]] = [
      [1, 1, 1], [0], [-1], [64, -1, 64], [-1, -1], Array(repeating: 10, count: 19), Array(repeating: 4096, count: 17),
    ]
    var id: UInt16 = 0
    for frame in frames {
      for (index, status) in frame.enumerated() {
        answer(id, status, more: index < frame.count - 1)
        id += 1
      }
    }
    answer(id, 64, more: false)
    pair.pollCard()
    #expect(pair.received.map(\.count) == [64])
    #expect(pair.card.statistics.rx.errors == 7 && pair.card.isConnected)
    #expect(try backend.rxRequests().map(\.id) == Array(0...id))
    // And a frame of as many slots as there may be passes.
    for index in 1...18 as ClosedRange<UInt16> { answer(id + index, 10, more: index < 18) }
    pair.pollCard()
    #expect(pair.received.last?.count == 180)
  }

  /// A packet's length is 16 bits wide.
  @Test func aFrameIsAsLongAsItsLengthCanSayAndNoLonger() throws {
    let pair = try pair()
    for (first, last) in [(0, 4095), (16, 4096)] as [(UInt16, Int16)] {
      for id in first..<first + 15 { answer(id, 4096, more: true) }
      answer(first + 15, last, more: false)
    }
    pair.pollCard()
    #expect(pair.received.map(\.count) == [65535] && pair.card.statistics.rx.errors == 1)
  }

  /// A chain that never ends holds no pages back and nothing grows.
  @Test func aFrameThatNeverEndsIsLostAndTheRingGoesOn() throws {
    let pair = try pair()
    var id: UInt16 = 0
    for _ in 0..<2000 {
      answer(id, 100, more: true)
      id = (id + 1) % 256
      pair.pollCard()
      _ = try backend.rxRequests()
    }
    answer(id, 100, more: false)
    answer((id + 1) % 256, 64, more: false)
    pair.pollCard()
    #expect(pair.received.map(\.count) == [64] && pair.card.statistics.rx.errors == 1)
  }

  @Test func severalSlotsThatWereNotAskedForCloseTheCard() throws {
    let pair = try NetPair(features: NetFeatures(scatterGather: false), backend: backend)
    try pair.connect()
    _ = try backend.rxRequests()
    answer(0, 100, more: true)
    let refused = try pair.scheduler.run {
      pair.pollCard()
      return try pair.frontendError != nil
    }
    #expect(refused && !pair.card.isConnected)
    #expect(try pair.frontendError?.contains("several slots or extra information") == true)
  }

  /// Each slot by itself may be failed or dropped; the frame is one.
  @Test func aSentFrameIsLostWithOneOfItsSlots() throws {
    let backend = RawNetBackend()
    backend.offered.append(StoreEntry("feature-sg", true))
    let pair = try NetPair(mtu: 9000, backend: backend)
    try pair.connect()
    let long = frame(1, byteCount: 9000)
    for _ in 0..<3 { try pair.card.send(long.span) }
    pair.card.push()
    let requests = try backend.txRequests()
    #expect(requests.map(\.size) == [9000, 4096, 808, 9000, 4096, 808, 9000, 4096, 808])
    #expect(requests.map(\.flags) == [4, 4, 0, 4, 4, 0, 4, 4, 0])
    let statuses: [Int16] = [0, 0, 0, 0, -1, 0, -2, 0, 0]
    // The first slots first: their places must not be given to another frame before the others are answered.
    for index in [0, 3, 6] { backend.answer(NetIfTxResponse(id: requests[index].id, status: statuses[index])) }
    pair.pollCard()
    #expect(pair.card.inFlightCount == 3)
    try pair.card.send(long.span)
    for index in [8, 1, 5, 4, 2, 7] {
      backend.answer(NetIfTxResponse(id: requests[index].id, status: statuses[index]))
    }
    pair.pollCard()
    let counts = pair.card.statistics.tx
    #expect(counts.packets == 1 && counts.bytes == 9000 && counts.errors == 1 && counts.drops == 1)
    #expect(pair.card.inFlightCount == 1 && pair.card.isConnected)
    // Twice is once too often, also for a first slot.
    pair.card.push()
    #expect(try backend.txRequests().count == 3)
    backend.answer(NetIfTxResponse(id: requests[0].id, status: 0))
    let closed = try pair.scheduler.run {
      pair.pollCard()
      return try pair.frontendError != nil
    }
    #expect(closed)
  }
}
