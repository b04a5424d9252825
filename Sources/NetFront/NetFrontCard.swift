import Logging

/// A network card of ours for async programs: a ``NetFrontDevice`` and its bus on a thread of their own.
///
/// What arrives is there in batches, all that has come since the last one. A program that is slower than its network loses
/// frames, as behind any card: at most ``receivedCapacity`` frames wait, and the others count as dropped.
///
/// A batch sent costs one allocation, its continuation, and a batch received three, its continuation, its bytes and where its
/// frames end, however many frames they have; each costs one or two more that the runtime makes to resume its task
/// (Benchmarks, `net-async`).
///
/// When the backend goes away, what was in flight is lost and counted as dropped; transmissions under way wait until it
/// is back. When the last reference goes, the card is closed as by ``close(within:)`` without anybody waiting for it.
public final class NetFrontCard: Sendable {
  /// How many frames, and how many bytes of them, wait to be received.
  public static let receivedCapacity = 1024
  static let receivedByteCapacity = 4 << 20

  private let facade: BusFacade<NetFrontCall, NetFrontFacts>
  private let inbox: NetFrontInbox

  /// Connects to the card whose frontend directory this is, such as `/local/domain/1/device/vif/0`.
  ///
  /// - Parameters:
  ///   - features: what is used where the backend offers it.
  ///   - announcements: what the card sends each time that it has connected.
  /// - Throws: ``NetFrontError/notConnectedInTime(_:)``, which says what was waited for, when the backend has not connected
  ///   after `timeout`; a ``DeviceError`` when there is no store to look at; `CancellationError`.
  public static func connect(
    to frontendPath: String, on platform: any Platform, features: NetFeatures = NetFeatures(),
    announcing announcements: [NetFrontAnnouncement] = [], timeout: Duration = .seconds(10),
    log: Logger = Logger(label: "netfront")
  ) async throws -> NetFrontCard {
    let inbox = NetFrontInbox()
    let facade = try await BusFacade<NetFrontCall, NetFrontFacts>.connect(
      on: platform, log: log, name: "netfront", facts: NetFrontFacts(), timeout: timeout
    ) { (bus, mailbox) throws(XenstoreError) in
      let device = NetFrontDevice(features: features)
      device.announcements = announcements
      try bus.register(device, at: frontendPath)
      return NetFrontCalls(device, mailbox, inbox)
    }
    return NetFrontCard(facade, inbox)
  }

  private init(_ facade: BusFacade<NetFrontCall, NetFrontFacts>, _ inbox: NetFrontInbox) {
    (self.facade, self.inbox) = (facade, inbox)
  }

  /// The card's own address.
  public var macAddress: MACAddress? { facade.facts.macAddress }
  /// The largest payload of a frame, at the last connection.
  public var mtu: Int { facade.facts.mtu }
  /// Whether a backend is connected, and says that the link is up.
  public var hasCarrier: Bool { facade.facts.hasCarrier }
  /// What the two ends agreed on, at the last connection.
  public var negotiation: Negotiation { facade.facts.negotiation }
  /// What the card has done; frames that arrived and that nobody received in time count as dropped.
  public var statistics: NetStatistics {
    var statistics = facade.facts.statistics
    statistics.rx.drops &+= inbox.lostCount
    return statistics
  }

  /// The same, each queue for itself; without the frames that nobody received.
  public var queueStatistics: [NetStatistics] { facade.facts.queueStatistics }
  /// What may be sent unfinished now: see ``NetFrontDevice/offloads``.
  public var offloads: NetOffloads { facade.facts.offloads }

  /// What arrives, as long as the card is open and its device there. One consumer at a time: two of them share the batches.
  public var received: Received { Received(inbox: inbox) }

  public struct Received: AsyncSequence, Sendable {
    fileprivate let inbox: NetFrontInbox

    public func makeAsyncIterator() -> Iterator { Iterator(inbox: inbox) }

    public struct Iterator: AsyncIteratorProtocol {
      fileprivate let inbox: NetFrontInbox

      /// All frames that have come since the last batch, at least one; nil when the card is closed or the task cancelled, and while
      /// there is no device, because the toolstack has removed it. A backend that has closed it is waited for, since another one
      /// may come, and so is a device after a suspension.
      public mutating func next() async -> NetFrameBatch? { await inbox.receive() }

      public mutating func next(isolation actor: isolated (any Actor)?) async -> NetFrameBatch? {
        await inbox.receive()
      }
    }
  }

  /// Asks something of the card's device besides frames: to join a group, to leave room before frames, to hash.
  ///
  /// - Parameter setting: is called once, on the card's thread, at once. It makes settings and nothing else: it neither polls
  ///   the device nor keeps it.
  /// - Throws: what `setting` throws; ``NetFrontError/notConnected`` when the card is closed.
  public func configure(_ setting: @escaping @Sendable (NetFrontDevice) throws(NetFrontError) -> Void) async throws {
    _ = try await facade.call { id, continuation in
      NetFrontCall(id: id, batch: NetFrameBatch(), continuation: continuation, setting: setting)
    }
  }

  /// Sends the frames in their order, each with what its batch says of it (``NetFrontDevice/send(_:_:)``), and returns when the
  /// last one is on its way: as many are as the ring has slots, and the others wait for their turn, behind those of earlier calls.
  ///
  /// - Returns: the frames that cannot be sent, by their places; all others are on their way. A frame is looked at in its turn, by
  ///   the limits that there are then.
  /// - Throws: ``NetFrontError/notConnected`` when the card is closed or its device removed, and `CancellationError`: of the frames,
  ///   those up to some place have then been sent.
  public func transmit(_ batch: NetFrameBatch) async throws -> [NetFrontRefusal] {
    if batch.isEmpty { return [] }
    return try await facade.call { id, continuation in
      NetFrontCall(id: id, batch: batch, continuation: continuation)
    }
  }

  /// Has the card stand still because its domain is about to be suspended, until ``resume()``: when this returns, nothing looks at
  /// its device or its rings.
  public func suspend() async { await facade.pause() }

  /// The domain was suspended and has been resumed, here or elsewhere: the card gives up what it had shared, which is gone, and
  /// connects again as soon as its device's directory is there. What was in flight is lost and counted as dropped; transmissions under way wait.
  ///
  /// Without ``suspend()`` before, it may be too late for what was under way: see ``BusThread/resume()``. XenLoopback's domains
  /// can be suspended (`LoopbackDomain.suspendAndResume()`); on a real Xen nothing announces that to userspace.
  public func resume() { facade.resume() }

  /// Closes the card from our side, as the protocol asks. Transmissions that wait for their turn fail with
  /// ``NetFrontError/notConnected``; what is in flight ends first. When this returns, nothing is shared and the thread is
  /// over.
  ///
  /// - Parameter timeout: how long the backend may take to answer and to let go; after that everything is taken back.
  public func close(within timeout: Duration = .seconds(10)) async {
    inbox.close()
    await facade.close(within: timeout)
  }
}
