import NetBack
import NetFront
import NetFrontTool
import Synchronization

/// Carries frames between a card of ours and a TAP device, on the thread of the card's bus.
final class Patch: BusThreadClient {
  let card: NetFrontDevice
  private let cable: TapCable
  private let shown: Shown

  /// What other threads may look at.
  final class Shown: Sendable {
    struct Contents {
      var isConnected = false
      var mtu = 0
      var negotiation = Negotiation()
      var report: [String] = []
      /// Of each queue.
      var statistics: [NetStatistics] = []
      var segmentedCounts = (toFront: UInt64(0), toBack: UInt64(0))
      /// Frames from the TAP device that the card refused, and frames from the card that the TAP device did.
      var tooLong: UInt64 = 0
      var refused: UInt64 = 0
    }

    let contents = Mutex(Contents())
  }

  init(_ tap: TapInterface, features: NetFeatures, _ shown: Shown) {
    card = NetFrontDevice(features: features)
    (cable, self.shown) = (TapCable(tap), shown)
  }

  let isIdle = true

  var hasWork: Bool { card.hasWork }
  var workCount: UInt64? { card.workCount &+ cable.workCount }

  func appendDescriptors(to list: inout [CInt]) {
    guard let descriptor = card.descriptor else { return }
    list.append(descriptor)
    cable.appendDescriptors(to: &list, card)
  }

  func poll(_ bus: Bus, now: Uptime, looks: Bool) -> PollOutcome {
    card.poll(now: now, looks: looks) { cable.take($0, card, now: now) }
    // That the TAP device is gone, the program sees by itself.
    let outcome = card.isConnected ? try? cable.poll(card, now: now) : nil
    card.push()
    shown.contents.withLock { shown in
      (shown.tooLong, shown.refused, shown.statistics) = (cable.tooLongCount, cable.refusedCount, card.queueStatistics)
      (shown.segmentedCounts.toFront, shown.segmentedCounts.toBack) = cable.segmentedCounts
      if card.isConnected, shown.isConnected { return }
      shown.report = bus.report
      (shown.isConnected, shown.mtu, shown.negotiation) = (card.isConnected, card.mtu ?? 0, card.negotiation)
    }
    if outcome == .more { return .more }
    return card.nextPoll.map(PollOutcome.idleUntil) ?? .idle
  }

  func ended() {}
}
