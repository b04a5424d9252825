import Glibc
import XenBus
import XenPlatform
import XenRing

/// A frontend without manners: it puts whatever bytes a test wants into its rings, and reads responses raw. What its rings
/// are, a subclass says.
open class RawFrontend: FrontendDriver, Frontend {
  public let type: String
  public let publishedState: XenbusState
  public let negotiation = Negotiation()
  /// Keys to publish in place of, or besides, the honest ones.
  public var keys: [StoreEntry] = []
  public var withheldKeys: Set<String> = []
  public private(set) var isConnected = false
  /// The pages for data.
  public private(set) var references: [GrantReference] = []
  private var data: GrantedPages?
  private var dataBytes: SharedBytes?
  public private(set) var channel: EventChannel?

  private let dataPageCount: Int

  public init(type: String, publishedState: XenbusState, dataPageCount: Int = 16) {
    (self.type, self.publishedState, self.dataPageCount) = (type, publishedState, dataPageCount)
  }

  /// Shares the rings; gives their keys.
  open func shareRings(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] { [] }

  open func dropRings() {}

  /// The data pages' bytes.
  public func bytes(from offset: Int, count: Int) -> SharedBytes { dataBytes!.slice(from: offset, count: count) }

  public func probe(_ device: XenbusDevice) throws(DeviceError) -> any Frontend { self }

  public func publish(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let data = try device.share(pageCount: dataPageCount)
    var honest = try shareRings(device)
    // Unless the rings have channels of their own.
    if !honest.contains(where: { $0.key.hasSuffix("event-channel") }) {
      let channel = try device.allocateEventChannel()
      honest.append(StoreEntry("event-channel", channel.port.rawValue))
      self.channel = channel
    }
    references = data.references
    dataBytes = data.bytes
    self.data = consume data
    return keys.replacing(in: honest).filter { !withheldKeys.contains($0.key) }
  }

  public func connect(_ device: XenbusDevice) throws(DeviceError) { isConnected = true }

  /// How often the backend has changed its keys while connected, or may have.
  public private(set) var changeCount = 0

  public func otherEndChanged(_ device: XenbusDevice) throws(DeviceError) { changeCount += 1 }

  public func stop(_ device: XenbusDevice) { isConnected = false }

  public func release(_ device: XenbusDevice) {
    dropRings()
    data = nil
    (dataBytes, channel) = (nil, nil)
  }

  /// All of one ring's responses since the last call.
  public func takeAll<Request, Response>(_ ring: inout FrontRing<Request, Response>?) throws -> [Response] {
    var responses: [Response] = []
    channel!.take()
    while try ring!.finalCheck() { while let response = ring!.next() { responses.append(response) } }
    channel!.rearm()
    return responses
  }
}

/// A backend without manners: it puts whatever responses a test wants.
open class RawBackend: BackendDriver, Backend {
  public let type: String
  public let negotiation = Negotiation()
  /// What it offers before the frontend publishes anything.
  public var offered: [StoreEntry]
  /// Keys to write with Connected, in place of, or besides, the honest ones.
  public var keys: [StoreEntry] = []
  public private(set) var channel: EventChannel?

  public init(type: String, offered: [StoreEntry] = []) { (self.type, self.offered) = (type, offered) }

  /// Maps the rings; gives the honest keys that go with Connected.
  open func mapRings(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] { [] }

  open func dropRings() {}

  /// The ring page whose reference the frontend has written below `key`.
  public func mapRing(_ key: String, of device: XenbusDevice) throws(DeviceError) -> SharedRegion {
    try device.map([GrantReference(rawValue: try device.other.number(key))])
  }

  public func probe(_ device: XenbusDevice) throws(DeviceError) -> any Backend { self }

  public func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] { offered }

  public func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    let honest = try mapRings(device)
    channel = try device.bindEventChannel(to: EventChannelPort(rawValue: try device.other.number("event-channel")))
    return keys.replacing(in: honest)
  }

  public func start(_ device: XenbusDevice) {}

  public func disconnect(_ device: XenbusDevice) {
    dropRings()
    channel = nil
  }

  /// All of one ring's requests since the last call.
  public func takeAll<Request, Response>(_ ring: inout BackRing<Request, Response>?) throws -> [Request] {
    var requests: [Request] = []
    while try ring!.finalCheck() { while let request = ring!.next() { requests.append(request) } }
    return requests
  }

  /// Whether the frontend has sent an event since this was asked for the last time.
  public func hasEvent() -> Bool {
    var waits = [pollfd(fd: channel!.descriptor, events: Int16(POLLIN), revents: 0)]
    guard Wakeup.wait(for: &waits, timeout: 0) else { return false }
    channel!.take()
    channel!.rearm()
    return true
  }

  /// - Returns: whether the frontend had asked to be woken for it.
  @discardableResult
  public func put<Request, Response>(_ response: Response, on ring: inout BackRing<Request, Response>?) -> Bool {
    ring!.put(response)
    let notifies = ring!.pushAndCheckNotify()
    if notifies { channel!.notify() }
    return notifies
  }
}

extension [StoreEntry] {
  /// These, and those of `honest` whose keys are not among them.
  fileprivate func replacing(in honest: [StoreEntry]) -> [StoreEntry] {
    let replaced = Set(map(\.key))
    return honest.filter { !replaced.contains($0.key) } + self
  }
}
