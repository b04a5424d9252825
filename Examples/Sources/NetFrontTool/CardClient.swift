import NetFront
import Synchronization

/// A card of ours and its end, on the thread of the card's bus.
final class CardClient: BusThreadClient {
  private let card: NetFrontDevice
  private let end: any CardEnd
  private let shown: CardShown
  private var wasConnected = false
  private var hasBeenConnected = false
  private var said: [String] = []
  private var saidHashing = NetFrontHashing.unset
  private var hasBeenSeen = false
  /// When the card must have connected for the first time; nil when it may take for ever.
  private let deadline: Uptime?
  /// When the card is closed whatever is in flight; nil before its end.
  private var closesAt: Uptime?

  private let path: String
  private let say: (String) -> Void

  /// - Parameters:
  ///   - path: the card's frontend directory.
  ///   - deadline: when the card must have connected for the first time; nil when it may take for ever.
  ///   - say: a line for the user.
  init(
    _ card: NetFrontDevice, at path: String, _ end: any CardEnd, _ shown: CardShown, deadline: Uptime?,
    say: @escaping (String) -> Void
  ) {
    (self.card, self.path, self.end, self.shown, self.deadline, self.say) = (card, path, end, shown, deadline, say)
  }

  /// What was sent before the end is answered first, unless that takes a second: behind an interface that is down nothing is.
  var isIdle: Bool {
    guard let closesAt else { return !shown.isEnding }
    return !card.isConnected || card.inFlightCount == 0 || Uptime.now >= closesAt
  }

  var hasWork: Bool { card.hasWork }
  var workCount: UInt64? { card.workCount &+ end.workCount }

  func appendDescriptors(to list: inout [CInt]) {
    guard let descriptor = card.descriptor else { return }
    list.append(descriptor)
    end.appendDescriptors(to: &list, card)
  }

  func poll(_ bus: Bus, now: Uptime, looks: Bool) -> PollOutcome {
    if closesAt == nil, shown.isEnding { closesAt = now + 1_000_000_000 }
    do throws(CardEndError) { return try work(bus, now: now, looks: looks) } catch {
      shown.show(.failed(error.description))
      return .idle
    }
  }

  private func work(_ bus: Bus, now: Uptime, looks: Bool) throws(CardEndError) -> PollOutcome {
    // What waits in the ring is taken before an end is told anything else.
    if card.isConnected != wasConnected { try noteChange(now) }
    card.poll(now: now, looks: looks) { end.take($0, card, now: now) }
    if card.hashing != saidHashing { noteHashing() }
    guard card.isConnected else {
      if wasConnected { try noteChange(now) }
      return try wait(bus, now: now)
    }
    defer { card.push() }
    if let closesAt { return now < closesAt ? .idleUntil(closesAt) : .idle }
    switch try end.poll(card, now: now) {
    case .stopped:
      shown.show(.done)
      return .idle
    case .idleUntil(let instant): return .idleUntil(min(instant, card.nextPoll ?? instant))
    case .idle: return card.nextPoll.map(PollOutcome.idleUntil) ?? .idle
    case .more: return .more
    }
  }

  private func noteChange(_ now: Uptime) throws(CardEndError) {
    wasConnected = card.isConnected
    guard wasConnected else { return end.disconnected() }
    said = []
    say(
      "\(hasBeenConnected ? "connected again" : "connected"): card \(card.macAddress.map { "\($0)" } ?? "-"), MTU "
        + "\(card.mtu ?? 0)\n\(card.negotiation)")
    hasBeenConnected = true
    try end.connected(card)
  }

  private func noteHashing() {
    saidHashing = card.hashing
    switch saidHashing {
    case .unset, .pending: break
    case .set: say("the backend hashes flows, and chooses their queues by that")
    case .failed(_, let fault): say("the backend does not hash flows: \(fault)")
    }
  }

  /// Says what the card waits for, each time that this is something else.
  private func wait(_ bus: Bus, now: Uptime) throws(CardEndError) -> PollOutcome {
    let report = bus.report
    if report.isEmpty, hasBeenSeen {
      shown.show(.removed)
      return .idle
    }
    hasBeenSeen = hasBeenSeen || !report.isEmpty
    let lines = report.isEmpty ? ["\(path): is not there yet"] : report
    if lines != said { for line in lines { say(line) } }
    said = lines
    guard let deadline, !hasBeenConnected else { return .idle }
    guard now < deadline else {
      throw CardEndError("the card has not connected in time: \(lines.joined(separator: "; "))")
    }
    return .idleUntil(deadline)
  }

  func ended() {
    if wasConnected { end.disconnected() }
    let queues = card.queueStatistics
    let each = queues.count > 1 ? queues.enumerated().map { "queue \($0): \($1)" } : []
    shown.contents.withLock { $0.summary = ["\(card.statistics)"] + each + [end.summary] }
  }
}

/// What other threads may look at, and how they ask for something.
final class CardShown: Sendable {
  struct Contents {
    var outcome: CardAttachment.Outcome?
    var summary: [String] = []
    var isEnding = false
  }

  let contents = Mutex(Contents())
  private let changed: Wakeup

  init() throws(ResourceError) { changed = try Wakeup() }

  /// Readable when there is an outcome.
  var descriptor: CInt { changed.descriptor }
  /// The first one counts.
  var outcome: CardAttachment.Outcome? { contents.withLock(\.outcome) }
  /// Once the thread has ended: a line about what has crossed, and one about what the end has done.
  var summary: [String] { contents.withLock(\.summary) }

  /// Whether the card is to be closed: its end is asked for nothing more.
  var isEnding: Bool { contents.withLock(\.isEnding) }

  func beginEnd() { contents.withLock { $0.isEnding = true } }

  func show(_ outcome: CardAttachment.Outcome) {
    contents.withLock { if $0.outcome == nil { $0.outcome = outcome } }
    changed.signal()
  }
}
