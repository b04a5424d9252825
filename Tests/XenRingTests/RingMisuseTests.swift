import Testing
import XenPlatform
import XenRing

/// What only a bug of our own can do: it traps instead of damaging the ring.
struct RingMisuseTests {
  @Test func putIntoAFullRingTraps() async {
    await #expect(processExitsWith: .failure) {
      var pair = DiskPair(at: .max)
      pair.request(0..<33)
    }
  }

  @Test func moreResponsesThanRequestsTakenTraps() async {
    await #expect(processExitsWith: .failure) {
      var pair = DiskPair(at: .max)
      pair.request(0..<3)
      try pair.take(2)
      pair.respond(0..<3)
    }
  }

  @Test func toReplaceAResponseThatWasShownTraps() async {
    await #expect(processExitsWith: .failure) {
      var pair = DiskPair(at: .max)
      pair.request(0..<3)
      try pair.take(3)
      pair.respond(0..<2)
      pair.back.push()
      pair.back.put(Message(2))
      pair.back.replace(Message(9), back: 2)
    }
  }

  @Test func toAnswerAtOnceWhileARequestIsInFlightTraps() async {
    await #expect(processExitsWith: .failure) {
      var pair = DiskPair(at: .max)
      pair.request(0..<3)
      try pair.take(1)
      _ = pair.back.answer(upTo: 2) {
        true
      } _: { _ in
        Message(1)
      }
    }
    await #expect(processExitsWith: .success) {
      var pair = DiskPair(at: .max)
      pair.request(0..<3)
      try pair.take(1)
      pair.respond(0..<1)
      _ = pair.back.answer(upTo: 2) {
        true
      } _: { _ in
        Message(1)
      }
    }
  }

  @Test func regionTooSmallForOneSlotTraps() async {
    await #expect(processExitsWith: .failure) {
      _ = FrontRing<Message<4033>, Message<4>>(initialising: PrivatePages(pageCount: 1).region())
    }
  }

  /// The other side of the traps above: the same steps, one less, exit cleanly.
  @Test func fullRingAndAsManyResponsesExitCleanly() async {
    await #expect(processExitsWith: .success) {
      var pair = DiskPair(at: .max)
      pair.request(0..<32)
      try pair.take(32)
      pair.respond(0..<32)
      _ = FrontRing<Message<4032>, Message<4>>(initialising: PrivatePages(pageCount: 1).region())
    }
  }
}
