import NetBack
import NetFront

/// Carries frames between a card of ours and a TAP device of this machine's.
///
/// The TAP device has the card's MTU, and its link is down while the card's is. What the machine may leave unfinished is what
/// the card's backend takes so, and what the backend leaves unfinished the machine finishes.
public final class TapCable: CardEnd {
  private let tap: TapInterface
  private var buffer = [UInt8](repeating: 0, count: NetIf.maxFrameByteCount + 1)
  private var hasCarrier: Bool?
  /// What the machine has been told that it may leave unfinished.
  private var offloads: NetOffloads = []
  /// Frames from the TAP device that were longer than the card's MTU allows.
  public private(set) var tooLongCount: UInt64 = 0
  /// Frames from the card that the TAP device did not take: it was down, full, or gone.
  public private(set) var refusedCount: UInt64 = 0
  public var workCount: UInt64 { tooLongCount &+ refusedCount }
  /// Packets that went through in one piece, to be cut into segments by somebody else.
  public private(set) var segmentedCounts = (fromCard: UInt64(0), toCard: UInt64(0))

  public init(_ tap: TapInterface) {
    self.tap = tap
    // One that does not do as told says so when the card connects.
    try? setCarrier(false)
  }

  public func connected(_ card: NetFrontDevice) throws(CardEndError) {
    do throws(TapError) {
      if let mtu = card.mtu { try tap.setMTU(mtu) }
      try follow(card)
    } catch { throw CardEndError("\(error)") }
  }

  // A removed interface has no link to take down, and what becomes of it is said at the next poll.
  public func disconnected() { try? setCarrier(false) }

  private func setCarrier(_ isUp: Bool) throws(TapError) {
    guard hasCarrier != isUp else { return }
    try tap.setCarrier(isUp)
    hasCarrier = isUp
  }

  /// Does as the card's link, and what its backend takes, say.
  private func follow(_ card: NetFrontDevice) throws(TapError) {
    if offloads != card.offloads {
      try tap.setOffloads(card.offloads)
      offloads = card.offloads
    }
    try setCarrier(card.hasCarrier)
  }

  public func take(_ frame: borrowing NetFrontFrame, _ card: NetFrontDevice, now: Uptime) {
    if !send(frame) {
      refusedCount += 1
    } else if frame.metadata.segmentation != nil {
      segmentedCounts.fromCard += 1
    }
  }

  /// A frame in one piece with nothing left to do goes from the page that it has come in; every other one is copied first,
  /// since its headers are looked at.
  private func send(_ frame: borrowing NetFrontFrame) -> Bool {
    let metadata = frame.metadata
    if frame.fragmentCount == 1, metadata.checksum != .blank, metadata.segmentation == nil {
      return tap.send(frame[0], metadata)
    }
    guard frame.byteCount <= buffer.count else { return false }
    var bytes = buffer.mutableSpan
    frame.copy(to: &bytes)
    return unsafe buffer.withUnsafeMutableBytes { bytes in
      // Safe: the bytes outlive the call.
      unsafe tap.send(SharedBytes(baseAddress: bytes.baseAddress!, count: frame.byteCount), metadata)
    }
  }

  public func poll(_ card: NetFrontDevice, now: Uptime) throws(CardEndError) -> PollOutcome {
    // Before the machine gives what the backend of a new connection may not take.
    do throws(TapError) { if !tap.isGone { try follow(card) } } catch { throw CardEndError("\(error)") }
    // Not without end: the other direction has its turn.
    var budget = 64
    while budget > 0, !card.waitsForSlots {
      var metadata = NetPacketMetadata()
      let count = tap.receive(into: &buffer, &metadata)
      guard count > 0 else { break }
      do throws(NetFrontError) {
        try card.send(buffer.span.extracting(first: count), metadata)
        if metadata.segmentation != nil { segmentedCounts.toCard += 1 }
      } catch { tooLongCount += 1 }
      budget -= 1
    }
    guard !tap.isGone else { throw CardEndError("the TAP device \(tap.name) was removed") }
    return budget == 0 && !card.waitsForSlots ? .more : .idle
  }

  public func appendDescriptors(to list: inout [CInt], _ card: NetFrontDevice) {
    // While the ring is full, what the TAP device has is no news; one that is gone never has any.
    if !card.waitsForSlots, !tap.isGone { list.append(tap.descriptor) }
  }

  public var summary: String {
    "\(tap.name): \(tooLongCount) frames were longer than the card's MTU allows, \(refusedCount) it did not take; "
      + "\(segmentedCounts.fromCard) and \(segmentedCounts.toCard) went through to be cut into segments"
  }
}

extension TapInterface {
  /// Receives one frame. Never waits.
  ///
  /// - Parameters:
  ///   - buffer: longer than the longest frame.
  ///   - metadata: what is left to do to it.
  /// - Returns: the frame's length in bytes; zero when there is none.
  public func receive(into buffer: inout [UInt8], _ metadata: inout NetPacketMetadata) -> Int {
    precondition(!buffer.isEmpty, "no room for a frame")
    return unsafe buffer.withUnsafeMutableBytes { bytes in
      // Safe: the bytes outlive the call, and there are some.
      unsafe receive(into: SharedBytes(baseAddress: bytes.baseAddress!, count: bytes.count), &metadata)
    }
  }
}
