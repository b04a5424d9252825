/// Carries out one backend's handshake: the store's states in, the driver's work and our own state out.
final class BackendSession: DeviceSession {
  let device: XenbusDevice
  private let driver: any BackendDriver
  private var backend: (any Backend)?
  private var handshake: BackendHandshake
  private(set) var fault: DeviceError?

  init(_ device: XenbusDevice, _ driver: any BackendDriver) throws(DeviceError) {
    self.device = device
    self.driver = driver
    handshake = BackendHandshake(
      own: try device.ownState(), isDetached: try device.own.optionalString(Self.resumeKey) != nil)
  }

  /// In our own directory, where no guest writes: where another process of ours can go on with a device that is left
  /// connected, on purpose or by a kill.
  private static let resumeKey = "resume-from"

  var isConnected: Bool { handshake.phase == .connected }

  var isHeld: Bool { handshake.phase == .held }

  var negotiation: Negotiation { backend?.negotiation ?? Negotiation() }

  var waitsFor: String? {
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
    switch handshake.observe(frontend: try device.otherState(), isOnline: isOnline, isPlugged: isPlugged) {
    case .none:
      if isConnected { try backend?.otherEndChanged(device) }
      return .settled
    case .offer:
      let backend = try driver.probe(device)
      self.backend = backend
      written = try device.switchState(
        to: .initWait, try backend.offer(device) + [StoreEntry(absent: Self.resumeKey)])
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

  /// A failure is nothing that the frontend has done: it goes on waiting for a backend that can.
  private func resume() throws(DeviceError) {
    do throws(DeviceError) {
      let position = try device.own.string(Self.resumeKey)
      let backend = try driver.probe(device)
      try backend.resume(device, from: position)
      self.backend = backend
    } catch {
      handshake.hold()
      fault = error
      device.warn(error)
      return
    }
    // First: whoever finds the former word after our own end would serve again what we are about to.
    try device.own.write([resumeEntry])
    device.beginLife()
    try backend?.start(device)
    device.removeError()
  }

  func fail(_ error: DeviceError) throws(DeviceError) {
    fault = error
    backend?.disconnect(device)
    handshake.fail()
    _ = try device.switchState(to: .closing)
  }

  func attend() throws(DeviceError) { if isConnected { try backend?.attend(device) } }

  func leave() { handshake.leave() }

  var hasLeft: Bool { handshake.phase == .removed }

  func end() {
    // With a device that is gone nobody can go on.
    if (try? device.exists()) == false { backend?.disconnect(device) } else { backend?.end(device) }
  }
}
