import Testing
import XenPlatform
import XenRing

/// R3: who writes the shared page when an end is made, and where it goes on.
struct RingAttachTests {
  typealias Front = FrontRing<Message<112>, Message<16>>
  typealias Back = BackRing<Message<112>, Message<16>>

  /// Pages in which any write of another byte would show.
  func patternedPages() -> RawPages {
    let raw = RawPages(pages: PrivatePages(pageCount: 2))
    raw.all = (0..<raw.byteCount).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 11) }
    return raw
  }

  @Test(arguments: startIndices) func backEndWritesNothingOnAttach(start: UInt32) {
    let raw = patternedPages()
    let before = raw.all
    _ = Back(attaching: raw.pages.region(), at: RingIndex(rawValue: start))
    #expect(raw.all == before)
  }

  @Test(arguments: startIndices) func frontEndWritesNothingOnAttach(start: UInt32) {
    let raw = patternedPages()
    let before = raw.all
    _ = Front(attaching: raw.pages.region(), at: RingIndex(rawValue: start))
    #expect(raw.all == before)
  }

  @Test func backEndSeesRequestsPushedBeforeItAttached() throws {
    let pages = PrivatePages(pageCount: 1)
    var front = Front(initialising: pages.region())
    front.put(Message(1))
    front.push()
    var back = Back(attaching: pages.region())
    let waiting = try back.available()
    #expect(waiting == 1)
    let request = back.next()
    #expect(request == Message(1))
  }

  @Test(arguments: startIndices) func newBackEndTakesUnansweredRequestsAgain(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<5)
    try pair.take(4)
    pair.respond(0..<2)
    var successor = Back(attaching: pair.raw.pages.region(), at: RingIndex(rawValue: start &+ 2))
    let waiting = try successor.available()
    #expect(waiting == 3)
    let request = successor.next()
    #expect(request == Message(2))
    successor.put(Message(2))
    successor.push()
    #expect(pair.raw[.responseProducer] == start &+ 3)
  }

  @Test(arguments: startIndices) func newFrontEndContinuesWhereNothingIsInFlight(start: UInt32) throws {
    var pair = DiskPair(at: start)
    pair.request(0..<2)
    try pair.take(2)
    pair.respond(0..<2)
    var successor = Front(attaching: pair.raw.pages.region(), at: RingIndex(rawValue: start &+ 2))
    let waiting = try successor.available()
    #expect(waiting == 0)
    successor.put(Message(9))
    successor.push()
    _ = try pair.back.available()
    let request = pair.back.next()
    #expect(request == Message(9))
  }
}
