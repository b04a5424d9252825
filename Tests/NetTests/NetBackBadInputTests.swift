import NetBack
import TestSupport
import Testing

/// What a frontend may not send: each has its answer, and what comes behind it is served, or the device is closed with the
/// reason.
struct NetBackBadInputTests {
  enum Slot: Sendable {
    case data(_ size: UInt16, offset: UInt16 = 0, flags: UInt16 = 0)
    case extra(type: UInt8, flags: UInt8 = 0, words: (UInt16, UInt16, UInt16) = (0, 0, 0))
  }

  enum Outcome: Sendable {
    /// The answer to each slot: all well, an error, null.
    case answers([Int16])
    /// No answer, and nothing else either.
    case waits
    case closes(String)
  }

  struct Case: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let slots: [Slot]
    let outcome: Outcome

    init(_ name: String, _ slots: [Slot], _ outcome: Outcome) {
      (testDescription, self.slots, self.outcome) = (name, slots, outcome)
    }
  }

  private static let more = NetIf.TxFlag.moreData
  private static let extra = NetIf.TxFlag.extraInfo

  /// A packet of so many slots, the further ones of ten bytes.
  private static func packet(_ count: Int) -> [Slot] {
    (0..<count).map { .data($0 == 0 ? 1000 : 10, flags: $0 < count - 1 ? more : 0) }
  }

  /// A packet of two slots, of which the second is this one.
  private static func behind(_ size: UInt16, offset: UInt16, total: UInt16 = 200) -> [Slot] {
    [.data(total, flags: more), .data(size, offset: offset)]
  }

  private static let fails: Outcome = .answers([-1, -1])

  static let cases: [Case] = [
    Case("no slot", [], .answers([])),
    Case("one slot", packet(1), .answers([0])),
    Case("18 slots", packet(18), .answers(Array(repeating: 0, count: 18))),
    Case("19 slots", packet(19), .answers(Array(repeating: -1, count: 19))),
    Case("20 slots", packet(20), .answers(Array(repeating: -1, count: 20))),
    Case("21 slots", packet(21), .closes("a packet of more than 20 slots")),
    Case("a chain round the ring", packet(200), .closes("a packet of more than 20 slots")),
    Case("more data with nothing behind it", [.data(1000, flags: more)], .waits),
    Case("17 slots and no last one", packet(18).dropLast(), .waits),

    Case("a whole page", [.data(4096)], .answers([0])),
    Case("a page and a byte", [.data(4097)], .answers([-1])),
    Case("a page from its second byte on", [.data(4096, offset: 1)], .answers([-1])),
    Case("the last bytes of a page", [.data(14, offset: 4082)], .answers([0])),
    Case("one byte beyond the page", [.data(14, offset: 4083)], .answers([-1])),
    Case("from the end of the page on", [.data(64, offset: 4096)], .answers([-1])),
    Case("the largest numbers", [.data(65535, offset: 65535)], .answers([-1])),
    Case("a sum that 16 bits do not hold", [.data(4096, offset: 61440)], .answers([-1])),
    Case("the last byte of a page behind", behind(1, offset: 4095), .answers([0, 0])),
    Case("nothing at the end of a page behind", behind(0, offset: 4096), .answers([0, 0])),
    Case("nothing beyond a page behind", behind(0, offset: 4097), fails),
    Case("one byte beyond a page behind", behind(1, offset: 4096), fails),
    Case("a sum that 16 bits do not hold behind", behind(65535, offset: 1, total: 65535), fails),
    Case("as much behind as in all", behind(200, offset: 0), fails),
    Case("more behind than in all", behind(201, offset: 0), fails),

    Case("size zero", [.data(0)], .answers([-1])),
    Case("no more than a part of the header", [.data(13)], .answers([-1])),
    Case("size zero with more behind it", [.data(0, flags: more), .data(64)], fails),
    Case("slots without bytes", [.data(64, flags: more), .data(0, flags: more), .data(0)], .answers([0, 0, 0])),
    Case("flags that nobody knows", [.data(64, flags: 0xFFF0)], .answers([0])),

    Case("an extra info that does not come", [.data(64, flags: extra)], .waits),
    Case(
      "extra infos without end", [.data(64, flags: extra)] + Array(repeating: .extra(type: 4, flags: 1), count: 200),
      .closes("a packet with more than 5 extra infos")),
    Case(
      "extra infos that nobody knows without end",
      [.data(64, flags: extra)] + Array(repeating: .extra(type: 99, flags: 0xFF), count: 6),
      .closes("a packet with more than 5 extra infos")),
    Case(
      "five extra infos", [.data(64, flags: extra)] + (1...5).map { .extra(type: $0, flags: $0 < 5 ? 1 : 0) },
      .answers([-1, 1, 1, 1, 1, 1])),
    Case("type 0", [.data(64, flags: extra), .extra(type: 0)], .answers([-1, 1])),
    Case("type 6", [.data(64, flags: extra), .extra(type: 6)], .answers([-1, 1])),
    Case("type 255", [.data(64, flags: extra), .extra(type: 255)], .answers([-1, 1])),
    Case("segments without payload", [.data(64, flags: extra), .extra(type: 1, words: (0, 1, 0))], .answers([-1, 1])),
    Case("segments of no type", [.data(64, flags: extra), .extra(type: 1, words: (1448, 0, 0))], .answers([-1, 1])),
    Case(
      "segments of a type that nobody knows", [.data(64, flags: extra), .extra(type: 1, words: (1448, 3, 0))],
      .answers([-1, 1])),
    Case(
      "segments with features", [.data(64, flags: extra), .extra(type: 1, words: (1448, 1, 1))], .answers([-1, 1])),
    Case(
      "segments of what is no packet", [.data(64, flags: extra), .extra(type: 1, words: (1448, 1, 0))],
      .answers([-1, 1])),
    Case(
      "a hash of no algorithm that is known", [.data(64, flags: extra), .extra(type: 4, words: (0x200, 0, 0))],
      .answers([-1, 1])),
    Case(
      "more headroom than there is", [.data(64, flags: extra), .extra(type: 5, words: (0x8000, 0, 0))],
      .answers([-1, 1])),
    Case(
      "a group that is one card's", [.data(64, flags: extra), .extra(type: 2, words: (0, 0, 0))], .answers([-1, 1])),
    Case(
      "an unknown extra info among slots", [.data(200, flags: extra | more), .extra(type: 77), .data(100)],
      .answers([-1, 1, -1])),
    Case("a checksum that has no place", [.data(64, flags: NetIf.TxFlag.checksumBlank)], .answers([-1])),
  ]

  @Test(arguments: cases) func eachHasItsAnswer(case one: Case) throws {
    let frontend = RawNetFrontend()
    frontend.keys = [StoreEntry("feature-sg", true)]
    let end = NotingEnd(offloads: .all)
    var statistics: NetStatistics?
    let pair = try NetPair(
      backend: NetBackDriver(whenClosed: { statistics = $1.total }) { _ in end }, frontend: frontend)
    try #require(pair.scheduler.run { frontend.isConnected && pair.backBus.isConnected })
    var refused: UInt64 = 0
    for (number, slot) in one.slots.enumerated() {
      switch slot {
      case .data(let size, let offset, let flags):
        frontend.put(
          NetIfTxRequest(gref: frontend.references[0], offset: offset, flags: flags, id: UInt16(number), size: size))
      case .extra(let type, let flags, let words):
        frontend.put(NetIfExtraInfo(type: type, flags: flags, words: words).transmitSlot)
      }
    }
    frontend.push()
    switch one.outcome {
    case .waits:
      _ = pair.scheduler.run(turns: 50) { false }
      #expect(try frontend.txResponses().isEmpty && pair.backBus.isConnected)
      #expect(end.taken.isEmpty)
    case .closes(let words):
      #expect(try pair.scheduler.run { try pair.backendError != nil })
      #expect(try pair.backendError?.contains(words) == true)
      #expect(pair.scheduler.run { pair.holdsNothing })
      return
    case .answers(let statuses):
      // What comes behind is served.
      frontend.put(NetIfTxRequest(gref: frontend.references[1], id: 999, size: 64))
      frontend.push()
      var answers: [NetIfTxResponse] = []
      _ = try pair.scheduler.run {
        answers += try frontend.txResponses()
        return answers.count > statuses.count
      }
      #expect(answers.map(\.status) == statuses + [0])
      for (number, answer) in answers.dropLast().enumerated() where answer.status != NetIf.Status.null {
        #expect(answer.id == UInt16(number))
      }
      refused = statuses.contains(-1) ? 1 : 0
      #expect(end.taken.count == (statuses.isEmpty || refused == 1 ? 1 : 2))
    }
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.holdsNothing }, "\(pair.loopback.grantCounts)")
    #expect(statistics?.tx.errors == refused)
  }
}
