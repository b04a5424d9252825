import NetBack
import NetFront
import NetFrontTool
import Testing
import XenLoopback

/// What net-responder does, on an in-process Xen: both ends are sequences of batches.
struct ResponderTests {
  /// A card of the neighbour's, and the responder behind it.
  private func serve(_ neighbour: Neighbour) async throws -> (NetFrontCard, Task<IPv4Host.Counts, any Error>) {
    let card = try await NetFrontCard.connect(
      to: neighbour.device.frontendPath, on: neighbour.guest, log: Neighbour.quiet)
    let responder = Task {
      var responder = Responder(card, network: IPv4Network("10.9.0.2/24")!)
      try await responder.run()
      return responder.counts
    }
    return (card, responder)
  }

  /// The next frame that the card has sent, of those that answer something.
  private func answer(
    to frame: [UInt8], _ metadata: NetPacketMetadata = NetPacketMetadata(), from card: Neighbour
  ) async -> [UInt8]? {
    card.end.send(frame.span, metadata)
    var batches = card.end.batches.makeAsyncIterator()
    return await batches.next()?.last.map(Array.init)
  }

  @Test func everythingIsAnsweredUntilTheCardIsClosed() async throws {
    let neighbour = try Neighbour()
    let (card, responder) = try await serve(neighbour)
    #expect(await answer(to: Frames.arp(), from: neighbour)?[20...21] == [0, 2])
    let ping = Frames.ip(1, Frames.icmp(8, [UInt8](repeating: 7, count: 1472)))
    let reply = await answer(to: ping, from: neighbour)
    #expect(reply?.count == ping.count && reply?[34] == 0)
    #expect(await answer(to: Frames.ip(17, Frames.udp()), from: neighbour)?.suffix(4) == Array("echo".utf8)[...])
    await card.close()
    let counts = try await responder.value
    #expect(counts.arpRequestsAnswered == 1 && counts.echoRequestsAnswered == 1 && counts.datagramsAnswered == 1)
    #expect(counts.malformed == 0)
    neighbour.stopBackend()
    #expect(neighbour.loopback.grantCounts.sharedPages == 0 && neighbour.loopback.openPortCount == 0)
  }

  /// Linux leaves the checksums of what it sends to a card blank.
  @Test func datagramsWithABlankChecksumAreAnswered() async throws {
    let neighbour = try Neighbour()
    let (card, responder) = try await serve(neighbour)
    let blank = Frames.ip(17, Frames.udp(checksum: 0x1234))
    let echo = await answer(to: blank, NetPacketMetadata(checksum: .blank), from: neighbour)
    #expect(echo?.suffix(4) == Array("echo".utf8)[...])
    await card.close()
    #expect(try await responder.value.datagramsAnswered == 1)
    neighbour.stopBackend()
  }

  /// Whoever is at the other end of the card decides how long a ping is, and ends nothing with it.
  @Test func aPingThatIsTooLongToAnswerIsCountedAndOthersAreAnswered() async throws {
    let neighbour = try Neighbour()
    let (card, responder) = try await serve(neighbour)
    let long = Frames.ip(1, Frames.icmp(8, [UInt8](repeating: 7, count: 3000)))
    neighbour.end.send(long.span)
    #expect(await answer(to: Frames.arp(), from: neighbour)?[20...21] == [0, 2])
    await card.close()
    let counts = try await responder.value
    #expect(counts.answersRefused == 1 && counts.arpRequestsAnswered == 1)
    neighbour.stopBackend()
  }

  /// While it waits for a frame, and while answers wait for a backend that is not there.
  @Test(arguments: [false, true]) func aRemovedCardIsItsEnd(answersWait: Bool) async throws {
    let neighbour = try Neighbour()
    let (card, responder) = try await serve(neighbour)
    #expect(await answer(to: Frames.arp(), from: neighbour)?[20...21] == [0, 2])
    if answersWait {
      neighbour.stopBackend()
      while card.hasCarrier { await Task.yield() }
      let waiting = Task { try await card.transmit([Frames.arp()]) }
      try neighbour.toolstack.remove(neighbour.device)
      await #expect(throws: NetFrontError.notConnected) { try await waiting.value }
    } else {
      #expect(try neighbour.toolstack.destroy(neighbour.device))
    }
    #expect(try await responder.value.arpRequestsAnswered == 1)
    await card.close()
    neighbour.stopBackend()
    #expect(neighbour.loopback.grantCounts.sharedPages == 0 && neighbour.loopback.openPortCount == 0)
  }
}
