import NetBack
import TestSupport
import Testing

/// A guest that always sends as much as a turn takes: its queue's last turn before each sleep finds nothing.
struct NetBackFullTurnTests {
  /// Its events ask for something, and none of them is held back.
  @Test func fullTurnsAreNoEventsForNothing() throws {
    let frontend = RawNetFrontend()
    frontend.keys = [StoreEntry("feature-sg", true)]
    let end = try InProcessEnd()
    let pair = try HandPolledPair(frontend: frontend, backend: NetBackDriver { _ in end })
    for round in 1...100 {
      for id in 0..<64 as Range<UInt16> { frontend.put(NetIfTxRequest(gref: frontend.references[0], id: id, size: 64)) }
      frontend.push()
      #expect(pair.poll() == .more)
      let responses = try frontend.txResponses()
      #expect(responses.count == 64)
      #expect(pair.poll() == .idle, "round \(round)")
    }
  }

  @Test func fullTurnsOfTheControlRingAreNone() throws {
    let frontend = RawControlFrontend()
    let end = try InProcessEnd()
    let pair = try HandPolledPair(frontend: frontend, backend: NetBackDriver { _ in end }, queue: "-control")
    for round in 1...100 {
      let seconds = Double(round) / 1000
      for id in 0..<8 as Range<UInt16> { frontend.put(NetIfControlRequest(id: id, type: 1, data: (0, 0, 0))) }
      frontend.pushControl()
      #expect(pair.poll(at: seconds, budget: 8) == .more)
      #expect(try frontend.controlResponses().count == 8)
      #expect(pair.poll(at: seconds, budget: 8) == .idle, "round \(round)")
    }
  }
}
