/// One event channel on a handle of its own, as a queue uses it: look for an event, work, let the next one in.
public struct EventChannel: Sendable {
  private let handle: any EventChannels
  public let port: EventChannelPort
  /// The port is masked, because its event has been taken and the work is not finished.
  private var isMasked = false
  private var spurious = SpuriousEvents()

  public init(_ port: EventChannelPort, on handle: any EventChannels) {
    self.port = port
    self.handle = handle
  }

  /// Readable when an event has come.
  public var descriptor: CInt { handle.descriptor }

  /// Wakes the other end.
  public func notify() { handle.notify(port) }

  /// Takes the event, if one has come. No other comes before ``rearm()``.
  public mutating func take() {
    // One port, and masked it has no second event: asking again would be a system call for nothing.
    if !isMasked, handle.nextPending() != nil { isMasked = true }
  }

  /// There was work in a turn after which the channel stays masked, since more is left: what was sent for nothing before is
  /// forgiven. Whoever sends a whole turn's work with each event would else count as sending for nothing, by the last turn.
  public mutating func noteWork() { spurious = SpuriousEvents() }

  /// The work that the event asked for is done: lets the next one in.
  public mutating func rearm() {
    guard isMasked else { return }
    isMasked = false
    handle.unmask(port)
  }

  /// The same, but who sends many events in a row that ask for nothing is not listened to for a while (XSA-332, XSA-391):
  /// then the channel stays masked, and this is to be called again at the instant that it gives.
  ///
  /// - Parameters:
  ///   - now: when the work began.
  ///   - worked: whether there was any.
  /// - Returns: nil when the next event is let in.
  public mutating func rearm(at now: Uptime, worked: Bool) -> Uptime? {
    // What was sent for nothing before is forgiven then.
    if worked { spurious = SpuriousEvents() } else if isMasked, let instant = spurious.hold(now) { return instant }
    rearm()
    return nil
  }
}

/// The event channels of a queue of two rings: one for each, or one that serves both; on one handle, as a queue needs.
///
/// Each is masked from its event to the end of the work, and by itself: an event of one ring does not hold back the other
/// ring's.
public struct EventChannelPair: Sendable {
  private let handle: any EventChannels
  /// Of the ring for what the frontend sends.
  public let tx: EventChannelPort
  /// Of the ring for what it receives; the same as ``tx`` when one channel serves both.
  public let rx: EventChannelPort
  private var isTxMasked = false
  private var isRxMasked = false
  private var spurious = SpuriousEvents()

  /// - Parameters:
  ///   - rx: nil when `tx` serves both.
  ///   - handle: has both of them, and nobody else's.
  public init(tx: EventChannelPort, rx: EventChannelPort?, on handle: any EventChannels) {
    self.tx = tx
    self.rx = rx ?? tx
    self.handle = handle
  }

  /// Whether each ring has a channel of its own.
  public var isSplit: Bool { tx != rx }

  /// Readable when an event of either has come.
  public var descriptor: CInt { handle.descriptor }

  /// Wakes the other end for these rings, once when one channel serves both.
  public func notify(tx notifiesTx: Bool, rx notifiesRx: Bool) {
    if notifiesTx || (notifiesRx && !isSplit) { handle.notify(tx) }
    if notifiesRx, isSplit { handle.notify(rx) }
  }

  /// Takes the events that have come. No other comes from a channel whose event was taken before ``rearm()``.
  public mutating func take() {
    // When both are masked no other event can come, and asking would be a system call for nothing.
    while !isTxMasked || (isSplit && !isRxMasked), let port = handle.nextPending() {
      if port == tx { isTxMasked = true } else if port == rx { isRxMasked = true }
    }
  }

  /// The same as for one (``EventChannel/noteWork()``).
  public mutating func noteWork() { spurious = SpuriousEvents() }

  /// The same for all of them as for one (``EventChannel/rearm(at:worked:)``): who has either channel sends for nothing.
  public mutating func rearm(at now: Uptime, worked: Bool) -> Uptime? {
    if worked {
      spurious = SpuriousEvents()
    } else if isTxMasked || isRxMasked, let instant = spurious.hold(now) {
      return instant
    }
    rearm()
    return nil
  }

  /// The work that the events asked for is done: lets the next ones in.
  public mutating func rearm() {
    if isTxMasked {
      isTxMasked = false
      handle.unmask(tx)
    }
    if isRxMasked {
      isRxMasked = false
      handle.unmask(rx)
    }
  }
}
