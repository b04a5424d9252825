import NetFront

/// Puts an ``IPv4Host`` behind a card, and has it ping another host first where that is wanted.
public final class HostEnd: CardEnd {
  private let network: IPv4Network
  private let say: (String) -> Void
  private var host: IPv4Host?
  private var ping: Ping?
  /// Whether the end is to stop when the pings are through.
  private let endsWithPing: Bool
  private var hasSaidSummary = false

  /// - Parameters:
  ///   - ping: what to ping first; an end that stops with it says `.stopped` when it is complete.
  ///   - say: a line for the user.
  public init(_ network: IPv4Network, ping: Ping? = nil, endsWithPing: Bool = false, say: @escaping (String) -> Void) {
    (self.network, self.ping, self.endsWithPing, self.say) = (network, ping, endsWithPing, say)
  }

  public var counts: IPv4Host.Counts { host?.counts ?? IPv4Host.Counts() }

  public func connected(_ card: NetFrontDevice) throws(CardEndError) {
    guard let mac = card.macAddress, let mtu = card.mtu else { return }
    // The counts go on, unless the toolstack has given the card another address.
    if host?.mac != mac { host = IPv4Host(mac: mac, network: network) }
    guard let ping, !ping.isDone else { return }
    guard ping.plan.byteCount + IPv4Host.pingOverhead <= mtu else {
      throw CardEndError(
        "a ping of \(ping.plan.byteCount) bytes does not fit into the card's MTU of \(mtu): "
          + "it takes at most \(mtu - IPv4Host.pingOverhead)")
    }
    say(ping.heading)
  }

  public func take(_ frame: borrowing NetFrontFrame, _ card: NetFrontDevice, now: Uptime) {
    switch host?.take(frame.finished()) {
    case .answer(let answer)?:
      do throws(NetFrontError) { try card.send(answer.span) } catch {
        // What finds no room is lost, as on any network; the card counts it.
        if error != .busy { host?.answersWereRefused(1) }
      }
    case .resolved(let address, let mac)?: ping?.resolved(address, mac)
    case .echoReply(let reply)?: if let line = ping?.take(reply, now: now) { say(line) }
    case .nothing?, nil: break
    }
  }

  public func poll(_ card: NetFrontDevice, now: Uptime) throws(CardEndError) -> PollOutcome {
    guard let host, ping != nil else { return .idle }
    // As many as the ring has room for; no more than a ring at a time, since the answers have their turn.
    var budget = 64
    while budget > 0, !card.waitsForSlots {
      budget -= 1
      switch ping?.next(host, now: now) {
      case .send(let frame)?: try? card.send(frame.span)
      case .wait(let until)?: return .idleUntil(until)
      case .done?: return try end()
      case nil: return .idle
      }
    }
    return budget == 0 ? .more : .idle
  }

  private func end() throws(CardEndError) -> PollOutcome {
    guard let ping else { return .idle }
    if !hasSaidSummary { for line in ping.summary { say(line) } }
    hasSaidSummary = true
    guard ping.isComplete else { throw CardEndError("not every ping of \(ping.plan.target) was answered") }
    return endsWithPing ? .stopped : .idle
  }

  public var summary: String { "\(network): \(counts)" }
}

extension NetFrontFrame {
  /// A copy of the bytes, with its checksum where it was left blank.
  public borrowing func finished() -> [UInt8] {
    var bytes = copied()
    bytes.finish(metadata)
    return bytes
  }
}

extension [UInt8] {
  /// Fills in the checksum of a frame that came with a blank one; of one that has no place for it, nobody needs it.
  public mutating func finish(_ metadata: NetPacketMetadata) {
    guard metadata.checksum == .blank, let headers = try? NetHeaders(parsing: span) else { return }
    var frame = mutableSpan
    headers.fillChecksum(in: &frame)
  }
}
