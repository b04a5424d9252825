import BlkIf
import XenRing

/// One disk's control plane: its keys, its ring's mapping, its queue's start and stop (io/blkif.h).
final class BlkBackDevice: Backend {
  private let store: any BlockStore
  private let options: BlkBackOptions
  private let whenClosed: (XenbusDevice, BlkBackStatistics) -> Void
  private(set) var negotiation = Negotiation()
  private var queue: BlkBackQueue?
  private var failure: FirstFault<String>?

  init(
    store: any BlockStore, options: BlkBackOptions, whenClosed: @escaping (XenbusDevice, BlkBackStatistics) -> Void
  ) {
    self.store = store
    self.options = options
    self.whenClosed = whenClosed
  }

  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    [StoreEntry("feature-flush-cache", options.offersFlush), StoreEntry("feature-barrier", true)]
  }

  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let geometry = try geometry(device)
    try attach(device, geometry, at: .zero)
    return geometry.entries
  }

  /// - Parameter position: the index at which the ring goes on.
  func resume(_ device: XenbusDevice, from position: String) throws(DeviceError) {
    guard let index = UInt32(position) else {
      throw .resource("it was left connected by another program, with the word \(position.quoted)")
    }
    let geometry = try geometry(device)
    for entry in try offer(device) + geometry.entries {
      let agreed = try device.own.optionalString(entry.key)
      guard agreed == entry.value else {
        throw .resource(
          "its guest goes by \(entry.key) = \(agreed ?? "nothing") and would be served with \(entry.value ?? "nothing"): "
            + "serve it with what it was connected with, or close it")
      }
    }
    try attach(device, geometry, at: RingIndex(rawValue: index))
  }

  /// Maps the ring and makes the queue.
  ///
  /// - Parameter index: where requests and responses go on.
  private func attach(_ device: XenbusDevice, _ geometry: BlockGeometry, at index: RingIndex) throws(DeviceError) {
    let keys = try BlkFrontendKeys(from: device.other)
    negotiation = Negotiation()
    keys.report(in: &negotiation)
    // A frontend uses what it likes of these two and says nothing.
    for (feature, isOffered) in [("feature-flush-cache", options.offersFlush), ("feature-barrier", true)] {
      negotiation.add(
        feature, frontend: "not said", backend: isOffered ? "yes" : "no", agreed: isOffered ? "on" : "off",
        reason: isOffered ? "" : "the backend does not offer it")
    }
    negotiation.add("feature-persistent", frontend: keys.hasPersistentGrants, backend: false)
    let failure = FirstFault<String>(attention: device.attention)
    let region = try device.map([keys.ringReference])
    let channel = try device.bindEventChannel(to: keys.eventChannel)
    queue = BlkBackQueue(
      BlkBackWork(
        ring: BlkBackRing(attaching: region, as: keys.layout, at: index), channel: channel,
        grants: device.platform.grants, frontend: device.otherDomain, store: store, geometry: geometry,
        clock: device.clock, failure: failure))
    self.failure = failure
  }

  /// The store's geometry as the toolstack restricts it. Only our own directory is asked: the other one is the guest's.
  private func geometry(_ device: XenbusDevice) throws(DeviceError) -> BlockGeometry {
    var geometry = store.geometry
    if try device.isReadOnly() { geometry.isReadOnly = true }
    if try device.own.flag("removable") { geometry.isRemovable = true }
    if try device.own.optionalString("device-type") == "cdrom" { geometry.isCDROM = true }
    return geometry
  }

  func start(_ device: XenbusDevice) throws(DeviceError) {
    guard let queue else { return }
    try device.start(queue, name: "\(device.type)-\(device.otherDomain.rawValue)") {
      .protocolViolation(queue.violation.map { "\($0)" } ?? "the ring stopped")
    }
  }

  /// Some request has failed, and the guest has been told; whoever looks after the host should know, too.
  func attend(_ device: XenbusDevice) throws(DeviceError) {
    if let text = failure?.take() { device.warn(.resource(text)) }
  }

  func detach(_ device: XenbusDevice) throws(DeviceError) -> String {
    guard let queue else { throw .resource("it is not connected") }
    device.stop(queue)
    // Whatever comes of it, everything is let go of.
    defer { disconnect(device) }
    return "\(try queue.finish())"
  }

  func disconnect(_ device: XenbusDevice) {
    guard let queue else { return }
    device.stop(queue)
    if !queue.drain() {
      device.log.error("\(device.own.path): the store does not complete what it was given; its buffers are left to it")
    }
    device.log.debug("\(device.own.path): disconnected; \(queue.ringDump)")
    whenClosed(device, queue.statistics)
    // The last reference: the ring is unmapped and the port closed here.
    self.queue = nil
  }
}

/// What a frontend publishes: the gate for these keys.
///
/// Not read in a transaction: whoever writes them could make that conflict for as long as it likes, and each value is
/// judged by itself.
struct BlkFrontendKeys {
  let hasProtocolKey: Bool
  let layout: BlkProtocol
  let ringReference: GrantReference
  let eventChannel: EventChannelPort
  let hasPersistentGrants: Bool

  /// Adds what the frontend asked for and got.
  func report(in negotiation: inout Negotiation) {
    negotiation.add(
      "protocol", frontend: hasProtocolKey ? layout.rawValue : "native",
      backend: BlkProtocol.allCases.map(\.rawValue).joined(separator: ", "), agreed: layout.rawValue)
    negotiation.add("ring pages", frontend: "1", backend: "1", agreed: "1")
  }

  init(from frontend: StoreDirectory) throws(DeviceError) {
    hasProtocolKey = try frontend.optionalString("protocol") != nil
    layout = try BlkProtocol(from: frontend)
    ringReference = GrantReference(rawValue: try frontend.number("ring-ref"))
    eventChannel = EventChannelPort(rawValue: try frontend.number("event-channel"))
    hasPersistentGrants = try frontend.flag("feature-persistent")
  }
}

extension XenbusDevice {
  /// What the toolstack's `mode` says: "r" or "ro" refuse writes, "w", "rw" and an absent key allow them; "!" after it
  /// means that somebody else may use the disk as well, which is nothing to us.
  func isReadOnly() throws(DeviceError) -> Bool {
    switch try own.optionalString("mode") ?? "w" {
    case "w", "rw", "w!": return false
    case "r", "ro", "r!": return true
    case let mode: throw .malformedKey(path: own.path(of: "mode"), value: mode, expected: "r or w")
    }
  }
}
