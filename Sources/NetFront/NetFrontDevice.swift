@_exported import NetIf
@_exported import XenRing

/// A network card of ours that a backend connects to its network (io/netif.h), used from one thread: the one that polls
/// its bus.
///
/// Register it with a bus, poll that until ``isConnected``, then ``send(_:)`` frames, ``push()`` them together, and take
/// what arrives with ``poll(_:)``. When a backend goes away, what was in flight is counted as dropped; the device connects
/// again when the backend comes back.
public final class NetFrontDevice: FrontendDriver, Frontend {
  public let type = "vif"
  public let publishedState = XenbusState.connected
  /// The card's own address; nil before the first connection, as the next two.
  public private(set) var macAddress: MACAddress?
  /// The card's number in its domain, where its directory says one.
  public private(set) var handle: UInt32?
  /// The largest payload of a frame: as the card's directory says, and 1500 at most without scatter-gather.
  public private(set) var mtu: Int?
  /// Whether the backend says that the link is up; it follows that while connected. A frame may be sent either way.
  public private(set) var hasCarrier = false
  /// What the card sends by itself each time that it has connected, so that its network learns where it is now.
  public var announcements: [NetFrontAnnouncement] = []
  /// What the two ends agreed on, at the last connection.
  public private(set) var negotiation = Negotiation()
  private let features: NetFeatures
  private var queue: NetFrontQueue?
  /// Shared with the backend, but not in use: before it has connected, and until it has let go.
  private var idleQueue: NetFrontQueue?
  /// What former connections have counted.
  private var counted = NetStatistics()
  private var device: XenbusDevice?
  /// When to ask again for pages that could not be had; nil when none are missing.
  private var refillsAt: Uptime?
  /// How long to wait before that.
  private static let refillNanoseconds: UInt64 = 100_000_000

  /// - Parameter features: what is used where the backend offers it.
  public init(features: NetFeatures = NetFeatures()) { self.features = features }

  public var isConnected: Bool { queue != nil }

  // MARK: Frames

  /// The longest frame that can be sent, in bytes: the MTU, an Ethernet header and a VLAN tag; zero before the first
  /// connection.
  public var maxFrameByteCount: Int { mtu.map { $0 + Self.frameOverhead } ?? 0 }

  private static var frameOverhead: Int { NetIf.headerByteCount + NetIf.vlanTagByteCount }

  /// Puts a frame, which is copied before this returns, with its header and its checksums but without its trailing one.
  ///
  /// - Throws: ``NetFrontError/busy`` when the ring is full: transmission then waits until ``poll(now:_:)`` has found
  ///   responses. No error leaves anything of the frame behind.
  public func send(_ frame: Span<UInt8>) throws(NetFrontError) {
    guard let queue else { throw .notConnected }
    try check(byteCount: frame.count)
    try queue.put(frame)
  }

  /// Whether a frame may have this length.
  func check(byteCount: Int) throws(NetFrontError) {
    guard byteCount >= NetIf.headerByteCount else { throw .tooShort(byteCount: byteCount) }
    guard byteCount <= maxFrameByteCount else { throw .tooLong(byteCount: byteCount, limit: maxFrameByteCount) }
  }

  /// Shows the backend what was put since the last time, and notifies it unless it is awake.
  public func push() { queue?.push() }

  /// Hands over the frames that have arrived, in the backend's order, and makes their pages free for others. Never waits.
  ///
  /// - Parameters:
  ///   - now: the time, where it is not the machine's: a simulation's.
  ///   - body: given a frame that the backend can still write, so copy it out once and look at the copy. It is valid during
  ///     the call. The call may send and push, but neither poll, nor let the bus poll, nor ask for statistics.
  /// - Returns: how many there were.
  @discardableResult
  public func poll(now: Uptime? = nil, _ body: (_ frame: borrowing NetFrontFrame) -> Void) -> Int {
    guard let queue else { return 0 }
    if let refillsAt {
      let now = now ?? .now
      if now >= refillsAt { refill(queue, now) }
    }
    do throws(DeviceError) { return try queue.poll(body) } catch {
      stopUsing()
      device?.report(error)
      return 0
    }
  }

  /// When to ``poll(now:_:)`` although nothing is readable: pages for what arrives could not all be had, and are asked for
  /// again then. Nil when there is no such reason.
  public var nextPoll: Uptime? { queue == nil ? nil : refillsAt }

  /// Asks for the missing pages, or for half as many, and so on.
  private func refill(_ queue: NetFrontQueue, _ now: Uptime) {
    var count = queue.missingReceivePageCount
    while count > 0, let device {
      // Whatever the reason is, there will be another time.
      if let pages = try? device.share(pageCount: count) {
        queue.add(pages)
        count = 0
      }
      count /= 2
    }
    setRefill(queue, now)
  }

  private func setRefill(_ queue: NetFrontQueue, _ now: Uptime) {
    refillsAt =
      queue.missingReceivePageCount == 0 ? nil : Uptime(nanoseconds: now.nanoseconds + Self.refillNanoseconds)
  }

  /// Whether ``send(_:)`` would find too few slots for a frame of the longest: ask again after a ``poll(now:_:)``.
  public var waitsForSlots: Bool { !hasRoom(for: maxFrameByteCount) }

  /// Whether ``send(_:)`` would find slots for a frame so long; also when nothing is connected, which is another error.
  public func hasRoom(for byteCount: Int) -> Bool { queue?.hasRoom(for: byteCount) ?? true }

  /// Frames put and not yet answered.
  public var inFlightCount: Int { queue?.inFlightCount ?? 0 }

  /// Readable when ``poll(now:_:)`` has something to do; nil when not connected.
  public var descriptor: CInt? { queue?.descriptor }

  /// What the card has sent and received since it was made, over all its connections.
  public var statistics: NetStatistics {
    var sum = counted
    if let queue { sum += queue.statistics }
    return sum
  }

  /// The same, each queue for itself.
  public var queueStatistics: [NetStatistics] { [statistics] }

  // MARK: Frontend

  public func probe(_ device: XenbusDevice) throws(DeviceError) -> any Frontend {
    if let other = self.device, other !== device, queue != nil || idleQueue != nil {
      throw .unsupported("this card is \(other.own.path) already; each device needs an object of its own")
    }
    return self
  }

  public func publish(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    self.device = device
    macAddress = try device.own.macAddress()
    handle = try device.own.optionalNumber("handle")
    negotiation = Negotiation()
    let (splitsChannels, sendsSeveralSlots) = try negotiateFeatures(with: device.other)
    mtu = try negotiateMTU(device.own, scatterGather: sendsSeveralSlots)
    let entryCount = RingLayout.entryCount(
      byteCount: xenPageSize, stride: RingLayout.stride(NetIfTxRequest.self, NetIfTxResponse.self))
    let channels = try device.allocateEventChannels(split: splitsChannels)
    let txRing = try device.share(pageCount: 1)
    let rxRing = try device.share(pageCount: 1)
    let budget = NetFrontPageBudget(
      wanted: entryCount, transmitMinimum: NetIf.pageCount(of: maxFrameByteCount),
      receiveMinimum: features.scatterGather ? NetIf.maxFragmentCount : 1)
    let pools = try budget.share(with: device)
    negotiation.add("tx pages", ours: pools.transmit.count, wanted: entryCount, reason: pools.advice)
    negotiation.add("rx pages", ours: pools.receive.count, wanted: entryCount, reason: pools.advice)
    let (txReference, rxReference) = (txRing.references[0], rxRing.references[0])
    let queue = NetFrontQueue(
      transmit: NetFrontTransmit(ring: FrontRing(initialising: txRing.takeRegion()), pages: pools.transmit),
      receive: NetFrontReceive(
        ring: FrontRing(initialising: rxRing.takeRegion()), pages: pools.receive, scatterGather: features.scatterGather),
      channels: channels)
    queue.postReceivePages()
    idleQueue = queue
    let ports =
      channels.isSplit
      ? [
        StoreEntry("event-channel-tx", channels.tx.rawValue), StoreEntry("event-channel-rx", channels.rx.rawValue),
        StoreEntry(absent: "event-channel"),
      ]
      : [
        // Linux's backend takes the other two, if they are there, whatever it has offered.
        StoreEntry("event-channel", channels.tx.rawValue), StoreEntry(absent: "event-channel-tx"),
        StoreEntry(absent: "event-channel-rx"),
      ]
    return ports + [
      StoreEntry("tx-ring-ref", txReference.rawValue), StoreEntry("rx-ring-ref", rxReference.rawValue),
      StoreEntry("request-rx-copy", true), StoreEntry("feature-rx-notify", true),
      StoreEntry("feature-sg", features.scatterGather),
      // Absent means that the first one is done: we neither leave checksums blank nor can do with blank ones.
      StoreEntry("feature-no-csum-offload", true), StoreEntry("feature-ipv6-csum-offload", false),
      StoreEntry("feature-gso-tcpv4", false), StoreEntry("feature-gso-tcpv6", false),
    ]
  }

  /// Our own directory's `mtu`, as far as a card may go.
  private func negotiateMTU(_ own: StoreDirectory, scatterGather: Bool) throws(DeviceError) -> Int {
    let wanted = try own.optionalNumber("mtu", as: UInt16.self).map { Int($0) } ?? NetIf.defaultMTU
    guard NetIf.mtuRange.contains(wanted) else {
      throw .malformedKey(
        path: own.path(of: "mtu"), value: "\(wanted)",
        expected: "a number from \(NetIf.mtuRange.lowerBound) to \(NetIf.mtuRange.upperBound)")
    }
    let mtu = scatterGather ? wanted : min(wanted, NetIf.defaultMTU)
    negotiation.add(
      "mtu", frontend: "\(wanted)", backend: "any", agreed: "\(mtu)",
      reason: mtu < wanted ? "without feature-sg Linux's network backend allows no more" : "")
    return mtu
  }

  private func negotiateFeatures(
    with backend: StoreDirectory
  ) throws(DeviceError) -> (splitsChannels: Bool, sendsSeveralSlots: Bool) {
    let copies = try backend.flag("feature-rx-copy")
    negotiation.add("feature-rx-copy", frontend: true, backend: copies)
    guard copies else {
      throw .unsupported(
        "the backend does not offer feature-rx-copy (\(backend.path(of: "feature-rx-copy"))), "
          + "and no other way to receive is used any more")
    }
    let offersSplit = try backend.flag("feature-split-event-channels")
    negotiation.add("feature-split-event-channels", frontend: features.splitEventChannels, backend: offersSplit)
    let offersSeveralSlots = try backend.flag("feature-sg")
    negotiation.add("feature-sg", frontend: features.scatterGather, backend: offersSeveralSlots)
    let offloads = try !backend.flag("feature-no-csum-offload")
    negotiation.add("ipv4 checksum offload", frontend: false, backend: offloads)
    for feature in Self.unusedFeatures { negotiation.add(feature, frontend: false, backend: try backend.flag(feature)) }
    let queues = try backend.optionalNumber("multi-queue-max-queues", as: UInt32.self) ?? 1
    negotiation.add(
      "queues", frontend: "1", backend: "\(queues)", agreed: "1",
      reason: queues > 1 ? "the frontend does not use more" : "")
    return (features.splitEventChannels && offersSplit, features.scatterGather && offersSeveralSlots)
  }

  private static let unusedFeatures = [
    "feature-ipv6-csum-offload", "feature-gso-tcpv4", "feature-gso-tcpv6", "feature-multicast-control",
    "feature-ctrl-ring",
  ]

  public func connect(_ device: XenbusDevice) throws(DeviceError) {
    try readCarrier(device)
    queue = idleQueue.take()
    // Once more for all that we pushed before the backend was listening.
    queue?.kick()
    if let queue { setRefill(queue, Uptime(nanoseconds: 0)) }
    announce()
  }

  private func readCarrier(_ device: XenbusDevice) throws(DeviceError) {
    hasCarrier = try device.other.optionalNumber("carrier", as: UInt32.self) ?? 1 != 0
  }

  public var watchedKeys: [String] { ["carrier"] }

  public func otherEndChanged(_ device: XenbusDevice) throws(DeviceError) {
    // Not any more after a queue has stopped by itself.
    if isConnected { try readCarrier(device) }
  }

  private func announce() {
    guard let macAddress else { return }
    for announcement in announcements {
      // One that does not go out is a loss of time only, as when it is lost on the way.
      try? send(announcement.frame(of: macAddress).span)
    }
    push()
  }

  public func stop(_ device: XenbusDevice) {
    queue?.settle()
    stopUsing()
  }

  public func release(_ device: XenbusDevice) { idleQueue = nil }

  private func stopUsing() {
    guard let queue = queue.take() else { return }
    counted += queue.statistics
    counted.tx.drops &+= UInt64(queue.inFlightCount)
    hasCarrier = false
    idleQueue = queue
  }
}
