import XenPlatform

/// What one step of a session came to.
enum SessionProgress { case settled, moved, gone }

/// One device on its bus, whichever end we are.
protocol DeviceSession: AnyObject {
  var device: XenbusDevice { get }
  var isConnected: Bool { get }
  /// What the device waits for, in words; nil when for nothing.
  var waitsFor: String? { get }
  /// What the two ends agreed on, at the last connection.
  var negotiation: Negotiation { get }
  /// Does what the device's queue called for.
  func attend() throws(DeviceError)
  /// When something that failed is tried again; nil when nothing is to be.
  var retriesAt: Uptime? { get }
  /// Has the next step try it.
  func retry()
  /// The last failure that closed it.
  var fault: DeviceError? { get }
  /// Looks at the other end's state and does the one thing that it asks for.
  func step() throws(DeviceError) -> SessionProgress
  /// Closes the device because of `error`.
  func fail(_ error: DeviceError) throws(DeviceError)
  /// Closes the device for good.
  func leave()
  var hasLeft: Bool { get }
  /// Lets go of everything, leaving the device connected where its driver can.
  func detach() throws(DeviceError)
  /// The device's directory is gone: let go of everything, at once.
  func end()
}

extension DeviceSession {
  var retriesAt: Uptime? { nil }
  func retry() {}

  /// Steps until there is nothing to do. A failure closes the device and is left where the toolstack looks for it.
  ///
  /// - Returns: false when the device is gone.
  func turn() -> Bool {
    var mayFail = true
    // More steps than any handshake needs; a peer that rewrites its state all the time gets the next turn.
    for _ in 0..<8 {
      do throws(DeviceError) {
        switch try device.exists() ? step() : .gone {
        case .settled: return true
        case .moved: continue
        case .gone:
          end()
          return false
        }
      } catch {
        close(because: error)
        guard mayFail else { return true }
        mayFail = false
      }
    }
    return true
  }

  /// The device's queue called for its bus.
  func answer() { do throws(DeviceError) { try attend() } catch { close(because: error) } }

  func close(because error: DeviceError) {
    // What cannot be read because the device is being removed is no fault, and one in its place has none yet.
    if (try? device.exists()) == false { return }
    // Our own Closing comes back as a change: what fails at every look is said once.
    if fault == error, (try? device.ownState()) == .closing { return }
    device.log.error("\(device.own.path): \(error)")
    device.writeError(error)
    do throws(DeviceError) {
      try fail(error)
    } catch { device.log.error("\(device.own.path): cannot even be closed: \(error)") }
  }
}
