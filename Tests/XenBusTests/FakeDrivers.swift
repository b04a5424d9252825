import XenBus
import XenPlatform

/// What a bus had a driver do.
enum Call: Hashable {
  case probe, offer, publish, connect, start, disconnect, stop, release, otherEndChanged, attend, detach, resume
}

/// The calls on every device of a driver, and the failures that a test ordered.
final class CallLog {
  private(set) var calls: [String: [Call]] = [:]
  /// By the device's own path: the calls that fail there, and how.
  var failures: [String: [Call: DeviceError]] = [:]

  /// By the device's own path: what else happens in the middle of a call.
  var events: [String: [Call: () -> Void]] = [:]

  func calls(at path: String) -> [Call] { calls[path] ?? [] }

  func count(of call: Call, at path: String) -> Int { calls(at: path).count { $0 == call } }

  fileprivate func note(_ call: Call, _ device: XenbusDevice) throws(DeviceError) {
    // How often an end is looked at is not for anybody to rely on.
    if call != .otherEndChanged { calls[device.own.path, default: []].append(call) }
    events[device.own.path]?[call]?()
    if let failure = failures[device.own.path]?[call] { throw failure }
  }

  fileprivate func noteEnd(_ call: Call, _ device: XenbusDevice) { calls[device.own.path, default: []].append(call) }
}

/// A frontend driver that writes two keys and counts.
final class FakeFrontend: FrontendDriver, Frontend {
  let type: String
  let publishedState: XenbusState
  let negotiation = Negotiation()
  let watchedKeys = ["carrier"]
  /// What the backend's key said at each look.
  private(set) var seen: [String?] = []
  let log = CallLog()

  init(type: String = "vbd", publishedState: XenbusState = .initialised) {
    (self.type, self.publishedState) = (type, publishedState)
  }

  func probe(_ device: XenbusDevice) throws(DeviceError) -> any Frontend {
    try log.note(.probe, device)
    return self
  }

  func publish(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    try log.note(.publish, device)
    return [StoreEntry("ring-ref", 8), StoreEntry("event-channel", 3)]
  }

  func connect(_ device: XenbusDevice) throws(DeviceError) { try log.note(.connect, device) }

  func otherEndChanged(_ device: XenbusDevice) throws(DeviceError) {
    seen.append(try device.other.optionalString("carrier"))
    try log.note(.otherEndChanged, device)
  }

  func stop(_ device: XenbusDevice) { log.noteEnd(.stop, device) }

  func release(_ device: XenbusDevice) { log.noteEnd(.release, device) }
}

/// A backend driver that offers one feature and counts.
final class FakeBackend: BackendDriver, Backend {
  let type: String
  var waitsForHotplug = false
  private(set) var negotiation = Negotiation()
  let log = CallLog()
  /// By the device's own path: what its bus may be called with.
  private(set) var attention: [String: @Sendable () -> Void] = [:]
  /// By the device's own path: a queue to start, and what to say when it stops.
  var queues: [String: (queue: any DataQueue, fault: DeviceError)] = [:]

  /// Where devices were taken up.
  private(set) var resumed: [String] = []

  init(type: String = "vbd") { self.type = type }

  func probe(_ device: XenbusDevice) throws(DeviceError) -> any Backend {
    try log.note(.probe, device)
    return self
  }

  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    try log.note(.offer, device)
    return [StoreEntry("feature-x", true)]
  }

  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    attention[device.own.path] = device.attention
    try log.note(.connect, device)
    negotiation = Negotiation()
    negotiation.add("feature-x", frontend: try device.other.flag("feature-x"), backend: true)
    return [StoreEntry("sectors", 2048)]
  }

  func start(_ device: XenbusDevice) throws(DeviceError) {
    try log.note(.start, device)
    if let (queue, fault) = queues[device.own.path] { try device.start(queue, name: "fake") { fault } }
  }

  func otherEndChanged(_ device: XenbusDevice) throws(DeviceError) { try log.note(.otherEndChanged, device) }

  func attend(_ device: XenbusDevice) throws(DeviceError) {
    device.warn(.resource("the link went down"))
    try log.note(.attend, device)
  }

  func detach(_ device: XenbusDevice) throws(DeviceError) -> String {
    try log.note(.detach, device)
    return "17"
  }

  func resume(_ device: XenbusDevice, from position: String) throws(DeviceError) {
    try log.note(.resume, device)
    resumed.append(position)
  }

  func disconnect(_ device: XenbusDevice) {
    log.noteEnd(.disconnect, device)
    if let (queue, _) = queues[device.own.path] { device.stop(queue) }
  }
}

/// A queue that stops at its first poll, as one does whose peer broke the ring.
final class StoppingQueue: DataQueue {
  private let wakeup = try! Wakeup()

  var descriptors: [CInt] { [wakeup.descriptor] }

  func poll(now: Uptime, budget: Int, looks: Bool) -> PollOutcome { .stopped }
}
