// Named for the advisories that they are about.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import NetFront
import TestSupport
import Testing
import XenPlatform

/// S3 for the network: everything that is shared is rewritten all the time while packets cross, by a thread with a mapping of its own.
@Suite(.serialized) struct NetMutatorTests {
  /// What means something as a slot's word: flags and sizes, types of extra infos, references that are granted.
  private static func words(_ references: [GrantReference]) -> [UInt32] {
    [0, 1, 4, 8, 12, 0xFFFF_FFFF, 0x8000_0000, 0x0004_0FFF, 0x0008_0000, 0x0101_0000, 0x0001_05A8, 0xFFFF_0000]
      + references.prefix(8).map(\.rawValue)
  }

  /// Slots and payload of a card's backend, and in every third connection the indices, too: each slot is answered, or the card is closed with
  /// a reason and connects again; and what reaches the end is a frame.
  @Test func XSA155_cardsBackendAnswersOrClosesWhateverTheMutatorDoes() throws {
    let stage = try NetBackStage()
    let frontend = stage.frontend!
    var random = SeededGenerator(Seed(11))
    var (put, connections, closed, frames, writes) = (0, 0, 0, 0, 0)
    // Which connections the mutator has closed is chance: on, until there was one, and one that was not.
    while put < Storm.requestCount || ([0, connections].contains(closed) && connections < 100) {
      try frontend.connect()
      connections += 1
      let references = ["tx", "rx"].map { frontend.peer.references(of: $0)[0] } + frontend.references
      let withIndices = connections % 3 == 0
      let mutator = try Mutator(
        stage.loopback.addProcess(in: stage.victim.domain), references, of: stage.hostile.domain,
        ranges: Array(repeating: 64..<4096, count: 3) + Array(repeating: 4096 + 64..<8192, count: 3)
          + [8192..<references.count * 4096] + (withIndices ? [0..<16, 4096..<4096 + 16] : []),
        words: Self.words(frontend.references), seed: Seed(UInt64(connections)),
        pauseMicroseconds: withIndices ? 20 : 0)
      let enough = put < Storm.requestCount ? min(put + 4000, Storm.requestCount) : put + 4000
      while put < enough, try stage.peer.otherState == .connected {
        for _ in 0..<16 where frontend.tx.requestProducer &- frontend.tx.responseProducer < 240 {
          frontend.tx.request(request(put, frontend.references, &random))
          frontend.rx.request(NetIfRxRequest(id: UInt16(put % 256), gref: frontend.references[put % 32]))
          stage.end.send(pattern(100 + put % 1400, seed: put))
          put += 1
        }
        stage.peer.notify()
        stage.run(turns: 10)
        for frame in stage.end.frames() {
          frames += 1
          if !(NetIf.headerByteCount...65535).contains(frame.count) { Issue.record("a frame of \(frame.count) bytes") }
        }
        // One that waits for the rest of a packet, which the mutator has made of it: it never comes.
        if frontend.tx.requestProducer &- frontend.tx.responseProducer >= 240 { break }
      }
      writes += mutator.end()
      if try stage.peer.otherState != .connected { closed += 1 }
      try stage.peer.write(.closed)
      #expect(try stage.run { try [.closed, .initWait].contains(stage.peer.otherState) }, "\(stage.bus.report)")
      stage.peer.dropAll()
      try stage.peer.write(.initialising)
    }
    #expect(frames > 0 && closed > 0 && closed < connections, "\(frames) frames, \(closed) of \(connections) closed")
    print(
      "mutator: \(writes) writes in \(put) slots of a network backend, in \(connections) connections, \(frames) frames")
    try stage.check()
  }

  /// A packet in one slot, or the beginning or end of one in two, or one with an extra info.
  private func request(_ number: Int, _ references: [GrantReference], _ random: inout SeededGenerator) -> NetIfTxRequest
  {
    let flags: UInt16 =
      switch UInt8.random(in: 0..<6, using: &random) {
      case 0: NetIf.TxFlag.moreData
      case 1: NetIf.TxFlag.extraInfo
      case 2: NetIf.TxFlag.checksumBlank | NetIf.TxFlag.dataValidated
      default: 0
      }
    return NetIfTxRequest(
      gref: references[number % references.count], offset: UInt16.random(in: 0..<2000, using: &random), flags: flags,
      id: UInt16(truncatingIfNeeded: number), size: UInt16.random(in: 60...2000, using: &random))
  }

  /// The rings of a card's frontend, whose backend answers honestly what it reads: each frame is counted once, and what arrives is a frame.
  @Test(arguments: [false, true]) func XSA155_cardsFrontendCountsEachFrameOnceWhateverTheMutatorDoes(isTrusted: Bool)
    throws
  {
    let stage = try NetFrontStage(isTrusted: isTrusted)
    let card = stage.card
    var random = SeededGenerator(Seed(12))
    var (put, connections, closed, writes, received) = (0, 0, 0, 0, 0)
    // Most connections end soon, by a response to a frame that is not in flight.
    let count = Storm.requestCount / 2
    while put < count {
      try stage.backend.connect()
      connections += 1
      let references = try ["tx", "rx"].map {
        GrantReference(rawValue: try stage.peer.other.number("\($0)-ring-ref", as: UInt32.self))
      }
      let withIndices = connections % 3 == 0
      let mutator = try Mutator(
        stage.loopback.addProcess(in: stage.hostile.domain), references, of: stage.victim.domain,
        ranges: [64..<4096, 4096 + 64..<8192] + (withIndices ? [0..<16, 4096..<4096 + 16] : []),
        words: Self.words(references), seed: Seed(UInt64(connections)), pauseMicroseconds: 50)
      let enough = min(put + 4000, count)
      var slot: UInt32 = 0
      while put < enough, card.isConnected {
        for _ in 0..<8 where card.hasRoom(for: 200) {
          do throws(NetFrontError) { try card.send(pattern(200, seed: put).span) } catch {
            guard case .busy = error else { throw error }
            break
          }
          put += 1
        }
        card.push()
        // Whatever the mutator has made of the requests meanwhile; as many as there can be.
        for request in stage.backend.txRequests(limit: 256) {
          stage.backend.answer(NetIfTxResponse(id: request.id, status: Int16.random(in: -2...0, using: &random)))
        }
        for _ in 0..<8 where stage.backend.rx.requestProducer &- slot > 0 {
          let size = Int16.random(in: -1...1514, using: &random)
          stage.backend.answer(NetIfRxResponse(id: stage.backend.rxRequest(slot).id, status: size))
          slot &+= 1
        }
        stage.run(turns: 5)
        stage.pollCard()
        for frame in stage.received where !(1...65535).contains(frame.count) {
          Issue.record("a frame of \(frame.count) bytes")
        }
        received += stage.received.count
        stage.forgetReceived()
      }
      writes += mutator.end()
      if !card.isConnected { closed += 1 }
      stage.peer.dropAll()
      try stage.peer.write(.closed)
      try stage.expectState(.closed)
      stage.pollCard()
      #expect(card.inFlightCount == 0)
    }
    let sum = card.statistics.tx
    #expect(Int(sum.packets + sum.errors + sum.drops) == put, "\(card.statistics) of \(put)")
    #expect(closed > 0 && received > 0, "\(closed) of \(connections) closed, \(received) frames received")
    print("mutator: \(writes) writes in \(put) frames of a network frontend, in \(connections) connections")
    try stage.check()
  }
}
