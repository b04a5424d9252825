import NetBack
import NetFront

/// Carries frames between a card of ours and a TAP device of this machine's.
///
/// The TAP device has the card's MTU, and its link is down while the card's is.
public final class TapCable: CardEnd {
  private let tap: TapInterface
  private var buffer = [UInt8](repeating: 0, count: 1 << 16)
  private var hasCarrier: Bool?
  /// Frames from the TAP device that were longer than the card's MTU allows.
  public private(set) var tooLongCount: UInt64 = 0
  /// Frames from the card that the TAP device did not take: it was down, full, or gone.
  public private(set) var refusedCount: UInt64 = 0

  public init(_ tap: TapInterface) {
    self.tap = tap
    // One that does not do as told says so when the card connects.
    try? setCarrier(false)
  }

  public func connected(_ card: NetFrontDevice) throws(CardEndError) {
    do throws(TapError) {
      if let mtu = card.mtu { try tap.setMTU(mtu) }
      try setCarrier(card.hasCarrier)
    } catch { throw CardEndError("\(error)") }
  }

  // A removed interface has no link to take down, and what becomes of it is said at the next poll.
  public func disconnected() { try? setCarrier(false) }

  private func setCarrier(_ isUp: Bool) throws(TapError) {
    guard hasCarrier != isUp else { return }
    try tap.setCarrier(isUp)
    hasCarrier = isUp
  }

  public func take(_ frame: borrowing NetFrontFrame, _ card: NetFrontDevice, now: Uptime) {
    if !tap.send(frame) { refusedCount += 1 }
  }

  public func poll(_ card: NetFrontDevice, now: Uptime) throws(CardEndError) -> PollOutcome {
    // Not without end: the other direction has its turn.
    var budget = 64
    while budget > 0, !card.waitsForSlots {
      let count = tap.receive(into: &buffer)
      guard count > 0 else { break }
      do throws(NetFrontError) { try card.send(buffer.span.extracting(first: count)) } catch { tooLongCount += 1 }
      budget -= 1
    }
    guard !tap.isGone else { throw CardEndError("the TAP device \(tap.name) was removed") }
    do throws(TapError) { try setCarrier(card.hasCarrier) } catch { throw CardEndError("\(error)") }
    return budget == 0 && !card.waitsForSlots ? .more : .idle
  }

  public func appendDescriptors(to list: inout [CInt], _ card: NetFrontDevice) {
    // While the ring is full, what the TAP device has is no news; one that is gone never has any.
    if !card.waitsForSlots, !tap.isGone { list.append(tap.descriptor) }
  }

  public var summary: String {
    "\(tap.name): \(tooLongCount) frames were longer than the card's MTU allows, \(refusedCount) it did not take"
  }
}

extension TapInterface {
  /// Sends a frame of a card's, which a TAP device takes in one piece. Never waits.
  ///
  /// - Returns: false when the interface did not take it.
  public func send(_ frame: borrowing NetFrontFrame) -> Bool {
    if frame.fragmentCount == 1 { return send(frame[0]) }
    var bytes = frame.copied()
    return unsafe bytes.withUnsafeMutableBytes { bytes in
      // Safe: the bytes outlive the call.
      unsafe send(SharedBytes(baseAddress: bytes.baseAddress!, count: bytes.count))
    }
  }

  /// Receives one frame. Never waits.
  ///
  /// - Parameter buffer: longer than the longest frame.
  /// - Returns: the frame's length in bytes; zero when there is none.
  public func receive(into buffer: inout [UInt8]) -> Int {
    precondition(!buffer.isEmpty, "no room for a frame")
    return unsafe buffer.withUnsafeMutableBytes { bytes in
      // Safe: the bytes outlive the call, and there are some.
      unsafe receive(into: SharedBytes(baseAddress: bytes.baseAddress!, count: bytes.count))
    }
  }
}
