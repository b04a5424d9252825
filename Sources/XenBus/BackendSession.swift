import XenPlatform

/// Carries out one backend's handshake: the store's states in, the driver's work and our own state out.
final class BackendSession: DeviceSession {
  let device: XenbusDevice
  private let driver: any BackendDriver
  private var backend: (any Backend)?
  private var handshake: BackendHandshake
  private(set) var fault: DeviceError?
  /// When the device is tried again, if it is held or not offered yet then, and how often it has been.
  private var nextRetry: Uptime?
  private var retryCount = 0

  init(_ device: XenbusDevice, _ driver: any BackendDriver) throws(DeviceError) {
    self.device = device
    self.driver = driver
    handshake = BackendHandshake(
      own: device.knownState, isDetached: try device.own.optionalString(Self.resumeKey) != nil,
      servesUntilClosed: driver.servesUntilClosed)
  }

  /// In our own directory, where no guest writes: where another process of ours can go on with a device that is left
  /// connected, on purpose or by a kill.
  private static let resumeKey = "resume-from"

  var isConnected: Bool { handshake.phase == .connected }

  var isHeld: Bool { handshake.phase == .held }

  private var isPostponed: Bool { handshake.phase == .initialising && nextRetry != nil }

  var retriesAt: Uptime? { isHeld || isPostponed ? nextRetry : nil }

  /// It is held, and not tried any more.
  var isGivenUp: Bool { isHeld && nextRetry == nil }

  var negotiation: Negotiation { backend?.negotiation ?? Negotiation() }

  var waitsFor: String? {
    if retriesAt != nil {
      return
        "what keeps it from being \(isHeld ? "taken up" : "offered") to end, which is looked at \(Self.maxRetryCount) times and has been "
        + "\(retryCount) times; the frontend goes on waiting"
    }
    let isPlugged = (try? isPlugged()) ?? false
    return (try? device.otherState()).flatMap { handshake.waitsFor(frontend: $0, isPlugged: isPlugged) }
  }

  /// What the device's hotplug script has said, where the driver cares.
  private func isPlugged() throws(DeviceError) -> Bool {
    guard driver.waitsForHotplug else { return true }
    switch try device.own.optionalString("hotplug-status") {
    case "connected": return true
    case "error":
      let reason = try device.own.optionalString("hotplug-error")?.quoted ?? "and does not say why"
      throw .resource("the hotplug script failed: \(reason)")
    default: return false
    }
  }

  func step() throws(DeviceError) -> SessionProgress {
    let isOnline = try device.own.optionalString("online") != "0"
    // Asked only while it matters: what the script has failed must be able to close.
    let isPlugged = try handshake.phase == .initWait ? isPlugged() : true
    let written: Bool
    let frontend = try device.otherState()
    switch handshake.observe(
      frontend: frontend, isOnline: isOnline, isPlugged: isPlugged, mayOffer: !isPostponed)
    {
    case .none:
      if isConnected { try backend?.otherEndChanged(device) }
      return .settled
    case .offer:
      guard let entries = try offer() else { return .settled }
      written = try device.switchState(to: .initWait, entries + [StoreEntry(absent: Self.resumeKey)])
    case .connect:
      let entries = try backend?.connect(device) ?? []
      written = try device.switchState(to: .connected, entries + [resumeEntry])
      if written {
        device.beginLife()
        try backend?.start(device)
        device.removeError()
      }
    case .resume:
      try resume()
      return .settled
    case .reconfigure:
      try backend?.otherEndChanged(device)
      written = try device.switchState(to: .reconfigured)
    case .disconnect(let state):
      backend?.disconnect(device)
      written = try device.switchState(to: state)
    case .write(let state): written = try device.switchState(to: state)
    case .remove:
      // The toolstack removes what it withdraws; after a guest that is no more nobody may look here again.
      try? device.removeAfterOther()
      return .gone
    }
    return written ? .moved : .gone
  }

  /// - Returns: nil when the offer cannot be made yet.
  private func offer() throws(DeviceError) -> [StoreEntry]? {
    let begun = device.clock()
    // What it holds alone, an image or an interface, the next one needs.
    backend = nil
    let entries: [StoreEntry]
    do throws(DeviceError) {
      let backend = try driver.probe(device)
      self.backend = backend
      entries = try backend.offer(device)
    } catch {
      // To close would be the end of the disk of a frontend like Linux's.
      guard case .unavailable = error, scheduleRetry(since: begun) else { throw error }
      handshake.postpone()
      if fault != error { device.warn(error) }
      fault = error
      return nil
    }
    if retryCount > 0 { (fault, retryCount) = (nil, 0) }
    return entries
  }

  // MARK: Leaving a device connected

  /// What is left for a process that comes after a kill.
  private var resumeEntry: StoreEntry {
    backend?.resumePoint.map { StoreEntry(Self.resumeKey, $0) } ?? StoreEntry(absent: Self.resumeKey)
  }

  func detach() throws(DeviceError) {
    guard isConnected, let backend else { return end() }
    let position: String
    do throws(DeviceError) { position = try backend.detach(device) } catch {
      // Nobody is to go on with it: the next start closes it.
      try? device.own.remove(Self.resumeKey)
      throw error
    }
    try device.own.transaction { (own) throws(DeviceError) in
      // Not when the toolstack has removed the device meanwhile, withdrawn it or made it anew.
      guard XenbusState(key: try own.optionalString("state")) == .connected else { return }
      try own.write([StoreEntry(Self.resumeKey, position)])
    }
  }

  /// What is unavailable is tried so often, a tenth of a second after the first time and then after twice as long each time, up to
  /// five seconds: for more than a minute. What holds a killed process's image or record may take as long to end.
  private static let maxRetryCount = 20
  private static let retryDelay: ClosedRange<UInt64> = 100_000_000...5_000_000_000

  func retry() {
    handshake.retry()
    nextRetry = nil
    retryCount += 1
  }

  /// A failure is nothing that the frontend has done: it goes on waiting for a backend that can.
  private func resume() throws(DeviceError) {
    let begun = device.clock()
    do throws(DeviceError) {
      let position = try device.own.string(Self.resumeKey)
      let backend = try driver.probe(device)
      try backend.resume(device, from: position)
      self.backend = backend
    } catch {
      handshake.hold()
      if fault != error { device.warn(error) }
      fault = error
      if case .unavailable = error { _ = scheduleRetry(since: begun) }
      return
    }
    (fault, retryCount) = (nil, 0)
    // First: whoever finds the former word after our own end would serve again what we are about to.
    try device.own.write([resumeEntry])
    device.beginLife()
    try backend?.start(device)
    device.removeError()
  }

  /// - Returns: false when it has been tried often enough.
  private func scheduleRetry(since begun: Uptime) -> Bool {
    guard retryCount < Self.maxRetryCount else {
      device.log.error("\(device.own.path): not tried any more")
      return false
    }
    let now = device.clock().nanoseconds
    let (delay, longest) = (Self.retryDelay.lowerBound << UInt64(min(retryCount, 8)), Self.retryDelay.upperBound)
    // A try that waits for a lock keeps other devices waiting: for a tenth of the time at most.
    nextRetry = Uptime(nanoseconds: now + max(min(delay, longest), (now - min(now, begun.nanoseconds)) * 10))
    return true
  }

  func fail(_ error: DeviceError) throws(DeviceError) {
    fault = error
    (nextRetry, retryCount) = (nil, 0)
    backend?.disconnect(device)
    handshake.fail()
    _ = try device.switchState(to: .closing)
  }

  func attend() throws(DeviceError) {
    if isConnected { try backend?.attend(device) }
    // Whoever calls for attention has perhaps set right what was wrong.
    if isHeld || isPostponed { (nextRetry, retryCount) = (device.clock(), 0) }
  }

  func leave() { handshake.leave() }

  var hasLeft: Bool { handshake.phase == .removed }

  func end() {
    // With a device that is gone nobody can go on.
    if (try? device.exists()) == false { backend?.disconnect(device) } else { backend?.end(device) }
  }
}
