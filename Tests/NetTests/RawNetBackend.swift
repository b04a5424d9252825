import NetIf
import XenRing

/// A backend without manners: it puts whatever responses a test wants.
final class RawNetBackend: BackendDriver, Backend {
  let type = "vif"
  /// In place of the honest offer.
  var offered = [StoreEntry("feature-rx-copy", true)]
  private var tx: BackRing<NetIfTxRequest, NetIfTxResponse>?
  private var rx: BackRing<NetIfRxRequest, NetIfRxResponse>?
  private var txBytes: SharedBytes?
  private var rxBytes: SharedBytes?
  private var channel: EventChannel?

  func probe(_ device: XenbusDevice) throws(DeviceError) -> any Backend { self }

  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] { offered }

  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let tx = try device.map([GrantReference(rawValue: try device.other.number("tx-ring-ref"))])
    let rx = try device.map([GrantReference(rawValue: try device.other.number("rx-ring-ref"))])
    (txBytes, rxBytes) = (tx.bytes, rx.bytes)
    self.tx = BackRing(attaching: tx)
    self.rx = BackRing(attaching: rx)
    channel = try device.bindEventChannel(to: EventChannelPort(rawValue: try device.other.number("event-channel")))
    return []
  }

  func start(_ device: XenbusDevice) {}

  func disconnect(_ device: XenbusDevice) {
    tx = nil
    rx = nil
    (txBytes, rxBytes) = (nil, nil)
    channel = nil
  }

  func txRequests() throws -> [NetIfTxRequest] {
    var requests: [NetIfTxRequest] = []
    while try tx!.finalCheck() { while let request = tx!.next() { requests.append(request) } }
    return requests
  }

  func rxRequests() throws -> [NetIfRxRequest] {
    var requests: [NetIfRxRequest] = []
    while try rx!.finalCheck() { while let request = rx!.next() { requests.append(request) } }
    return requests
  }

  func answer(_ response: NetIfTxResponse) {
    tx!.put(response)
    if tx!.pushAndCheckNotify() { channel!.notify() }
  }

  func answer(_ response: NetIfRxResponse) {
    rx!.put(response)
    if rx!.pushAndCheckNotify() { channel!.notify() }
  }

  /// Writes a ring's response producer behind its back, and wakes the frontend.
  func scribbleProducer(_ value: UInt32, of ring: NetRingViolation.Ring) {
    let word = (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    (ring == .tx ? txBytes : rxBytes)!.slice(from: 8, count: 4).copy(from: word.span)
    channel!.notify()
  }
}
