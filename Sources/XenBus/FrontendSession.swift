/// Carries out one frontend's handshake: the store's states in, the driver's work and our own state out.
final class FrontendSession: DeviceSession {
  let device: XenbusDevice
  private let driver: any FrontendDriver
  private var frontend: (any Frontend)?
  /// The frontend has not published anything since the domain was resumed.
  private var isResumed: Bool
  private var handshake: FrontendHandshake
  private(set) var fault: DeviceError?

  /// - Parameter resumed: what had the device before the domain was suspended, and is asked to go on in the place of a new one.
  init(
    _ device: XenbusDevice, _ driver: any FrontendDriver, resumed: (any Frontend)? = nil
  ) throws(DeviceError) {
    self.device = device
    self.driver = driver
    frontend = resumed
    isResumed = resumed != nil
    handshake = FrontendHandshake(own: device.knownState, publishedState: driver.publishedState)
  }

  var isConnected: Bool { handshake.phase == .connected }

  var negotiation: Negotiation { frontend?.negotiation ?? Negotiation() }

  var waitsFor: String? { (try? device.otherState() ?? .unknown).flatMap(handshake.waitsFor(backend:)) }

  func step() throws(DeviceError) -> SessionProgress {
    let written: Bool
    switch handshake.observe(backend: try device.otherState() ?? .unknown) {
    case .none:
      if isConnected { try frontend?.otherEndChanged(device) }
      return .settled
    case .publish(let state):
      let frontend = try isResumed ? self.frontend! : driver.probe(device)
      (self.frontend, isResumed) = (frontend, false)
      written = try device.switchState(to: state, try frontend.publish(device))
    case .connect:
      try frontend?.connect(device)
      written = try device.switchState(to: .connected)
      device.removeError()
    case .stop:
      frontend?.stop(device)
      if handshake.leaves { frontend?.forget(device) }
      written = try device.switchState(to: .closed)
    case .release:
      frontend?.release(device)
      written = true
    case .write(let state): written = try device.switchState(to: state)
    }
    return written ? .moved : .gone
  }

  func fail(_ error: DeviceError) throws(DeviceError) {
    fault = error
    frontend?.stop(device)
    handshake.fail()
    _ = try device.switchState(to: .closing)
  }

  func attend() {}

  func leave() {
    handshake.leave()
    if handshake.phase == .closed { frontend?.forget(device) }
  }

  var leaves: Bool { handshake.leaves }
  var hasLeft: Bool { handshake.phase == .closed && waitsFor == nil }

  /// The domain was suspended: nothing that was shared is there any more, so nobody is to be waited for.
  ///
  /// - Returns: what is to go on with the device when it is there again.
  func suspend() -> (any Frontend)? {
    frontend?.stop(device)
    frontend?.release(device)
    return frontend
  }

  /// The same for one that was about to leave: nobody has anything of it, so it has left.
  func leaveAtOnce() {
    end()
    // One that has published nothing cannot tell its directory from one that was made anew, and has nothing to take back.
    if device.knownState != .initialising { _ = try? device.switchState(to: .closed) }
  }

  /// A frontend's pages end with it.
  func detach() { end() }

  func end() {
    frontend?.stop(device)
    frontend?.release(device)
    frontend?.forget(device)
  }
}
