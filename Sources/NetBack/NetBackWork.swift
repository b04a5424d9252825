import NetIf

/// Where a queue's frames for the guest come from, besides what its end answers with.
enum NetBackSource {
  /// It asks an end that is its own.
  case own
  /// It asks the end that all queues share, and hands their frames over to the others.
  case shared
  /// It gets them from the queue that does.
  case handedOver
}

/// The two directions of a queue and its event channels, in one place so that a poll makes one access to it.
struct NetBackWork: ~Copyable {
  private var transmit: NetBackTransmit
  private var receive: NetBackReceive
  private(set) var channels: EventChannelPair
  let end: any NetworkEnd
  private let source: NetBackSource
  /// Where other queues hand over what belongs to this one; nil when none does.
  private let mailbox: NetBackMailbox?
  /// Of the queue that asks a shared end, and of each where there is a control ring.
  private var spread: NetBackSpread?
  /// What the guest has been told of the link.
  private var toldCarrier: Bool
  private let callForAttention: @Sendable () -> Void

  /// - Parameters:
  ///   - mailbox: for the source that is handed over, and where there is a control ring.
  ///   - spread: for the source that is shared, and where there is a control ring.
  ///   - toldCarrier: what was written of the link before.
  ///   - callForAttention: has the bus write it anew.
  init(
    transmit: consuming NetBackTransmit, receive: consuming NetBackReceive, channels: EventChannelPair,
    end: any NetworkEnd, source: NetBackSource, mailbox: NetBackMailbox?, spread: consuming NetBackSpread?,
    toldCarrier: Bool,
    callForAttention: @escaping @Sendable () -> Void
  ) {
    self.transmit = transmit
    self.receive = receive
    self.channels = channels
    self.end = end
    self.source = source
    self.mailbox = mailbox
    self.spread = spread
    self.toldCarrier = toldCarrier
    self.callForAttention = callForAttention
  }

  mutating func poll(now: Uptime, budget: Int, looks: Bool) throws(DeviceError) -> PollOutcome {
    channels.take()
    takeHandedOver()
    receive.waiting.now = now
    let limit = min(budget, NetBackTransmit.batchCount)
    let taken = try transmit.take(limit: limit, now: now)
    exchange(now)
    followCarrier()
    let (wasFull, waitingCount) = (!receive.waiting.hasRoom, receive.waiting.count)
    let given = try receive.give(limit: budget)
    receive.dropExpired(now: now)
    channels.notify(tx: transmit.pushAndCheckNotify(), rx: receive.pushAndCheckNotify())
    if taken > 0 || given > 0 { channels.noteWork() }
    // An end that found no room may have more.
    if taken == limit || given >= budget || (wasFull && receive.waiting.count < waitingCount) { return .more }
    if looks { return hasWork ? .more : .idle }
    // Both, since each asks for its own events.
    let (hasMoreToTake, hasMoreToGive) = (try transmit.hasMore(), try receive.hasMore())
    if hasMoreToTake || hasMoreToGive { return .more }
    let credit = transmit.creditComes
    // Who waits for credit has been heard.
    let held = channels.rearm(at: now, worked: taken > 0 || given > 0 || credit != nil)
    var instant: Uptime?
    if let credit { instant = credit }
    if let look = receive.nextLook(after: now) { instant = min(look, instant ?? look) }
    if let held { instant = min(held, instant ?? held) }
    return instant.map(PollOutcome.idleUntil) ?? .idle
  }

  /// Whether the rings hold something to do.
  var hasWork: Bool { transmit.hasWork || receive.hasWork }

  /// Before anything else is put there: the two lines change places, and none of the frames is copied.
  private mutating func takeHandedOver() {
    if let mailbox, receive.waiting.isEmpty { mailbox.take(&receive.waiting) }
  }

  /// The end gets what the guest has sent, and is asked for what it has for the guest.
  private mutating func exchange(_ now: Uptime) {
    let steers = spread?.refresh() ?? false
    if steers {
      spread?.deliver(&transmit, to: end, now: now)
    } else {
      transmit.deliver(to: end, answering: &receive.waiting)
    }
    switch source {
    case .own where isAskedToWait: break
    case .own where !steers: end.give(to: &receive.waiting)
    case .own, .shared: spread?.ask(end, now: now)
    case .handedOver: break
    }
    spread?.distribute(into: &receive.waiting, now: now)
  }

  /// Whether other queues' frames are there for this one: they are taken when none waits any more, and so before more of its
  /// own end's.
  private var isAskedToWait: Bool { mailbox?.hasFrames ?? false }

  private mutating func followCarrier() {
    let hasCarrier = end.hasCarrier
    guard hasCarrier != toldCarrier else { return }
    toldCarrier = hasCarrier
    callForAttention()
  }

  /// Whether what a descriptor announces would be taken now.
  func waits(for descriptor: CInt) -> Bool {
    if descriptor == channels.descriptor { return true }
    if let mailbox, descriptor == mailbox.descriptor { return receive.waiting.isEmpty }
    guard end.wakeDescriptor == descriptor else { return false }
    switch source {
    case .own: return receive.waiting.hasRoom && !isAskedToWait
    case .shared: return true
    case .handedOver: return false
    }
  }

  /// What announces something to do.
  var descriptors: [CInt] {
    var descriptors = [channels.descriptor]
    if source != .handedOver, let descriptor = end.wakeDescriptor { descriptors.append(descriptor) }
    if let mailbox { descriptors.append(mailbox.descriptor) }
    return descriptors
  }

  var statistics: NetStatistics {
    mutating get {
      var statistics = NetStatistics()
      statistics.tx = transmit.counts
      statistics.rx = receive.counts
      statistics.rx.drops &+= (spread?.dropCount ?? 0) &+ (mailbox?.dropCount ?? 0)
      statistics.txChecksumsFilled = transmit.checksumsFilled
      statistics.txSegmented = transmit.segmentedCount
      statistics.txGSOChecksumFixups = transmit.checksumFixups
      statistics.rxChecksumsFilled = receive.checksumsFilled
      statistics.rxSegmented = receive.segmentedCount
      statistics.rxFiltered = receive.filteredCount
      statistics.txRing = transmit.ringStatistics
      statistics.rxRing = receive.ringStatistics
      return statistics
    }
  }

  var ringDump: String { "tx \(transmit.ringDump); rx \(receive.ringDump)" }
}
