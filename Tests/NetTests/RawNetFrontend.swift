import NetIf
import XenRing

/// A frontend without manners: it puts whatever bytes a test wants into its rings, and reads responses raw.
final class RawNetFrontend: FrontendDriver, Frontend {
  let type = "vif"
  let publishedState = XenbusState.connected
  /// Keys to publish in place of, or besides, the honest ones.
  var keys: [StoreEntry] = []
  var withheldKeys: Set<String> = []
  private(set) var isConnected = false
  private(set) var references: [GrantReference] = []
  private var tx: FrontRing<NetIfTxRequest, NetIfTxResponse>?
  private var rx: FrontRing<NetIfRxRequest, NetIfRxResponse>?
  private var txBytes: SharedBytes?
  private var rxBytes: SharedBytes?
  private var data: GrantedPages?
  private var dataBytes: SharedBytes?
  private var channel: EventChannel?

  func probe(_ device: XenbusDevice) throws(DeviceError) -> any Frontend { self }

  func publish(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let txPages = try device.share(pageCount: 1)
    let rxPages = try device.share(pageCount: 1)
    let data = try device.share(pageCount: 16)
    let channel = try device.allocateEventChannel()
    let honest = [
      StoreEntry("tx-ring-ref", txPages.references[0].rawValue),
      StoreEntry("rx-ring-ref", rxPages.references[0].rawValue), StoreEntry("event-channel", channel.port.rawValue),
      StoreEntry("request-rx-copy", true), StoreEntry("feature-rx-notify", true),
    ]
    references = data.references
    dataBytes = data.bytes
    self.data = consume data
    (txBytes, rxBytes) = (txPages.bytes, rxPages.bytes)
    tx = FrontRing(initialising: txPages.takeRegion())
    rx = FrontRing(initialising: rxPages.takeRegion())
    self.channel = channel
    let replaced = Set(keys.map(\.key))
    return honest.filter { !replaced.contains($0.key) && !withheldKeys.contains($0.key) } + keys
  }

  func connect(_ device: XenbusDevice) throws(DeviceError) { isConnected = true }

  func stop(_ device: XenbusDevice) { isConnected = false }

  func release(_ device: XenbusDevice) {
    tx = nil
    rx = nil
    (txBytes, rxBytes, dataBytes) = (nil, nil, nil)
    data = nil
    channel = nil
  }

  func page(_ number: Int) -> SharedBytes { dataBytes!.slice(from: number * xenPageSize, count: xenPageSize) }

  func put(_ request: NetIfTxRequest) { tx!.put(request) }

  func put(_ request: NetIfRxRequest) { rx!.put(request) }

  func push() {
    let (first, second) = (tx!.pushAndCheckNotify(), rx!.pushAndCheckNotify())
    if first || second { channel!.notify() }
  }

  func txResponses() throws -> [NetIfTxResponse] {
    var responses: [NetIfTxResponse] = []
    channel!.take()
    while try tx!.finalCheck() { while let response = tx!.next() { responses.append(response) } }
    channel!.rearm()
    return responses
  }

  func rxResponses() throws -> [NetIfRxResponse] {
    var responses: [NetIfRxResponse] = []
    channel!.take()
    while try rx!.finalCheck() { while let response = rx!.next() { responses.append(response) } }
    channel!.rearm()
    return responses
  }

  /// Writes a ring's request producer behind its back, and wakes the backend.
  func scribbleProducer(_ value: UInt32, of ring: NetRingViolation.Ring) {
    let word = (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) }
    (ring == .tx ? txBytes : rxBytes)!.slice(from: 0, count: 4).copy(from: word.span)
    channel!.notify()
  }
}
