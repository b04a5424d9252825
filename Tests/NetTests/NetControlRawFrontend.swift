import NetIf
import TestSupport
import XenRing

/// A frontend of one queue with a control ring, into which it puts whatever a test wants.
final class RawControlFrontend: RawNetFrontend {
  private var ring: FrontRing<NetIfControlRequest, NetIfControlResponse>?
  private var ringBytes: SharedBytes?
  private var control: EventChannel?
  private var readOnly: GrantedPages?
  /// Of a page that the backend may not write.
  private(set) var readOnlyReference = GrantReference(rawValue: 0)

  override func shareRings(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let others = try super.shareRings(device)
    let page = try device.share(pageCount: 1)
    let channel = try device.allocateEventChannel()
    let keys = [
      StoreEntry("ctrl-ring-ref", page.references[0].rawValue), StoreEntry("event-channel-ctrl", channel.port.rawValue),
    ]
    let readOnlyPage = try device.share(pageCount: 1, writable: false)
    readOnlyReference = readOnlyPage.references[0]
    readOnly = consume readOnlyPage
    control = channel
    ringBytes = page.bytes
    ring = FrontRing(initialising: page.takeRegion())
    return others + keys
  }

  override func dropRings() {
    super.dropRings()
    ring = nil
    readOnly = nil
    (ringBytes, control) = (nil, nil)
  }

  /// A page's slots.
  private(set) var freeControlCount = 128

  func put(_ request: NetIfControlRequest) {
    ring!.put(request)
    freeControlCount -= 1
  }

  func pushControl() { if ring!.pushAndCheckNotify() { control!.notify() } }

  func controlResponses() throws -> [NetIfControlResponse] {
    control!.take()
    var responses: [NetIfControlResponse] = []
    while try ring!.finalCheck() { while let response = ring!.next() { responses.append(response) } }
    control!.rearm()
    freeControlCount += responses.count
    return responses
  }

  /// Writes the control ring's request producer behind its back, and wakes the backend.
  func scribbleControlProducer(_ value: UInt32) {
    ringBytes!.scribble(value, at: 0)
    control!.notify()
  }
}
