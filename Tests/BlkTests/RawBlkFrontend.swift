import BlkIf
import XenRing

/// A frontend without manners: it puts whatever bytes a test wants into the ring, and reads responses raw.
final class RawBlkFrontend: FrontendDriver, Frontend {
  let type = "vbd"
  let publishedState = XenbusState.initialised
  /// Keys to publish in place of, or besides, the honest ones.
  var keys: [StoreEntry] = []
  var withheldKeys: Set<String> = []
  private(set) var isConnected = false
  private var ring: FrontRing<BlkIfRequest, BlkIfResponse>?
  private var ringBytes: SharedBytes?
  private var data: GrantedPages?
  private var dataBytes: SharedBytes?
  private var channel: EventChannel?

  func probe(_ device: XenbusDevice) throws(DeviceError) -> any Frontend { self }

  func publish(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let pages = try device.share(pageCount: 1)
    let channel = try device.allocateEventChannel()
    self.channel = channel
    let data = try device.share(pageCount: 16)
    references = data.references
    dataBytes = data.bytes
    self.data = consume data
    let honest = [
      StoreEntry("ring-ref", pages.references[0].rawValue), StoreEntry("event-channel", channel.port.rawValue),
    ]
    ringBytes = pages.bytes
    ring = FrontRing(initialising: pages.takeRegion())
    let replaced = Set(keys.map(\.key))
    return honest.filter { !replaced.contains($0.key) && !withheldKeys.contains($0.key) } + keys
  }

  func connect(_ device: XenbusDevice) throws(DeviceError) { isConnected = true }

  func stop(_ device: XenbusDevice) { isConnected = false }

  func release(_ device: XenbusDevice) {
    ring = nil
    ringBytes = nil
    data = nil
    dataBytes = nil
    channel = nil
  }

  private(set) var references: [GrantReference] = []

  /// The data page `number`'s bytes from sector `sector` of it on.
  func bytes(page: Int, sector: Int, count: Int) -> SharedBytes {
    dataBytes!.slice(from: page * xenPageSize + sector * 512, count: count)
  }

  func put(_ request: BlkIfRequest) { ring!.put(request) }

  func push() { if ring!.pushAndCheckNotify() { channel!.notify() } }

  /// What the backend has answered since the last call.
  func responses() throws -> [BlkIfResponse] {
    var responses: [BlkIfResponse] = []
    channel!.take()
    while try ring!.finalCheck() { while let response = ring!.next() { responses.append(response) } }
    channel!.rearm()
    return responses
  }

  /// Writes one of the shared page's words, at byte `offset`, behind the ring's back, and wakes the backend.
  func scribble(_ value: UInt32, at offset: Int) {
    let bytes = (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    ringBytes!.slice(from: offset, count: 4).copy(from: bytes.span)
    channel!.notify()
  }
}
