import NetIf
import XenRing

/// One card's control plane: its keys, its rings' mappings, its queue's start and stop (io/netif.h).
final class NetBackDevice: Backend {
  private let end: any NetworkEnd
  private let whenClosed: (XenbusDevice, NetStatistics) -> Void
  private(set) var negotiation = Negotiation()
  private var queue: NetBackQueue?

  init(end: any NetworkEnd, whenClosed: @escaping (XenbusDevice, NetStatistics) -> Void) {
    self.end = end
    self.whenClosed = whenClosed
  }

  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    [
      StoreEntry("feature-rx-copy", true),
      // Absent would mean that a guest may leave checksums blank.
      StoreEntry("feature-no-csum-offload", true), StoreEntry("feature-ipv6-csum-offload", false),
      StoreEntry("feature-sg", false), StoreEntry("feature-gso-tcpv4", false), StoreEntry("feature-gso-tcpv6", false),
    ]
  }

  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let keys = try NetFrontendKeys(from: device.other)
    let tx = try device.map([keys.txRingReference])
    let rx = try device.map([keys.rxRingReference])
    let channel = try device.bindEventChannel(to: keys.eventChannel)
    queue = NetBackQueue(
      NetBackWork(
        tx: BackRing(attaching: tx), rx: BackRing(attaching: rx), channel: channel, grants: device.platform.grants,
        frontend: device.otherDomain, frontendNotifies: keys.notifiesReceivePages, end: end))
    return [StoreEntry("carrier", end.hasCarrier)]
  }

  func start(_ device: XenbusDevice) throws(DeviceError) {
    guard let queue else { return }
    try device.start(queue, name: "\(device.type)-\(device.otherDomain.rawValue)") {
      .protocolViolation(queue.violation.map { "\($0)" } ?? "the ring stopped")
    }
  }

  func disconnect(_ device: XenbusDevice) {
    guard let queue else { return }
    device.stop(queue)
    device.log.info("\(device.own.path): disconnected; \(queue.ringDump)")
    whenClosed(device, queue.statistics)
    // The last reference: the rings are unmapped and the port closed here.
    self.queue = nil
  }
}

/// What a frontend publishes: the gate for these keys. Not read in a transaction, as with a disk's.
struct NetFrontendKeys {
  let txRingReference: GrantReference
  let rxRingReference: GrantReference
  let eventChannel: EventChannelPort
  /// Whether the frontend notifies of receive requests, so that frames may wait for them.
  let notifiesReceivePages: Bool

  init(from frontend: StoreDirectory) throws(DeviceError) {
    guard try frontend.flag("request-rx-copy") else {
      throw .unsupported(
        "the frontend does not ask for copied packets (\(frontend.path(of: "request-rx-copy"))); no others are served")
    }
    if let queues = try frontend.optionalNumber("multi-queue-num-queues", as: UInt32.self), queues != 1 {
      throw .unsupported(
        "the frontend wants \(queues) queues (\(frontend.path(of: "multi-queue-num-queues"))); only one is offered")
    }
    txRingReference = GrantReference(rawValue: try frontend.number("tx-ring-ref"))
    rxRingReference = GrantReference(rawValue: try frontend.number("rx-ring-ref"))
    eventChannel = EventChannelPort(rawValue: try frontend.number("event-channel"))
    notifiesReceivePages = try frontend.flag("feature-rx-notify")
  }
}
