import NetBack
import NetFront
import Synchronization

/// Carries frames between a card of ours and a TAP device, on the thread of the card's bus.
final class Patch: BusThreadClient {
  let card = NetFrontDevice()
  private let tap: TapInterface
  private let shown: Shown
  private var buffer = [UInt8](repeating: 0, count: 1 << 16)

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

  init(_ tap: TapInterface, _ shown: Shown) { (self.tap, self.shown) = (tap, shown) }

  let isIdle = true

  func appendDescriptors(to list: inout [CInt]) {
    guard let descriptor = card.descriptor else { return }
    list.append(descriptor)
    // While the ring is full, what the TAP device has is no news; one that is gone never has any.
    if !card.waitsForSlots, !tap.isGone { list.append(tap.descriptor) }
  }

  func poll(_ bus: Bus, now: Uptime) -> PollOutcome {
    var (tooLong, refused): (UInt64, UInt64) = (0, 0)
    card.poll(now: now) { frame in if !send(frame) { refused += 1 } }
    // Not without end: the other direction has its turn.
    var budget = card.isConnected ? 64 : 0
    while budget > 0, !card.waitsForSlots {
      let count = receive()
      guard count > 0 else { break }
      do throws(NetFrontError) { try card.send(buffer.span.extracting(first: count)) } catch { tooLong += 1 }
      budget -= 1
    }
    card.push()
    shown.contents.withLock { shown in
      shown.tooLong += tooLong
      shown.refused += refused
      shown.statistics = card.statistics
      if card.isConnected, shown.isConnected { return }
      shown.report = bus.report
      (shown.isConnected, shown.mtu, shown.negotiation) = (card.isConnected, card.mtu ?? 0, card.negotiation)
    }
    if budget == 0, card.isConnected, !card.waitsForSlots { return .more }
    return card.nextPoll.map(PollOutcome.idleUntil) ?? .idle
  }

  /// A TAP device takes a frame in one piece.
  private func send(_ frame: borrowing NetFrontFrame) -> Bool {
    if frame.fragmentCount == 1 { return tap.send(frame[0]) }
    var bytes = frame.copied()
    return unsafe bytes.withUnsafeMutableBytes { bytes in
      // Safe: the bytes outlive the call.
      unsafe tap.send(SharedBytes(baseAddress: bytes.baseAddress!, count: bytes.count))
    }
  }

  private func receive() -> Int {
    unsafe buffer.withUnsafeMutableBytes { bytes in
      // Safe: the bytes outlive the call.
      unsafe tap.receive(into: SharedBytes(baseAddress: bytes.baseAddress!, count: bytes.count))
    }
  }

  func ended() {}
}
