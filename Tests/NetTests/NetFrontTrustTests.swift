import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// N16: a backend that the toolstack does not trust sees nothing but what is sent, and changes nothing that is looked at.
struct NetFrontTrustTests {
  private let backend = ManyRingsNetBackend()

  private func pair(trusted: String?) throws -> NetPair {
    let pair = try NetPair(mtu: 9000, frontendKeys: trusted.map { ["trusted": $0] } ?? [:], backend: backend)
    #expect(pair.scheduler.run { pair.card.isConnected })
    #expect(pair.card.negotiation.lines.first { $0.feature == "trusted" }?.agreed == trusted ?? "1")
    return pair
  }

  private func isZero(_ bytes: some Sequence<UInt8>) -> Bool { bytes.allSatisfy { $0 == 0 } }

  /// Fills every page for what is sent with what nobody is to see again.
  private func useAllPages(_ pair: NetPair) throws {
    let secret = [UInt8](repeating: 0x5E, count: 2 * 4096)
    for _ in 0..<128 { try pair.card.send(secret.span) }
    pair.card.push()
    backend.answerAll(try backend.requests())
    pair.pollCard()
    #expect(pair.card.inFlightCount == 0)
  }

  @Test func noByteOfAnEarlierFrameIsInAPageOfALaterOne() throws {
    let pair = try pair(trusted: "0")
    for byteCount in [60, 1514, 4096, 4097, 9000] {
      try useAllPages(pair)
      let one = frame(byteCount, byteCount: byteCount)
      try pair.card.send(one.span)
      pair.card.push()
      let slots = try backend.requests()
      #expect(backend.frame(slots) == one)
      let pages = slots.flatMap { backend.bytes(of: $0.gref, count: 4096)! }
      #expect(isZero(pages[byteCount...]), "\(byteCount)")
      backend.answerAll(slots)
      pair.pollCard()
    }
    // And nothing that has come in a page that is given again.
    for number in 0..<600 {
      try backend.fill(frame(number, byteCount: 4096))
      pair.pollCard()
      #expect(isZero(backend.bytes(of: try backend.pages().last!.gref, count: 4096)!))
    }
  }

  /// So that the test above can fail.
  @Test(arguments: [nil, "1"] as [String?])
  func whoIsTrustedSeesWhatPagesHeldBefore(trusted: String?) throws {
    let pair = try pair(trusted: trusted)
    try useAllPages(pair)
    let one = frame(1)
    try pair.card.send(one.span)
    pair.card.push()
    #expect(
      backend.bytes(of: try backend.requests()[0].gref, from: 64, count: 64) == [UInt8](repeating: 0x5E, count: 64))
  }

  /// Writes all over everything that it was ever given; what of that is allowed.
  private func scribble(_ references: Set<UInt32>, _ value: UInt8) -> Int {
    references.count { backend.write([UInt8](repeating: value, count: 4096), to: $0) }
  }

  /// Each look at a frame is followed by a scribble, and another look.
  @Test(arguments: [true, false])
  func whatIsHandedOverDoesNotChange(isTrusted: Bool) throws {
    let pair = try pair(trusted: isTrusted ? "1" : "0")
    var granted = Set(try backend.pages().map(\.gref))
    var changed = 0
    for round in 0..<60 {
      let one = frame(round, byteCount: 5000)
      try pair.card.send(one.span)
      pair.card.push()
      let sent = try backend.requests()
      // What is sent cannot be written at all.
      let isReadOnly = scribble(Set(sent.map(\.gref)), 0xEE) == 0
      #expect(isReadOnly && backend.frame(sent) == one)
      backend.answerAll(sent)
      try backend.fill(Array(one[..<4096]), flags: NetIf.RxFlag.moreData | NetIf.RxFlag.extraInfo)
      try backend.fill(NetIfExtraInfo(type: 1, words: (1448, 1, 0)))
      try backend.fill(Array(one[4096...]))
      granted.formUnion(try backend.pages().map(\.gref))
      pair.card.poll { arrived in
        let first = arrived.copied()
        #expect(first == one && arrived.fragmentCount == (isTrusted ? 2 : 1))
        #expect(arrived.metadata.segmentation?.payloadByteCount == 1448)
        #expect(scribble(granted, UInt8(truncatingIfNeeded: round)) == 256)
        if arrived.copied() != first { changed += 1 }
      }
      _ = scribble(granted, 0xAA)
    }
    #expect(changed == (isTrusted ? 60 : 0))
    #expect(pair.card.isConnected && pair.card.statistics.rx.packets == 60)
  }

  @Test(arguments: ["", "no", "-1"])
  func wordThatIsNoNumberClosesTheCard(trusted: String) throws {
    let pair = try NetPair(frontendKeys: ["trusted": trusted], backend: backend)
    #expect(try pair.scheduler.run { try pair.frontendError?.contains("trusted") == true })
    #expect(!pair.card.isConnected && pair.loopback.grantCounts.sharedPages == 0)
  }

  /// Nothing else is shared than rings, pools, and what brings control requests their input.
  @Test func cardOfAnUntrustedBackendIsACard() throws {
    let pair = try NetPair(mtu: 9000, frontendKeys: ["trusted": "0"], end: EchoEnd())
    try pair.connect()
    #expect(pair.loopback.grantCounts.sharedPages == 516)
    let sent = (0..<400).map { frame($0, byteCount: 14 + ($0 * 37) % 8000) }
    for one in sent {
      let count = pair.received.count
      try pair.card.send(one.span)
      pair.card.push()
      #expect(pair.receive(count + 1))
    }
    #expect(pair.received == sent)
  }
}
