import NetBack
import NetFront
import NetFrontTool
import Synchronization

/// Carries frames between a card of ours and a TAP device, on the thread of the card's bus.
final class Patch: BusThreadClient {
  let card = NetFrontDevice()
  private let cable: TapCable
  private let shown: Shown

  /// What other threads may look at.
  final class Shown: Sendable {
    struct Contents {
      var isConnected = false
      var mtu = 0
      var negotiation = Negotiation()
      var report: [String] = []
      var statistics = NetStatistics()
      /// Frames from the TAP device that the card refused, and frames from the card that the TAP device did.
      var tooLong: UInt64 = 0
      var refused: UInt64 = 0
    }

    let contents = Mutex(Contents())
  }

  init(_ tap: TapInterface, _ shown: Shown) { (cable, self.shown) = (TapCable(tap), shown) }

  let isIdle = true

  func appendDescriptors(to list: inout [CInt]) {
    guard let descriptor = card.descriptor else { return }
    list.append(descriptor)
    cable.appendDescriptors(to: &list, card)
  }

  func poll(_ bus: Bus, now: Uptime) -> PollOutcome {
    card.poll(now: now) { cable.take($0, card, now: now) }
    // That the TAP device is gone, the program sees by itself.
    let outcome = card.isConnected ? try? cable.poll(card, now: now) : nil
    card.push()
    shown.contents.withLock { shown in
      (shown.tooLong, shown.refused, shown.statistics) = (cable.tooLongCount, cable.refusedCount, card.statistics)
      if card.isConnected, shown.isConnected { return }
      shown.report = bus.report
      (shown.isConnected, shown.mtu, shown.negotiation) = (card.isConnected, card.mtu ?? 0, card.negotiation)
    }
    if outcome == .more { return .more }
    return card.nextPoll.map(PollOutcome.idleUntil) ?? .idle
  }

  func ended() {}
}
