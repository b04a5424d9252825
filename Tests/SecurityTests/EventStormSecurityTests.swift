// Named for the advisories that they are about.
// swift-format-ignore-file: AlwaysUseLowerCamelCase

import BlkBack
import TestSupport
import Testing
import XenLoopback
import XenPlatform

/// S6: what a guest can do with events alone.
struct EventStormSecurityTests {
  private func stage(_ host: AwakeHost) throws -> BlkBackStage {
    let stage = try BlkBackStage(queueHost: host)
    stage.scheduler.add(host, name: "queues") { _ in
      host.step(nanoseconds: 10_000)
      return .idle
    }
    try stage.frontend.connect()
    #expect(try stage.useSecond())
    return stage
  }

  /// A second of events, one every ten microseconds, that ask for nothing.
  @Test func XSA332_eventStormCostsAWakeNowAndThen() throws {
    let host = AwakeHost()
    let stage = try stage(host)
    let before = host.pollCount(0)
    for _ in 0..<100_000 {
      stage.peer.notify()
      host.step(nanoseconds: 10_000)
    }
    let count = host.pollCount(0) - before
    // Sixteen at once, ten at doubling distances, and then each time one to look and one to let the next event in.
    #expect((50..<70).contains(count), "\(count) polls")
    #expect(try stage.useSecond(), "another disk is not slower for it")
    // What it asks for at last is answered, at the latest when its tenth of a second is up.
    stage.frontend.put(stage.frontend.request(BlkIf.Operation.read, pages: [0], id: 1))
    var waited = 0
    while stage.frontend.ring.responseProducer == 0, waited < 1_000_000 {
      host.step(nanoseconds: 10_000)
      waited += 10_000
    }
    while stage.frontend.ring.responseProducer == 0, waited < 110_000_000 {
      host.step(nanoseconds: 1_000_000)
      waited += 1_000_000
    }
    #expect(stage.frontend.ring.responseProducer == 1, "after \(waited) ns")
    // And is forgiven: the next one at once.
    host.step(nanoseconds: 10_000)
    stage.frontend.put(stage.frontend.request(BlkIf.Operation.read, pages: [0], id: 2))
    host.step(nanoseconds: 10_000)
    #expect(stage.frontend.ring.responseProducer == 2)
    stage.scheduler.remove(host)
    stage.scheduler.add(host, name: "queues") { _ in
      host.step(nanoseconds: 1_000_000)
      return .idle
    }
    try stage.check()
  }

  /// Events that come with work are all let in, however many there are.
  @Test func eventsThatAskForSomethingAreNeverHeldBack() throws {
    let host = AwakeHost()
    let stage = try stage(host)
    for id in 0..<2000 as Range<UInt64> {
      stage.frontend.put(stage.frontend.request(BlkIf.Operation.read, pages: [0], id: id))
      host.step(nanoseconds: 1000)
      host.step(nanoseconds: 1000)
      #expect(stage.frontend.ring.responseProducer == UInt32(id) + 1)
    }
    try stage.check()
  }

  /// A ring that is filled again whenever there is room, with an event each time: a poll does what its budget says.
  @Test func XSA391_pollOfARingThatIsAlwaysFullDoesItsBudget() throws {
    let host = AwakeHost(budget: 8)
    let stage = try stage(host)
    let ring = stage.frontend.ring!
    var former: UInt32 = 0
    for _ in 0..<500 {
      while ring.requestProducer &- ring.responseProducer < 32 {
        stage.frontend.put(stage.frontend.request(BlkIf.Operation.read, pages: [0], id: UInt64(ring.requestProducer)))
      }
      host.step(nanoseconds: 10_000)
      #expect(ring.responseProducer &- former <= 8)
      former = ring.responseProducer
    }
    #expect(former >= 4000 - 8)
    try stage.check()
  }
}
