import NetIf
import XenRing

/// One card's control plane: its keys, its rings' mappings, its queues' start and stop (io/netif.h).
final class NetBackDevice: Backend {
  private let end: any NetworkEnd
  /// What this end and this program can do.
  private let offered: NetFeatures
  /// What rings may be made for: that, or what a predecessor had offered when it was killed.
  private var accepted: NetFeatures
  private let whenClosed: (XenbusDevice, [NetStatistics]) -> Void
  private(set) var negotiation = Negotiation()
  private var queues: [NetBackQueue] = []
  /// Each queue's.
  private var ends: [any NetworkEnd] = []
  private var connection: NetBackConnection?
  /// Nil when the frontend has no control ring.
  private var control: NetBackControl?

  init(
    end: any NetworkEnd, features: NetFeatures, whenClosed: @escaping (XenbusDevice, [NetStatistics]) -> Void
  ) {
    self.end = end
    self.whenClosed = whenClosed
    var offered = features
    offered.offloads = features.offloads.intersection(end.offloads).given(scatterGather: features.scatterGather)
    (self.offered, accepted) = (offered, offered)
  }

  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    if try device.isOffered() {
      accept(offerOf: device.own)
      if accepted != offered {
        device.log.notice("\(device.own.path): rings are served as was offered before our start: \(accepted)")
      }
    }
    // What has been used of a former offer stays offered, for whoever comes after us.
    let offered = try device.hasPublishedRings() ? accepted : offered
    return [
      StoreEntry("feature-rx-copy", true), StoreEntry("feature-sg", offered.scatterGather),
      StoreEntry("feature-split-event-channels", offered.splitEventChannels),
      StoreEntry("multi-queue-max-queues", offered.maxQueueCount),
      // What the end does not take is finished here all the same, but the guest, who has the payload at hand, sums it up for
      // less. Linux's frontends leave IPv4's blank all the same.
      StoreEntry("feature-no-csum-offload", !offered.offloads.contains(.ipv4Checksum)),
      StoreEntry("feature-ipv6-csum-offload", offered.offloads.contains(.ipv6Checksum)),
      StoreEntry("feature-gso-tcpv4", offered.offloads.contains(.tcpv4Segmentation)),
      StoreEntry("feature-gso-tcpv6", offered.offloads.contains(.tcpv6Segmentation)),
      StoreEntry("feature-multicast-control", offered.multicastControl),
      StoreEntry("feature-dynamic-multicast-control", offered.multicastControl),
      StoreEntry("feature-xdp-headroom", true), StoreEntry("feature-ctrl-ring", offered.controlRing),
    ]
  }

  /// The frontend decides on its rings by the offer that it finds, and Linux's does so once only. All else it decides when we
  /// are connected.
  private func accept(offerOf own: StoreDirectory) {
    // What makes no sense is nobody's offer.
    if let count = try? own.optionalNumber("multi-queue-max-queues", as: Int.self) {
      accepted.maxQueueCount = max(accepted.maxQueueCount, min(count, 64))
    }
    for (key, member) in [
      ("feature-sg", \.scatterGather), ("feature-split-event-channels", \.splitEventChannels),
      ("feature-ctrl-ring", \.controlRing),
    ] as [(String, WritableKeyPath<NetFeatures, Bool>)] where (try? own.flag(key)) == true {
      accepted[keyPath: member] = true
    }
  }

  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let offered = accepted
    let keys = try NetFrontendKeys(from: device.other, offered: offered)
    negotiation = keys.negotiation
    var connection = NetBackConnection(
      frontend: device.otherDomain, grants: device.platform.grants, offered: offered, takes: keys.takes,
      groups: NetBackGroups(), steering: NetBackSteering(), headroom: NetBackHeadroom(), rate: try device.own.rate(),
      refusal: FirstFault(attention: device.attention))
    try follow(device.other, connection)
    let ends = try end.ends(forQueues: keys.queues.count, guestOffloads: keys.takes.offloads)
    precondition(ends.count == keys.queues.count, "an end for each queue")
    let isShared = ends.count > 1 && ends.allSatisfy { $0 === ends[0] }
    let mailboxes = try Self.mailboxes(of: keys, isShared: isShared)
    let hasCarrier = ends.allSatisfy(\.hasCarrier)
    let tables =
      offered.staticGrants && keys.controlRing != nil
      ? keys.queues.map { _ in NetBackControlGrants(device.platform.grants, frontend: device.otherDomain) } : []
    var queues: [NetBackQueue] = []
    for (number, queue) in keys.queues.enumerated() {
      let tx = try device.map([queue.txRingReference])
      let rx = try device.map([queue.rxRingReference])
      if !tables.isEmpty { connection.grants = tables[number] }
      let source = !isShared ? NetBackSource.own : number == 0 ? .shared : .handedOver
      let spreads = source == .shared || keys.takes.hashes
      let isHandedOver = source == .handedOver || (keys.takes.hashes && !mailboxes.isEmpty)
      let channels = try device.bindEventChannels(tx: queue.txEventChannel, rx: queue.rxEventChannel)
      queues.append(
        NetBackQueue(
          NetBackWork(
            transmit: NetBackTransmit(ring: BackRing(attaching: tx), connection: connection),
            receive: NetBackReceive(ring: BackRing(attaching: rx), connection: connection), channels: channels,
            end: ends[number], source: source, mailbox: isHandedOver ? mailboxes[number] : nil,
            spread: spreads ? NetBackSpread(of: number, to: mailboxes, for: connection) : nil,
            toldCarrier: ends[number].hasCarrier, callForAttention: device.attention)))
    }
    if let (reference, eventChannel) = keys.controlRing {
      control = try NetBackControl(
        device, reference, eventChannel, queueCount: queues.count, steering: connection.steering,
        grantTables: tables)
    }
    (self.connection, self.queues, self.ends) = (connection, queues, ends)
    return [StoreEntry("carrier", hasCarrier)]
  }

  /// Where queues hand frames over to one another: none when they never do.
  private static func mailboxes(
    of keys: NetFrontendKeys, isShared: Bool
  ) throws(DeviceError) -> [NetBackMailbox] {
    var mailboxes: [NetBackMailbox] = []
    guard keys.queues.count > 1, isShared || keys.takes.hashes else { return mailboxes }
    do throws(ResourceError) {
      for _ in keys.queues { mailboxes.append(try NetBackMailbox(for: keys.takes)) }
    } catch { throw .resource("\(error)") }
    return mailboxes
  }

  func start(_ device: XenbusDevice) throws(DeviceError) {
    if let control {
      try device.start(control, name: "\(device.type)-\(device.otherDomain.rawValue)-control") {
        control.fault ?? .protocolViolation("the control ring stopped")
      }
    }
    for (number, queue) in queues.enumerated() {
      let suffix = queues.count > 1 ? "-\(number)" : ""
      try device.start(queue, name: "\(device.type)-\(device.otherDomain.rawValue)\(suffix)") {
        queue.fault ?? .protocolViolation("the queue stopped")
      }
    }
  }

  /// The keys that a frontend may change at any time.
  private func follow(_ frontend: StoreDirectory, _ connection: NetBackConnection) throws(DeviceError) {
    let isFiltering = try frontend.flag("request-multicast-control") && offered.multicastControl
    let headroom = try frontend.headroomByteCount()
    (connection.groups.isFiltering, connection.headroom.byteCount) = (isFiltering, headroom)
  }

  func otherEndChanged(_ device: XenbusDevice) throws(DeviceError) {
    if let connection { try follow(device.other, connection) }
  }

  /// The end's link has come or gone, or a packet was refused: its sender has been told, and whoever looks after the host
  /// should know, too.
  func attend(_ device: XenbusDevice) throws(DeviceError) {
    if let fault = connection?.refusal.take() {
      device.warn(.protocolViolation("a packet of the frontend was answered with an error: \(fault)"))
    }
    if !ends.isEmpty { try device.write([StoreEntry("carrier", ends.allSatisfy(\.hasCarrier))]) }
  }

  func disconnect(_ device: XenbusDevice) {
    guard !queues.isEmpty else { return }
    for queue in queues { device.stop(queue) }
    if let control {
      device.stop(control)
      device.log.info("\(device.own.path): \(control)")
    }
    let statistics = queues.map(\.statistics)
    for (number, queue) in queues.enumerated() {
      device.log.info("\(device.own.path): queue \(number) disconnected; \(statistics[number]); \(queue.ringDump)")
    }
    whenClosed(device, statistics)
    // The last references: the rings are unmapped and the ports closed here.
    (queues, ends, connection, control) = ([], [], nil, nil)
  }
}
