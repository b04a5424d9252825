import NetIf
import XenRing

/// One card's control plane: its keys, its rings' mappings, its queue's start and stop (io/netif.h).
final class NetBackDevice: Backend {
  private let end: any NetworkEnd
  private let features: NetFeatures
  private let whenClosed: (XenbusDevice, [NetStatistics]) -> Void
  private(set) var negotiation = Negotiation()
  private var queue: NetBackQueue?
  private var refusal: FirstFault<NetTxPacketFault>?

  init(
    end: any NetworkEnd, features: NetFeatures, whenClosed: @escaping (XenbusDevice, [NetStatistics]) -> Void
  ) {
    self.end = end
    self.features = features
    self.whenClosed = whenClosed
  }

  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    [
      StoreEntry("feature-rx-copy", true), StoreEntry("feature-sg", features.scatterGather),
      StoreEntry("feature-split-event-channels", features.splitEventChannels),
      // Who has the payload at hand sums it up for less. Linux's frontends leave IPv4's blank all the same.
      StoreEntry("feature-no-csum-offload", true), StoreEntry("feature-ipv6-csum-offload", false),
      StoreEntry("feature-gso-tcpv4", false), StoreEntry("feature-gso-tcpv6", false),
    ]
  }

  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let keys = try NetFrontendKeys(from: device.other, offered: features)
    negotiation = keys.negotiation
    let tx = try device.map([keys.txRingReference])
    let rx = try device.map([keys.rxRingReference])
    let channels = try device.bindEventChannels(tx: keys.txEventChannel, rx: keys.rxEventChannel)
    let hasCarrier = end.hasCarrier
    let refusal = FirstFault<NetTxPacketFault>(attention: device.attention)
    self.refusal = refusal
    queue = NetBackQueue(
      NetBackWork(
        transmit: NetBackTransmit(
          ring: BackRing(attaching: tx), grants: device.platform.grants, frontend: device.otherDomain,
          scatterGather: features.scatterGather, refusal: refusal),
        receive: NetBackReceive(
          ring: BackRing(attaching: rx), grants: device.platform.grants, frontend: device.otherDomain,
          frontendNotifies: keys.notifiesReceivePages,
          scatterGather: features.scatterGather && keys.takesSeveralSlots),
        channels: channels, end: end, toldCarrier: hasCarrier, callForAttention: device.attention))
    return [StoreEntry("carrier", hasCarrier)]
  }

  func start(_ device: XenbusDevice) throws(DeviceError) {
    guard let queue else { return }
    try device.start(queue, name: "\(device.type)-\(device.otherDomain.rawValue)") {
      queue.fault ?? .protocolViolation("the queue stopped")
    }
  }

  /// The end's link has come or gone, or a packet was refused: its sender has been told, and whoever looks after the host
  /// should know, too.
  func attend(_ device: XenbusDevice) throws(DeviceError) {
    if let fault = refusal?.take() {
      device.warn(.protocolViolation("a packet of the frontend was answered with an error: \(fault)"))
    }
    try device.write([StoreEntry("carrier", end.hasCarrier)])
  }

  func disconnect(_ device: XenbusDevice) {
    guard let queue else { return }
    device.stop(queue)
    device.log.info("\(device.own.path): disconnected; \(queue.statistics); \(queue.ringDump)")
    whenClosed(device, [queue.statistics])
    // The last reference: the rings are unmapped and the ports closed here.
    self.queue = nil
  }
}

/// What a frontend publishes: the gate for these keys. Not read in a transaction, as with a disk's.
struct NetFrontendKeys {
  let txRingReference: GrantReference
  let rxRingReference: GrantReference
  let txEventChannel: EventChannelPort
  /// Nil when one event channel serves both rings.
  let rxEventChannel: EventChannelPort?
  /// Whether the frontend notifies of receive requests, so that frames need not be looked after meanwhile.
  let notifiesReceivePages: Bool
  /// Whether the frontend takes frames of several slots.
  let takesSeveralSlots: Bool
  private(set) var negotiation = Negotiation()

  /// - Parameter offered: what the backend has written that it can do.
  init(from frontend: StoreDirectory, offered: NetFeatures) throws(DeviceError) {
    guard try frontend.flag("request-rx-copy") else {
      throw .unsupported(
        "the frontend does not ask for copied packets (\(frontend.path(of: "request-rx-copy"))); no others are served")
    }
    let queues = try frontend.optionalNumber("multi-queue-num-queues", as: UInt32.self)
    if let queues, queues != 1 {
      throw .unsupported(
        "the frontend wants \(queues) queues (\(frontend.path(of: "multi-queue-num-queues"))); only one is offered")
    }
    txRingReference = GrantReference(rawValue: try frontend.number("tx-ring-ref"))
    rxRingReference = GrantReference(rawValue: try frontend.number("rx-ring-ref"))
    let tx = try frontend.optionalNumber("event-channel-tx", as: UInt32.self)
    let rx = try frontend.optionalNumber("event-channel-rx", as: UInt32.self)
    let isSplit = tx != nil && rx != nil
    if let tx, let rx, offered.splitEventChannels {
      (txEventChannel, rxEventChannel) = (EventChannelPort(rawValue: tx), EventChannelPort(rawValue: rx))
    } else {
      txEventChannel = EventChannelPort(rawValue: try frontend.number("event-channel"))
      rxEventChannel = nil
    }
    notifiesReceivePages = try frontend.flag("feature-rx-notify")
    takesSeveralSlots = try frontend.flag("feature-sg")

    negotiation.add("feature-rx-copy", frontend: true, backend: true)
    negotiation.add(
      "feature-rx-notify", frontend: notifiesReceivePages ? "yes" : "no", backend: "-",
      agreed: notifiesReceivePages ? "on" : "off",
      reason: notifiesReceivePages ? "" : "the backend looks for pages by itself while frames wait")
    negotiation.add("feature-split-event-channels", frontend: isSplit, backend: offered.splitEventChannels)
    negotiation.add("feature-sg", frontend: takesSeveralSlots, backend: offered.scatterGather)
    negotiation.add(
      "tx checksums", frontend: "not said", backend: "asked for", agreed: "whole",
      reason: "the backend fills in those that the frontend leaves blank")
    // Absent means that the frontend can do with blank checksums of IPv4.
    let takesBlank = try !frontend.flag("feature-no-csum-offload")
    negotiation.add("ipv4 checksum offload", frontend: takesBlank, backend: false)
    for feature in Self.unusedFeatures {
      negotiation.add(feature, frontend: try frontend.flag(feature), backend: false)
    }
    negotiation.add(
      "queues", frontend: queues.map { "\($0)" } ?? "1", backend: "1", agreed: "1",
      reason: "the backend does not offer more")
  }

  private static let unusedFeatures = [
    "feature-ipv6-csum-offload", "feature-gso-tcpv4", "feature-gso-tcpv6", "request-multicast-control",
  ]
}
