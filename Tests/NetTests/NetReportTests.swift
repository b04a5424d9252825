import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// What a card says of itself to whoever looks for the reason of something.
struct NetReportTests {
  @Test func ringsAreLoggedWhenACardCloses() throws {
    var features = NetFeatures()
    features.controlRing = true
    let log = CollectedLog()
    let pair = try NetPair(
      features: features, backend: NetBackDriver(features: features) { _ in EchoEnd() }, log: log.logger)
    try pair.connect()
    let (card, scheduler) = (pair.card, pair.scheduler)
    try card.send(frame(1).span)
    card.push()
    var arrived: [UInt8] = []
    let done = scheduler.run {
      card.poll(now: scheduler.now) {
        arrived = [UInt8](repeating: 0xEE, count: $0.byteCount + 2)
        var span = arrived.mutableSpan
        $0.copy(to: &span)
      }
      return !arrived.isEmpty
    }
    // The frame alone is written, and nothing behind it.
    #expect(done && arrived == frame(1) + [0xEE, 0xEE])
    pair.backBus.close()
    #expect(scheduler.run { !pair.backBus.isConnected && pair.holdsNothing })
    let queue = try #require(log.lines.first { $0.contains("queue 0 disconnected") })
    #expect(queue.contains("; tx back") && queue.contains("; rx back") && queue.contains("consumed 1"), "\(queue)")
    #expect(log.lines.contains { $0.contains("0 control requests answered, 0 of them refused; back") })
  }

  @Test func faultsOfHashingSayWhatToDo() {
    #expect("\(NetHashFault.notOffered)".contains("feature-ctrl-ring"))
    #expect(
      "\(NetHashFault.refused(.setHashKey, .bufferOverflow))" == "the backend answered setHashKey with bufferOverflow")
    #expect("\(NetHashFault.kinds(.ipv6TCP))".contains("0x8"))
    #expect("\(NetHashFault.mappingTooLong(entryCount: 9, limit: 8))".contains("at most 8 entries, not 9"))
  }

  @Test func addressesReadBack() throws {
    let address = IPv4Address([192, 0, 2, 7])
    #expect("\(address)" == "192.0.2.7" && IPv4Address("192.0.2.7") == address)
    #expect(address.bytes.indices.map { address.bytes[$0] } == [192, 0, 2, 7])
  }
}
