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
    handshake = BackendHandshake(own: try device.ownState())
  }

  var isConnected: Bool { handshake.phase == .connected }

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
      written = try device.switchState(to: .initWait, try backend.offer(device))
    case .connect:
      written = try device.switchState(to: .connected, try backend?.connect(device) ?? [])
      if written {
        try backend?.start(device)
        device.removeError()
      }
    case .disconnect(let state):
      backend?.disconnect(device)
      written = try device.switchState(to: state)
    case .write(let state): written = try device.switchState(to: state)
    case .remove: return .gone
    }
    return written ? .moved : .gone
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

  func end() { backend?.disconnect(device) }
}
