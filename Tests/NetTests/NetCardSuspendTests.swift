import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

/// X9: a card of async programs whose domain is suspended and resumed.
// For what hangs: many times what all tests together take, since a test waits for its turn among them.
@Suite(.timeLimit(.minutes(80)))
struct NetCardSuspendTests {
  private let rig: Rig
  private let device: Toolstack.Device
  private let backend: BusThread

  init() throws {
    rig = try Rig()
    device = try rig.toolstack.addVif(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    backend = try BusThread(on: rig.driverDomain, log: .silent) { (bus) throws(XenstoreError) in
      try bus.register(NetBackDriver { _ in EchoEnd() })
      return nil
    }
  }

  private func card() async throws -> NetFrontCard {
    try await NetFrontCard.connect(to: device.frontendPath, on: rig.guest, log: .silent)
  }

  /// Sends frames and waits until they are back.
  private static func roundTrip(_ card: NetFrontCard, _ numbers: Range<Int>) async throws {
    var batch = NetFrameBatch()
    for number in numbers { batch.append(frame(number).span) }
    #expect(try await card.transmit(batch).isEmpty)
    var received: [[UInt8]] = []
    for await batch in card.received {
      received += batch.map { Array($0) }
      if received.count >= numbers.count { break }
    }
    #expect(received == numbers.map { frame($0) })
  }

  @Test func cardGoesOnAfterASuspension() async throws {
    defer { backend.end(within: 5) }
    let card = try await card()
    for round in 0..<5 {
      try await Self.roundTrip(card, round * 100..<round * 100 + 30)
      let before = rig.loopback.heldPages
      await card.suspend()
      rig.guest.suspendAndResume()
      try rig.toolstack.remove(device)
      _ = try rig.toolstack.addVif(
        to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:0\(round)")
      // Waits for its turn.
      async let waiting: Void = Self.roundTrip(card, round * 100 + 50..<round * 100 + 60)
      card.resume()
      try await waiting
      #expect(rig.loopback.heldPages == before && card.macAddress?.description == "00:16:3e:00:00:0\(round)")
    }
    // A frame may be back before it is answered.
    await card.close()
    #expect(card.statistics.tx.packets == 200)
    #expect(rig.loopback.grantCounts.sharedPages == 0)
  }

  @Test func suspendedCardCanBeClosed() async throws {
    defer { backend.end(within: 5) }
    let card = try await card()
    await card.suspend()
    await card.suspend()
    await card.close(within: .milliseconds(100))
    #expect(rig.loopback.grantCounts.sharedPages == 0)
    // And there is nothing left to stop.
    await card.suspend()
    card.resume()
  }
}
