import NetIf
import TestSupport
import XenRing

/// A frontend of one queue without frames, and with a control ring into which it puts whatever a test wants.
final class RawControlFrontend: RawFrontend {
  private var tx: GrantedPages?
  private var rx: GrantedPages?
  private var ring: FrontRing<NetIfControlRequest, NetIfControlResponse>?
  private var ringBytes: SharedBytes?
  private var control: EventChannel?
  /// Which keys of the control ring it writes.
  var written: Set<String> = ["ctrl-ring-ref", "event-channel-ctrl"]

  init() { super.init(type: "vif", publishedState: .connected) }

  override func shareRings(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let (txPage, rxPage) = (try device.share(pageCount: 1), try device.share(pageCount: 1))
    let page = try device.share(pageCount: 1)
    let channel = try device.allocateEventChannel()
    let keys = [
      StoreEntry("tx-ring-ref", txPage.references[0].rawValue), StoreEntry("rx-ring-ref", rxPage.references[0].rawValue),
      StoreEntry("request-rx-copy", true), StoreEntry("feature-rx-notify", true),
      StoreEntry("ctrl-ring-ref", page.references[0].rawValue), StoreEntry("event-channel-ctrl", channel.port.rawValue),
    ]
    control = channel
    ringBytes = page.bytes
    ring = FrontRing(initialising: page.takeRegion())
    (tx, rx) = (consume txPage, consume rxPage)
    return keys.filter { !$0.key.contains("ctrl") || written.contains($0.key) }
  }

  override func dropRings() {
    ring = nil
    (tx, rx, ringBytes, control) = (nil, nil, nil, nil)
  }

  /// The first data page's bytes, for a key or a table; its reference is the first one.
  func setInput(_ input: [UInt8]) { bytes(from: 0, count: input.count).copy(from: input.span) }

  var freeCount: Int { Int(ring!.freeRequestCount) }

  func put(_ request: NetIfControlRequest) { ring!.put(request) }

  func push() { if ring!.pushAndCheckNotify() { control!.notify() } }

  func responses() throws -> [NetIfControlResponse] {
    control!.take()
    var responses: [NetIfControlResponse] = []
    while try ring!.finalCheck() { while let response = ring!.next() { responses.append(response) } }
    control!.rearm()
    return responses
  }

  /// Writes the request producer behind the ring's back, and wakes the backend.
  func scribbleProducer(_ value: UInt32) {
    ringBytes!.scribble(value, at: 0)
    control!.notify()
  }
}
