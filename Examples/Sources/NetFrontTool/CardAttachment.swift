import Logging
import NetFront
import Synchronization

/// A network card of ours, connected to an end of its own on a thread of its own until it is closed.
public final class CardAttachment: Sendable {
  /// Why there is nothing more to do.
  public enum Outcome: Hashable, Sendable {
    /// The end has done what it was for.
    case done
    /// The toolstack has removed the card.
    case removed
    case failed(String)
  }

  private let shown: CardShown
  private let thread: BusThread

  /// Takes up the card whose frontend directory this is, now or when it appears.
  ///
  /// - Parameters:
  ///   - hashing: what the backend is asked to choose queues by; nil leaves it to the backend.
  ///   - timeout: how long the first connection may take, in seconds; nil for ever.
  ///   - announcements: what the card sends each time that it has connected.
  ///   - say: a line for the user, from the attachment's thread.
  public init(
    _ path: String, on platform: any Platform, features: NetFeatures = NetFeatures(),
    hashing: NetHashConfiguration? = nil,
    announcing announcements: [NetFrontAnnouncement] = [], timeout: Double? = nil, log: Logger,
    to end: consuming sending any CardEnd, say: @escaping @Sendable (String) -> Void
  ) throws {
    let shown = try CardShown()
    self.shown = shown
    let deadline = timeout.map { Uptime.now + UInt64($0 * 1e9) }
    let handedOver = Mutex<(any CardEnd)?>(end)
    thread = try BusThread(on: platform, log: log, name: "netfront") { (bus) throws(XenstoreError) in
      guard let end = handedOver.withLock({ $0.take() }) else { return nil }
      let card = NetFrontDevice(features: features)
      card.announcements = announcements
      if let hashing { card.setHashing(hashing) }
      try bus.register(card, at: path)
      return CardClient(card, at: path, end, shown, deadline: deadline, say: say)
    }
  }

  /// Readable when there is an ``outcome``.
  public var descriptor: CInt { shown.descriptor }
  /// Nil while the card is to be used.
  public var outcome: Outcome? { shown.outcome }

  /// Closes the card as the protocol asks, and ends the thread.
  ///
  /// - Parameter timeout: how long the backend may take to let go, in seconds; after that everything is taken back.
  /// - Returns: whether it has.
  public func close(within timeout: Double = 10) -> Bool {
    let deadline = Uptime.now + UInt64(timeout * 1e9)
    shown.beginEnd()
    thread.end(within: timeout)
    thread.join()
    // Before the time is up it ends only when nothing is held any more.
    return Uptime.now < deadline
  }

  /// Once it is closed: a line about what has crossed, and one about what the end has done.
  public var summary: [String] { shown.summary }
}
