import NetIf

/// The two directions of a queue and its event channels, in one place so that a poll makes one access to it.
struct NetBackWork: ~Copyable {
  private var transmit: NetBackTransmit
  private var receive: NetBackReceive
  private(set) var channels: EventChannelPair
  let end: any NetworkEnd
  /// What the guest has been told of the link.
  private var toldCarrier: Bool
  private let callForAttention: @Sendable () -> Void

  /// - Parameters:
  ///   - toldCarrier: what was written of the link before.
  ///   - callForAttention: has the bus write it anew.
  init(
    transmit: consuming NetBackTransmit, receive: consuming NetBackReceive, channels: EventChannelPair,
    end: any NetworkEnd, toldCarrier: Bool, callForAttention: @escaping @Sendable () -> Void
  ) {
    self.transmit = transmit
    self.receive = receive
    self.channels = channels
    self.end = end
    self.toldCarrier = toldCarrier
    self.callForAttention = callForAttention
  }

  mutating func poll(now: Uptime, budget: Int) throws(DeviceError) -> PollOutcome {
    channels.take()
    receive.waiting.now = now
    let limit = min(budget, NetBackTransmit.batchCount)
    let taken = try transmit.take(limit: limit)
    transmit.deliver(to: end, answering: &receive.waiting)
    end.give(to: &receive.waiting)
    followCarrier()
    let wasFull = !hasRoom
    let given = try receive.give(limit: budget)
    let dropped = receive.dropExpired(now: now)
    channels.notify(tx: transmit.pushAndCheckNotify(), rx: receive.pushAndCheckNotify())
    // An end that found no room may have more.
    if taken == limit || given >= budget || (wasFull && (given > 0 || dropped)) { return .more }
    // Both, since each asks for its own events.
    let (hasMoreToTake, hasMoreToGive) = (try transmit.hasMore(), try receive.hasMore())
    if hasMoreToTake || hasMoreToGive { return .more }
    channels.rearm()
    return receive.nextLook(after: now).map(PollOutcome.idleUntil) ?? .idle
  }

  private mutating func followCarrier() {
    let hasCarrier = end.hasCarrier
    guard hasCarrier != toldCarrier else { return }
    toldCarrier = hasCarrier
    callForAttention()
  }

  /// Whether more frames from the end could wait here.
  var hasRoom: Bool { receive.waiting.hasRoom }

  var statistics: NetStatistics {
    var statistics = NetStatistics()
    statistics.tx = transmit.counts
    statistics.rx = receive.counts
    statistics.txChecksumsFilled = transmit.checksumsFilled
    statistics.txRing = transmit.ringStatistics
    statistics.rxRing = receive.ringStatistics
    return statistics
  }

  var ringDump: String { "tx \(transmit.ringDump); rx \(receive.ringDump)" }
}
