import NetIf
import TestSupport
import XenRing

/// A backend that serves nothing but a control ring, and answers as a test says.
final class RawControlBackend: RawBackend {
  private var ring: BackRing<NetIfControlRequest, NetIfControlResponse>?
  private var bytes: SharedBytes?
  private var control: EventChannel?
  private var device: XenbusDevice?
  private let buffer = PrivatePages(pageCount: 1)
  /// Whether the frontend has a control ring.
  var hasRing: Bool { ring != nil }

  init(offersControlRing: Bool = true) {
    super.init(
      type: "vif",
      offered: [StoreEntry("feature-rx-copy", true), StoreEntry("feature-ctrl-ring", offersControlRing)])
  }

  override func mapRings(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    self.device = device
    guard let port = try device.other.optionalNumber("event-channel-ctrl", as: UInt32.self) else { return [] }
    let region = try mapRing("ctrl-ring-ref", of: device)
    bytes = region.bytes
    ring = BackRing(attaching: region)
    control = try device.bindEventChannel(to: EventChannelPort(rawValue: port))
    return []
  }

  override func dropRings() {
    ring = nil
    (bytes, control) = (nil, nil)
  }

  /// What the frontend has asked for since the last call.
  func requests() throws -> [NetIfControlRequest] { ring == nil ? [] : try takeAll(&ring) }

  /// - Parameters:
  ///   - id: nil for that of the request.
  ///   - type: nil for that of the request.
  func answer(
    _ request: NetIfControlRequest, status: UInt32 = 0, data: UInt32 = 0, id: UInt16? = nil, type: UInt16? = nil
  ) {
    ring!.put(NetIfControlResponse(id: id ?? request.id, type: type ?? request.type, status: status, data: data))
    if ring!.pushAndCheckNotify() { control!.notify() }
  }

  /// The start of a page of the frontend's; nil when it cannot be read.
  func bytes(of reference: UInt32, count: Int) -> [UInt8]? {
    let local = buffer.bytes.slice(from: 0, count: count)
    return copy(.fromGrant, local, reference) ? local.copied() : nil
  }

  /// Whether a page of the frontend's can be written.
  func canWrite(_ reference: UInt32) -> Bool { copy(.toGrant, buffer.bytes.slice(from: 0, count: 1), reference) }

  private func copy(_ direction: GrantCopy.Direction, _ local: SharedBytes, _ reference: UInt32) -> Bool {
    var copies = [
      GrantCopy(
        direction, local: local, reference: GrantReference(rawValue: reference), of: device!.otherDomain, offset: 0)
    ]
    var span = copies.mutableSpan
    device!.platform.grants.copy(&span)
    return copies[0].status == .okay
  }

  /// Writes the response producer behind the ring's back, and wakes the frontend.
  func scribbleProducer(_ value: UInt32) {
    bytes!.scribble(value, at: 8)
    control!.notify()
  }
}
