import NetIf

/// What a frontend publishes: the gate for these keys. Not read in a transaction, as with a disk's.
struct NetFrontendKeys {
  /// One pair of rings.
  struct Queue {
    let txRingReference: GrantReference
    let rxRingReference: GrantReference
    let txEventChannel: EventChannelPort
    /// Nil when one event channel serves both rings.
    let rxEventChannel: EventChannelPort?
    /// Whether the frontend has written one for each.
    let isSplit: Bool
  }

  let queues: [Queue]
  let takes: NetGuestAgreement
  /// Nil without a control ring.
  let controlRing: (reference: GrantReference, eventChannel: EventChannelPort)?
  private(set) var negotiation = Negotiation()

  /// - Parameter offered: what the backend has written that it can do.
  init(from frontend: StoreDirectory, offered: NetFeatures) throws(DeviceError) {
    guard try frontend.flag("request-rx-copy") else {
      throw .unsupported(
        "the frontend does not ask for copied packets (\(frontend.path(of: "request-rx-copy"))); no others are served")
    }
    let queueCount = try frontend.optionalNumber("multi-queue-num-queues", as: Int.self) ?? 1
    guard queueCount >= 1, queueCount <= offered.maxQueueCount else {
      throw .malformedKey(
        path: frontend.path(of: "multi-queue-num-queues"), value: "\(queueCount)",
        expected: "a number from 1 to \(offered.maxQueueCount)")
    }
    var queues: [Queue] = []
    for number in 0..<queueCount {
      let directory = queueCount == 1 ? frontend : frontend.at(frontend.path(of: "queue-\(number)"))
      queues.append(try Queue(from: directory, splits: offered.splitEventChannels))
    }
    self.queues = queues
    let scatterGather = try frontend.flag("feature-sg")
    let unfinished = try NetOffloads(takenBy: frontend)
    let controlReference = try frontend.optionalNumber("ctrl-ring-ref", as: UInt32.self)
    if offered.controlRing, let controlReference {
      controlRing = (
        GrantReference(rawValue: controlReference),
        EventChannelPort(rawValue: try frontend.number("event-channel-ctrl"))
      )
    } else {
      controlRing = nil
    }
    takes = NetGuestAgreement(
      scatterGather: scatterGather && offered.scatterGather,
      offloads: unfinished.given(scatterGather: scatterGather && offered.scatterGather),
      hashes: controlRing != nil, notifies: try frontend.flag("feature-rx-notify"))
    report(unfinished, scatterGather, offered)
    negotiation.add("feature-ctrl-ring", frontend: controlReference != nil, backend: offered.controlRing)
    negotiation.add(
      "request-multicast-control", frontend: try frontend.flag("request-multicast-control"),
      backend: offered.multicastControl)
    let headroom = try frontend.headroomByteCount()
    negotiation.add(
      "xdp-headroom", frontend: "\(headroom)", backend: "up to \(NetBackHeadroom.maxByteCount)", agreed: "\(headroom)")
  }

  private mutating func report(_ unfinished: NetOffloads, _ scatterGather: Bool, _ offered: NetFeatures) {
    negotiation.add("feature-rx-copy", frontend: true, backend: true)
    negotiation.add(
      "feature-rx-notify", frontend: takes.notifies ? "yes" : "no", backend: "-", agreed: takes.notifies ? "on" : "off",
      reason: takes.notifies ? "" : "the backend looks for pages by itself while frames wait")
    negotiation.add(
      "feature-split-event-channels", frontend: queues[0].isSplit, backend: offered.splitEventChannels)
    negotiation.add("feature-sg", frontend: scatterGather, backend: offered.scatterGather)
    negotiation.add(
      "queues", frontend: "\(queues.count)", backend: "\(offered.maxQueueCount)", agreed: "\(queues.count)",
      reason: queues.count < offered.maxQueueCount ? "the frontend asks for no more" : "")
    for (name, offload) in Self.names {
      // A frontend uses what it likes of these and says nothing.
      let isOffered = offered.offloads.contains(offload)
      negotiation.add(
        "tx \(name)", frontend: "not said", backend: isOffered ? "yes" : "no", agreed: isOffered ? "on" : "off",
        reason: isOffered ? "" : "the backend finishes what the frontend leaves blank all the same")
    }
    for (name, offload) in Self.names {
      let isAsked = unfinished.contains(offload)
      let isGiven = takes.offloads.contains(offload)
      negotiation.add(
        name, frontend: isAsked ? "yes" : "no", backend: "yes", agreed: isGiven ? "on" : "off",
        reason: isGiven ? "" : isAsked ? "it needs feature-sg" : "the frontend does not take it")
    }
  }

  private static let names: [(String, NetOffloads)] = [
    ("ipv4 checksum offload", .ipv4Checksum), ("feature-ipv6-csum-offload", .ipv6Checksum),
    ("feature-gso-tcpv4", .tcpv4Segmentation), ("feature-gso-tcpv6", .tcpv6Segmentation),
  ]
}

extension NetFrontendKeys.Queue {
  /// - Parameter splits: whether one event channel for each ring was offered.
  fileprivate init(from directory: StoreDirectory, splits: Bool) throws(DeviceError) {
    txRingReference = GrantReference(rawValue: try directory.number("tx-ring-ref"))
    rxRingReference = GrantReference(rawValue: try directory.number("rx-ring-ref"))
    let tx = try directory.optionalNumber("event-channel-tx", as: UInt32.self)
    let rx = try directory.optionalNumber("event-channel-rx", as: UInt32.self)
    isSplit = tx != nil && rx != nil
    if let tx, let rx, splits {
      (txEventChannel, rxEventChannel) = (EventChannelPort(rawValue: tx), EventChannelPort(rawValue: rx))
    } else {
      txEventChannel = EventChannelPort(rawValue: try directory.number("event-channel"))
      rxEventChannel = nil
    }
  }
}

extension NetOffloads {
  /// What a frontend says that it takes unfinished.
  fileprivate init(takenBy frontend: StoreDirectory) throws(DeviceError) {
    self = []
    // Absent means that it can do with blank checksums of IPv4.
    if try !frontend.flag("feature-no-csum-offload") { insert(.ipv4Checksum) }
    if try frontend.flag("feature-ipv6-csum-offload") { insert(.ipv6Checksum) }
    if try frontend.flag("feature-gso-tcpv4") { insert(.tcpv4Segmentation) }
    if try frontend.flag("feature-gso-tcpv6") { insert(.tcpv6Segmentation) }
  }

  /// These, but packets to be cut only where they may have several slots.
  func given(scatterGather: Bool) -> NetOffloads {
    scatterGather ? self : subtracting([.tcpv4Segmentation, .tcpv6Segmentation])
  }
}

extension StoreDirectory {
  /// The key `xdp-headroom` of a frontend: how many bytes it wants left free before each frame; none when it is absent.
  func headroomByteCount() throws(DeviceError) -> Int {
    let byteCount = try optionalNumber("xdp-headroom", as: Int.self) ?? 0
    guard byteCount >= 0, byteCount <= NetBackHeadroom.maxByteCount else {
      throw .malformedKey(
        path: path(of: "xdp-headroom"), value: "\(byteCount)",
        expected: "a number from 0 to \(NetBackHeadroom.maxByteCount)")
    }
    return byteCount
  }
}
