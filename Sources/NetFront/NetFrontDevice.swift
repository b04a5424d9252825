@_exported import NetIf
@_exported import XenRing

/// A network card of ours that a backend connects to its network (io/netif.h), used from one thread: the one that polls
/// its bus.
///
/// Register it with a bus, poll that until ``isConnected``, then ``send(_:)`` frames, ``push()`` them together, and take
/// what arrives with ``poll(now:looks:_:)``. When a backend goes away, what was in flight is counted as dropped; the device connects
/// again when the backend comes back.
@safe public final class NetFrontDevice: FrontendDriver, Frontend {
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
  /// What has become of ``setHashing(_:)``.
  public internal(set) var hashing = NetFrontHashing.unset
  let features: NetFeatures
  /// What may be sent unfinished now: frames whose checksum is left blank, and frames to be cut. Empty while not connected.
  ///
  /// A frame whose checksum the backend does not fill in may be sent all the same: then it is filled in here.
  public var offloads: NetOffloads { queues?.offloads ?? [] }
  var offered: NetBackendKeys?
  var multicast = NetFrontMulticast()
  var reconfiguration = NetFrontReconfiguration()
  /// Memory for one segment of a frame that is cut here.
  private var segment: [UInt8] = []
  var queues: NetFrontQueues? { didSet { unsafe sender = queues.map { unsafe Unmanaged.passUnretained($0) } } }
  /// The same, for what is done for each frame: to retain and release waits until all that was written to the shared pages has
  /// left the processor, which is most of what a short frame costs.
  private var sender: Unmanaged<NetFrontQueues>?
  /// Shared with the backend, but not in use: before it has connected, and until it has let go.
  private var idleQueues: NetFrontQueues?
  /// What former connections have counted, by queue.
  private var counted: [NetStatistics] = [NetStatistics()]
  var device: XenbusDevice?
  /// Whether the backend's answers to what was sent are waited for in halves; set before the card connects. To measure what that saves.
  @_spi(Measuring) public var holdsOffTxEvents = true
  /// When to ask again for pages that could not be had; nil when none are missing.
  private var refillsAt: Uptime?
  /// How long to wait before that.
  private static let refillNanoseconds: UInt64 = 100_000_000

  /// - Parameter features: what is used where the backend offers it. What is taken unfinished (``NetFeatures/offloads``)
  ///   arrives so: see ``NetFrontFrame/metadata``.
  /// - Precondition: the features are within their ranges.
  public init(features: NetFeatures = NetFeatures()) {
    precondition((1...64).contains(features.maxQueueCount), "1 to 64 queues")
    self.features = features
  }

  public var isConnected: Bool { queues != nil }

  // MARK: Frames

  /// The longest frame that can be sent as it is, in bytes: the MTU, an Ethernet header and a VLAN tag; zero before the
  /// first connection.
  public var maxFrameByteCount: Int { mtu.map { $0 + Self.frameOverhead } ?? 0 }

  private static var frameOverhead: Int { NetIf.headerByteCount + NetIf.vlanTagByteCount }

  /// The longest frame that can be sent to be cut, in bytes; zero while not connected. Where the backend does not cut, that is
  /// done here, and what becomes of it must have room at once.
  public var maxSegmentedByteCount: Int {
    backendCuts ? queues?.maxByteCount ?? 0 : isConnected ? NetIf.maxFrameByteCount : 0
  }

  private var backendCuts: Bool { !offloads.isDisjoint(with: [.tcpv4Segmentation, .tcpv6Segmentation]) }

  /// Puts a frame, which is copied once, into a page of ours, before this returns; with its header and without its trailing
  /// checksum.
  ///
  /// - Parameter metadata: who looks after the checksum of its TCP or UDP part, and how it is to be cut. One that is left
  ///   blank is filled in, where the backend takes it with what belongs there then, or by us. A frame to be cut has a blank
  ///   one, whatever the metadata say; where the backend does not cut it, its segments are sent instead, all or none. A hash
  ///   goes nowhere.
  /// - Throws: ``NetFrontError/busy`` when the ring is full: transmission then waits until ``poll(now:looks:_:)`` has found
  ///   responses. No error leaves anything of the frame behind.
  public func send(
    _ frame: Span<UInt8>, _ metadata: NetPacketMetadata = NetPacketMetadata()
  ) throws(NetFrontError) {
    // Safe: `queues` holds it, and nothing that sending does lets go of that.
    switch unsafe sender?._withUnsafeGuaranteedRef({ $0.send(frame, metadata) }) {
    case .sent: return
    case .busy: throw .busy
    case .other, nil: try sendAny(frame, metadata)
    }
  }

  /// The same for a frame that is not as most are, or cannot be sent: what is wrong comes out here.
  // No part of what most frames take, and so nothing that it would have to keep for this.
  @inline(never) private func sendAny(_ frame: Span<UInt8>, _ metadata: NetPacketMetadata) throws(NetFrontError) {
    guard let queues else { throw .notConnected }
    try check(byteCount: frame.count, isSegmented: metadata.segmentation != nil)
    if let segmentation = metadata.segmentation, !offloads.contains(NetOffloads(cutting: segmentation.kind)) {
      return try cut(frame, segmentation, queues)
    }
    try queues.put(frame, NetFrontTxForm(frame, metadata, offloads: offloads))
  }

  private func cut(
    _ frame: Span<UInt8>, _ segmentation: NetPacketMetadata.Segmentation, _ queues: NetFrontQueues
  ) throws(NetFrontError) {
    if segment.isEmpty { segment = [UInt8](repeating: 0, count: NetIf.maxFrameByteCount) }
    try queues.put(frame, segmentation, by: &segment, limit: maxFrameByteCount)
  }

  /// Whether a frame may have this length.
  func check(byteCount: Int, isSegmented: Bool) throws(NetFrontError) {
    guard byteCount >= NetIf.headerByteCount else { throw .tooShort(byteCount: byteCount) }
    let limit = isSegmented ? max(maxSegmentedByteCount, maxFrameByteCount) : maxFrameByteCount
    guard byteCount <= limit else { throw .tooLong(byteCount: byteCount, limit: limit) }
  }

  /// Shows the backend what was put since the last time, and notifies it unless it is awake.
  public func push() { queues?.push() }

  /// Hands over the frames that have arrived, in the backend's order, and makes their pages free for others. Never waits.
  ///
  /// - Parameters:
  ///   - now: the time, where it is not the machine's: a simulation's.
  ///   - looks: whether the caller goes on looking at ``hasWork`` when there is nothing more. Then the backend is not asked for an
  ///     event, which it would send for nothing; so poll without this before you sleep on ``descriptor``.
  ///   - body: given a frame that the backend can still write, so copy it out once and look at the copy. It is valid during
  ///     the call. The call may send and push, but neither poll, nor let the bus poll, nor ask for statistics.
  /// - Returns: how many there were.
  @discardableResult
  public func poll(
    now: Uptime? = nil, looks: Bool = false, _ body: (_ frame: borrowing NetFrontFrame) -> Void
  ) -> Int {
    guard let queues else { return 0 }
    if let refillsAt {
      let now = now ?? .now
      if now >= refillsAt { refill(queues, now) }
    }
    do throws(DeviceError) {
      let count = try queues.poll(looks: looks, body)
      // Behind the others, since they take its events, too.
      if queues.awaitsControl, let result = try queues.pollControl() { hashing.end(with: result) }
      followMulticast(queues)
      return count
    } catch {
      stopUsing()
      device?.report(error)
      return 0
    }
  }

  /// Whether ``poll(now:looks:_:)`` would find something, by a look at memory alone: for whoever waits without asking for events. Of
  /// what was sent, once half of it has been answered.
  public var hasWork: Bool { queues?.hasWork ?? false }

  /// When to ``poll(now:looks:_:)`` although nothing is readable: pages for what arrives could not all be had, and are asked for
  /// again then. Nil when there is no such reason.
  public var nextPoll: Uptime? { queues == nil ? nil : refillsAt }

  /// Asks for the missing pages, or for half as many, and so on.
  private func refill(_ queues: NetFrontQueues, _ now: Uptime) {
    for number in 0..<queues.count {
      var count = queues.missingReceivePageCount(number)
      while count > 0, let device {
        // Whatever the reason is, there will be another time.
        if let pages = try? device.share(pageCount: count) {
          queues.add(pages, to: number)
          count = 0
        }
        count /= 2
      }
    }
    setRefill(queues, now)
  }

  private func setRefill(_ queues: NetFrontQueues, _ now: Uptime) {
    let isMissing = (0..<queues.count).contains { queues.missingReceivePageCount($0) > 0 }
    refillsAt = isMissing ? Uptime(nanoseconds: now.nanoseconds + Self.refillNanoseconds) : nil
  }

  /// Whether ``send(_:_:)`` might find too few slots for a frame of the longest, to be cut where that is agreed on: ask again
  /// after a ``poll(now:looks:_:)``.
  public var waitsForSlots: Bool {
    backendCuts
      ? !hasRoom(for: max(maxSegmentedByteCount, maxFrameByteCount), isSegmented: true)
      : !hasRoom(for: maxFrameByteCount)
  }

  /// Whether ``send(_:_:)`` would find slots for a frame so long, whatever flow it belongs to; also when nothing is
  /// connected, which is another error.
  ///
  /// - Parameter isSegmented: whether it is to be cut, which takes a slot.
  public func hasRoom(for byteCount: Int, isSegmented: Bool = false) -> Bool {
    queues?.hasRoom(for: byteCount, isSegmented: isSegmented) ?? true
  }

  /// Frames put and not yet answered.
  public var inFlightCount: Int { queues?.inFlightCount ?? 0 }

  /// Readable when ``poll(now:looks:_:)`` has something to do; nil when not connected.
  public var descriptor: CInt? { queues?.descriptor }

  /// What the card has sent and received since it was made, over all its connections.
  public var statistics: NetStatistics {
    var sum = counted.total
    if let queues { for number in 0..<queues.count { sum += queues.statistics(of: number) } }
    return sum
  }

  /// Grows with each frame that is put, answered or received: ``BusThreadClient/workCount`` for whoever has a card.
  public var workCount: UInt64 {
    let (tx, rx) = (statistics.tx, statistics.rx)
    // What is in flight counts once, and again when it is answered.
    return 2 &* (tx.packets &+ tx.errors &+ tx.drops) &+ UInt64(inFlightCount) &+ rx.packets &+ rx.errors &+ rx.drops
  }

  /// The same, each queue for itself.
  public var queueStatistics: [NetStatistics] {
    var sums = counted
    if let queues { for number in 0..<queues.count { sums[number] += queues.statistics(of: number) } }
    return sums
  }

  /// The same, without an allocation where the array has as many places.
  func copyQueueStatistics(to array: inout [NetStatistics]) {
    while array.count < counted.count { array.append(NetStatistics()) }
    for number in counted.indices {
      array[number] = counted[number]
      if let queues, number < queues.count { array[number] += queues.statistics(of: number) }
    }
  }

  // MARK: Frontend

  public func probe(_ device: XenbusDevice) throws(DeviceError) -> any Frontend {
    if let other = self.device, other !== device, queues != nil || idleQueues != nil {
      throw .unsupported("this card is \(other.own.path) already; each device needs an object of its own")
    }
    return self
  }

  public func publish(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    self.device = device
    macAddress = try device.own.macAddress()
    handle = try device.own.optionalNumber("handle")
    negotiation = Negotiation()
    let offered = try NetBackendKeys(from: device.other)
    features.report(offered, in: &negotiation)
    guard offered.copies else {
      throw .unsupported(
        "the backend does not offer feature-rx-copy (\(device.other.path(of: "feature-rx-copy"))), "
          + "and no other way to receive is used any more")
    }
    self.offered = offered
    mtu = try negotiateMTU(device.own, scatterGather: features.scatterGather && offered.takesSeveralSlots)
    let isUntrusted = try device.own.optionalNumber("trusted", as: UInt32.self) ?? 1 == 0
    let rings = try NetFrontRings(
      device, features, offered: offered, maxFrameByteCount: maxFrameByteCount, isUntrusted: isUntrusted)
    negotiation.add(
      "trusted", frontend: isUntrusted ? "0" : "1", backend: "not asked", agreed: isUntrusted ? "0" : "1",
      reason: isUntrusted ? "the toolstack does not trust the backend: frames are copied, pages cleared" : "")
    rings.report(in: &negotiation)
    let entries =
      try NetFrontRings.staleEntries(device.own) + rings.entries + features.entries + requests(of: offered)
    let queues = rings.makeQueues(
      maxFrameByteCount: maxFrameByteCount, offloads: features.agreedOffloads(with: offered))
    if !holdsOffTxEvents { queues.takeEachTxEvent() }
    queues.postReceivePages()
    idleQueues = queues
    return entries
  }

  /// What the backend is asked for besides.
  private func requests(of offered: NetBackendKeys) -> [StoreEntry] {
    negotiation.add("feature-multicast-control", frontend: features.multicastControl, backend: offered.filtersMulticast)
    let wanted = reconfiguration.wanted
    negotiation.add(
      "xdp-headroom", frontend: "\(wanted)", backend: offered.leavesHeadroom ? "any" : "no",
      agreed: offered.leavesHeadroom ? "\(wanted)" : "0",
      reason: wanted > 0 && !offered.leavesHeadroom ? "the backend does not offer it" : "")
    return [
      filterIsOffered
        ? StoreEntry("request-multicast-control", multicast.isFiltering)
        : StoreEntry(absent: "request-multicast-control"),
      offered.leavesHeadroom ? StoreEntry("xdp-headroom", wanted) : StoreEntry(absent: "xdp-headroom"),
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

  public func connect(_ device: XenbusDevice) throws(DeviceError) {
    // Once more: the backend that has connected may be another one than that whose offer the rings were made for. Nothing of us
    // changes before all that may be wrong with its keys has been found.
    let keys = try NetBackendKeys(from: device.other)
    try readCarrier(device)
    guard let queues = idleQueues.take() else { preconditionFailure("published before it is connected") }
    while counted.count < queues.count { counted.append(NetStatistics()) }
    queues.offloads = features.agreedOffloads(with: keys)
    self.queues = queues
    // Once more for all that we pushed before the backend was listening.
    queues.kick()
    if offered?.leavesHeadroom == true {
      reconfiguration.connect()
      if reconfiguration.wanted > 0 { queues.takeHeadroom() }
    }
    if filterIsOffered {
      multicast.connect()
      followMulticast(queues)
    }
    setRefill(queues, Uptime(nanoseconds: 0))
    if features.staticGrants { queues.askForMapping() }
    askForHashing()
    announce()
  }

  private func readCarrier(_ device: XenbusDevice) throws(DeviceError) {
    hasCarrier = try device.other.optionalNumber("carrier", as: UInt32.self) ?? 1 != 0
  }

  public var watchedKeys: [String] { ["carrier"] }

  public func otherEndChanged(_ device: XenbusDevice) throws(DeviceError) {
    // Not any more after a queue has stopped by itself.
    guard isConnected else { return }
    try readCarrier(device)
    try reconfigure(device)
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
    queues?.settle()
    stopUsing()
  }

  public func release(_ device: XenbusDevice) { idleQueues = nil }

  private func stopUsing() {
    guard let queues = queues.take() else { return }
    for number in 0..<queues.count {
      counted[number] += queues.statistics(of: number)
      counted[number].tx.drops &+= UInt64(queues.inFlightCount(of: number))
    }
    hasCarrier = false
    multicast.disconnect()
    reconfiguration.disconnect()
    if let wish = hashing.wish { hashing = .pending(wish) }
    idleQueues = queues
  }
}
