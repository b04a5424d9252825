import BlkIf
import XenRing

/// One disk's control plane: its keys, its ring's mapping, its queue's start and stop (io/blkif.h).
final class BlkBackDevice: Backend {
  private let store: any BlockStore
  private let offersFlush: Bool
  private let whenClosed: (XenbusDevice, BlkBackStatistics) -> Void
  private(set) var negotiation = Negotiation()
  private var queue: BlkBackQueue?

  init(store: any BlockStore, offersFlush: Bool, whenClosed: @escaping (XenbusDevice, BlkBackStatistics) -> Void) {
    self.store = store
    self.offersFlush = offersFlush
    self.whenClosed = whenClosed
  }

  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    [StoreEntry("feature-flush-cache", offersFlush), StoreEntry("feature-barrier", true)]
  }

  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let geometry = try geometry(device)
    let keys = try BlkFrontendKeys(from: device.other)
    let region = try device.map([keys.ringReference])
    let channel = try device.bindEventChannel(to: keys.eventChannel)
    queue = BlkBackQueue(
      BlkBackWork(
        ring: BackRing(attaching: region), channel: channel, grants: device.platform.grants,
        frontend: device.otherDomain, store: store, geometry: geometry))
    return geometry.entries
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

  func disconnect(_ device: XenbusDevice) {
    guard let queue else { return }
    device.stop(queue)
    if !queue.drain() {
      device.log.error("\(device.own.path): the store does not complete what it was given; its buffers are left to it")
    }
    device.log.info("\(device.own.path): disconnected; \(queue.ringDump)")
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
  let ringReference: GrantReference
  let eventChannel: EventChannelPort

  init(from frontend: StoreDirectory) throws(DeviceError) {
    if let name = try frontend.optionalString("protocol"), name != BlkIf.nativeProtocol {
      throw .unsupported(
        "the frontend's ring layout is \(name.quoted) (\(frontend.path(of: "protocol"))); only \(BlkIf.nativeProtocol) is served"
      )
    }
    ringReference = GrantReference(rawValue: try frontend.number("ring-ref"))
    eventChannel = EventChannelPort(rawValue: try frontend.number("event-channel"))
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
