import NetBack
import TestSupport
import Testing

/// A backend's queue, turn by turn: what one turn does, whom it wakes, and what it counts.
struct NetBackQueueTests {
  private final class Closed { var statistics: NetStatistics? }

  private let frontend = RawNetFrontend()
  private let closed = Closed()

  private func pair(_ end: any NetworkEnd, features: NetFeatures = NetFeatures()) throws -> HandPolledPair {
    frontend.keys = [StoreEntry("feature-sg", true)]
    return try HandPolledPair(
      frontend: frontend,
      backend: NetBackDriver(features: features, whenClosed: { [closed] in closed.statistics = $1.total }) { _ in end })
  }

  private func put(_ id: UInt16, _ size: UInt16, page: Int? = 0, more: Bool = false) {
    frontend.put(
      NetIfTxRequest(
        gref: page.map { frontend.references[$0] } ?? GrantReference(rawValue: 4242),
        flags: more ? NetIf.TxFlag.moreData : 0, id: id, size: size))
  }

  private func post(_ ids: Range<UInt16>) {
    for id in ids { frontend.put(NetIfRxRequest(id: id, gref: frontend.references[Int(id) % 16])) }
  }

  private func send(_ count: Int, byteCount: Int = 64, to end: InProcessEnd) {
    for number in 0..<count {
      let one = frame(number, byteCount: byteCount)
      end.send(one.span)
    }
  }

  private func txStatuses() throws -> [UInt16: Int16] {
    Dictionary(try frontend.txResponses().map { ($0.id, $0.status) }) { first, _ in first }
  }

  // MARK: Transmit

  /// A fragment without bytes is copied by nobody, and the copies behind it are still those of their own packets.
  @Test func anEmptyFragmentTakesNoOtherPacketsStatus() throws {
    let pair = try pair(EchoEnd())
    put(0, 64)
    put(1, 100, more: true)
    put(2, 0)
    put(3, 64, page: nil)
    put(4, 64)
    frontend.push()
    _ = pair.pollUntilIdle()
    #expect(try txStatuses() == [0: 0, 1: 0, 2: 0, 3: -1, 4: 0])
  }

  /// The longest packet ends in a turn that is full of pages.
  @Test func aFullTurnHasRoomForAPacketOfEarlierTurns() throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    put(0, 65535, more: true)
    for id in 1..<15 as Range<UInt16> { put(id, 4096, page: Int(id), more: true) }
    frontend.push()
    #expect(pair.pollUntilIdle() == .idle)
    put(15, 4096, page: 15)
    for id in 16..<79 as Range<UInt16> { put(id, 4096, page: Int(id) % 16) }
    frontend.push()
    #expect(pair.poll() == .more)
    #expect(try txStatuses() == Dictionary(uniqueKeysWithValues: (0..<79).map { ($0, 0) }))
    var lengths: [Int] = []
    end.receive { lengths.append($0.bytes.count) }
    #expect(lengths == [65535] + Array(repeating: 4096, count: 63))
  }

  /// What the backend did not offer is nothing that a packet may use.
  @Test func severalSlotsThatWereNotOfferedAreRefused() throws {
    let end = try InProcessEnd()
    let pair = try pair(end, features: NetFeatures(scatterGather: false))
    put(0, 100, more: true)
    put(1, 50)
    put(2, 64)
    frontend.push()
    _ = pair.pollUntilIdle()
    #expect(try txStatuses() == [0: -1, 1: -1, 2: 0])
    #expect(end.receive { _ in } == 1)
  }

  /// A frontend that writes ports for both rings all the same has one for both as well.
  @Test func splitChannelsThatWereNotOfferedAreNotBound() throws {
    frontend.splitsEventChannels = true
    let pair = try pair(EchoEnd(), features: NetFeatures(splitEventChannels: false))
    // Three of the frontend's, and the one that the backend has bound.
    #expect(pair.rig.loopback.openPortCount == 4)
    let lines = try #require(pair.backBus.negotiations.first?.value).lines
    #expect(lines.first { $0.feature == "feature-split-event-channels" }?.reason == "the backend does not offer it")
  }

  // MARK: Receive

  /// The backend wants to hear of pages when they are enough, and sleeps until then.
  @Test func aLongFrameIsWokenForWhenItHasAllItsPages() throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    send(1, byteCount: 3 * 4096, to: end)
    let expiry = PollOutcome.idleUntil(Uptime(nanoseconds: 10_000_000_000))
    #expect(pair.pollUntilIdle() == expiry)
    post(0..<2)
    #expect(!frontend.push().rx)
    #expect(pair.pollUntilIdle() == expiry)
    post(2..<3)
    #expect(frontend.push().rx)
    #expect(pair.pollUntilIdle() == .idle)
    #expect(try frontend.rxResponses().map(\.status) == [4096, 4096, 4096])
  }

  /// The first frame has kept it back for want of pages; there are enough for this one.
  @Test func aFrameBehindAnExpiredOneIsGivenInTheSameTurn() throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    post(0..<1)
    frontend.push()
    send(1, byteCount: 5000, to: end)
    _ = pair.pollUntilIdle(at: 1)
    send(1, to: end)
    _ = pair.pollUntilIdle(at: 2)
    #expect(try frontend.rxResponses().isEmpty)
    #expect(pair.pollUntilIdle(at: 11) == .idle)
    #expect(try frontend.rxResponses().map(\.status) == [64])
  }

  @Test func aTurnFillsNoMorePagesThanItsBudget() throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    post(0..<10)
    frontend.push()
    send(5, to: end)
    for given in [2, 2, 1] {
      #expect((pair.poll(budget: 2) == .more) == (given == 2))
      #expect(try frontend.rxResponses().count == given)
    }
  }

  /// An end that found the line full has been asked, and says nothing by itself.
  @Test func anEndIsAskedAgainWhenItsLineHasGotRoom() throws {
    let end = try InProcessEnd(capacity: 300)
    let pair = try pair(end)
    send(300, to: end)
    #expect(pair.pollUntilIdle(at: 1) == .idleUntil(Uptime(nanoseconds: 11_000_000_000)))
    post(0..<10)
    frontend.push()
    #expect(pair.poll(at: 1) == .more)
    // The line has 256 frames again, and the end 34; all of the first ones expire, and those come in their place.
    #expect(pair.pollUntilIdle(at: 2) == .idleUntil(Uptime(nanoseconds: 11_000_000_000)))
    #expect(try frontend.rxResponses().count == 10)
    let later = pair.pollUntilIdle(at: 11)
    #expect(later == .idleUntil(Uptime(nanoseconds: 12_000_000_000)))
    #expect(pair.pollUntilIdle(at: 12) == .idleUntil(Uptime(nanoseconds: 21_000_000_000)))
  }

  // MARK: Counts

  /// Good and bad pages in whatever order: a frame with a bad one is an error in each of its slots, and no other frame's affair.
  @Test(arguments: seeds(1...60, of: NetBackQueueTests.self))
  func framesWhosePagesCannotBeReachedAreErrorsAndTheOthersArrive(seed: Seed) throws {
    var random = SeededGenerator(seed)
    let end = try InProcessEnd()
    let pair = try pair(end)
    var (sent, slotCount): ([[UInt8]], Int) = ([], 0)
    while true {
      let long = Int.random(in: 0..<3, using: &random) == 0
      let byteCount = Int.random(in: 14...(long ? 14_000 : 4096), using: &random)
      let pages = (byteCount + 4095) / 4096
      guard slotCount + pages <= 16 else { break }
      sent.append(frame(sent.count, byteCount: byteCount))
      slotCount += pages
    }
    for one in sent { end.send(one.span) }
    // A page of its own for each slot, so that what is there can be compared.
    let isBad = (0..<slotCount).map { _ in Int.random(in: 0..<6, using: &random) == 0 }
    for id in 0..<slotCount {
      let reference = isBad[id] ? GrantReference(rawValue: 4242) : frontend.references[id]
      frontend.put(NetIfRxRequest(id: UInt16(id), gref: reference))
    }
    frontend.push()
    pair.pollUntilIdle()
    let responses = try frontend.rxResponses()
    #expect(responses.map(\.id) == (0..<UInt16(slotCount)).map { $0 })
    var (slot, errors) = (0, UInt64(0))
    for one in sent {
      let slots = slot..<slot + (one.count + 4095) / 4096
      let isLost = slots.contains { isBad[$0] }
      var bytes: [UInt8] = []
      for place in slots {
        let response = responses[place]
        #expect((response.flags & NetIf.RxFlag.moreData != 0) == (place + 1 < slots.upperBound))
        #expect(isLost ? response.status == NetIf.Status.error : response.status > 0)
        bytes += frontend.page(place).copied().prefix(max(0, Int(response.status)))
      }
      #expect(isLost || bytes == one)
      if isLost { errors += 1 }
      slot = slots.upperBound
    }
    pair.backBus.close()
    for _ in 0..<20 {
      pair.frontBus.poll()
      pair.backBus.poll()
    }
    let counts = try #require(closed.statistics?.rx)
    #expect(counts.errors == errors && counts.packets == UInt64(sent.count) - errors && counts.drops == 0)
  }

  @Test func eachPacketIsCountedOnce() throws {
    let end = try InProcessEnd()
    let pair = try pair(end)
    put(0, 100)
    put(1, 300, more: true)
    put(2, 100)
    // Refused, and out of reach.
    put(3, 13)
    put(4, 64, page: nil)
    frontend.put(NetIfRxRequest(id: 0, gref: frontend.references[0]))
    frontend.put(NetIfRxRequest(id: 1, gref: GrantReference(rawValue: 4242)))
    frontend.push()
    send(4, byteCount: 70, to: end)
    _ = pair.pollUntilIdle(at: 1)
    pair.backBus.close()
    for _ in 0..<20 {
      pair.frontBus.poll()
      pair.backBus.poll()
    }
    let statistics = try #require(closed.statistics)
    #expect("\(statistics.tx)" == "2 packets, 400 bytes, 2 errors, 0 drops")
    // Two frames still waited for pages.
    #expect("\(statistics.rx)" == "1 packets, 70 bytes, 1 errors, 2 drops")
  }
}
