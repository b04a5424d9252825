import NetIf
import TestSupport
import XenRing

class RawNetFrontend: RawFrontend {
  private var tx: FrontRing<NetIfTxRequest, NetIfTxResponse>?
  private var rx: FrontRing<NetIfRxRequest, NetIfRxResponse>?
  private var txBytes: SharedBytes?
  private var rxBytes: SharedBytes?
  private var channels: EventChannelPair?

  /// Whether each ring's event channel is written besides the one for both.
  var splitsEventChannels = false

  init() { super.init(type: "vif", publishedState: .connected) }

  override func shareRings(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let txPages = try device.share(pageCount: 1)
    let rxPages = try device.share(pageCount: 1)
    var honest = [
      StoreEntry("tx-ring-ref", txPages.references[0].rawValue),
      StoreEntry("rx-ring-ref", rxPages.references[0].rawValue), StoreEntry("request-rx-copy", true),
      StoreEntry("feature-rx-notify", true),
    ]
    if splitsEventChannels {
      let channels = try device.allocateEventChannels(split: true)
      self.channels = channels
      honest += [
        StoreEntry("event-channel-tx", channels.tx.rawValue), StoreEntry("event-channel-rx", channels.rx.rawValue),
      ]
    }
    (txBytes, rxBytes) = (txPages.bytes, rxPages.bytes)
    tx = FrontRing(initialising: txPages.takeRegion())
    rx = FrontRing(initialising: rxPages.takeRegion())
    return honest
  }

  override func dropRings() {
    tx = nil
    rx = nil
    (txBytes, rxBytes, channels) = (nil, nil, nil)
  }

  func page(_ number: Int) -> SharedBytes { bytes(from: number * xenPageSize, count: xenPageSize) }

  func put(_ request: NetIfTxRequest) { tx!.put(request) }

  func put(_ request: NetIfRxRequest) { rx!.put(request) }

  /// - Returns: whether the backend had asked to be woken for what each ring has got.
  @discardableResult func push() -> (tx: Bool, rx: Bool) {
    let notifies = (tx: tx!.pushAndCheckNotify(), rx: rx!.pushAndCheckNotify())
    if notifies.tx || notifies.rx { channel!.notify() }
    return notifies
  }

  func txResponses() throws -> [NetIfTxResponse] { try takeAll(&tx) }

  func rxResponses() throws -> [NetIfRxResponse] { try takeAll(&rx) }

  /// Writes a ring's request producer behind its back, and wakes the backend.
  func scribbleProducer(_ value: UInt32, of ring: NetRingViolation.Ring) {
    (ring == .tx ? txBytes : rxBytes)!.scribble(value, at: 0)
    channel!.notify()
  }
}

final class RawNetBackend: RawBackend {
  private var tx: BackRing<NetIfTxRequest, NetIfTxResponse>?
  private var rx: BackRing<NetIfRxRequest, NetIfRxResponse>?
  private var txBytes: SharedBytes?
  private var rxBytes: SharedBytes?

  init() { super.init(type: "vif", offered: [StoreEntry("feature-rx-copy", true)]) }

  override func mapRings(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let tx = try mapRing("tx-ring-ref", of: device)
    let rx = try mapRing("rx-ring-ref", of: device)
    (txBytes, rxBytes) = (tx.bytes, rx.bytes)
    self.tx = BackRing(attaching: tx)
    self.rx = BackRing(attaching: rx)
    return []
  }

  override func dropRings() {
    tx = nil
    rx = nil
    (txBytes, rxBytes) = (nil, nil)
  }

  func txRequests() throws -> [NetIfTxRequest] { try takeAll(&tx) }

  func rxRequests() throws -> [NetIfRxRequest] { try takeAll(&rx) }

  /// - Returns: whether the frontend had asked to be woken for it.
  @discardableResult func answer(_ response: NetIfTxResponse) -> Bool {
    tx!.put(response)
    let notifies = tx!.pushAndCheckNotify()
    if notifies { channel!.notify() }
    return notifies
  }

  func answer(_ response: NetIfRxResponse) { put(response, on: &rx) }

  /// Writes a ring's response producer behind its back, and wakes the frontend.
  func scribbleProducer(_ value: UInt32, of ring: NetRingViolation.Ring) {
    (ring == .tx ? txBytes : rxBytes)!.scribble(value, at: 8)
    channel!.notify()
  }
}
