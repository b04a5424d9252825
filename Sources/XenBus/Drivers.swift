/// A frontend driver's part of one device: what its bus has it do, in the order of ``FrontendHandshake``'s actions.
///
/// All of it runs on the thread that polls the bus.
public protocol Frontend: AnyObject {
  /// Reads what the backend offers, shares rings and opens event channels; gives the keys to write.
  ///
  /// After a failure nothing of it is left shared.
  func publish(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry]

  /// Reads what the backend says of the device now that it is connected; requests may be made from here on.
  func connect(_ device: XenbusDevice) throws(DeviceError)

  /// Makes no more requests and takes no more responses; what was in flight is lost, or kept for the next connection.
  /// Everything stays shared, since the backend may be using it. Harmless at any time, also twice.
  func stop(_ device: XenbusDevice)

  /// Gives back everything shared. Comes after ``stop(_:)``. Harmless at any time, also twice.
  func release(_ device: XenbusDevice)

  /// The device will not be connected again: it was removed, or its bus has taken leave of it. Whatever still waits for its
  /// backend waits in vain. Comes after ``stop(_:)``; harmless also twice.
  func forget(_ device: XenbusDevice)

  /// While connected: the backend has changed its state's key or one of the driver's ``FrontendDriver/watchedKeys``, or
  /// may have. Look at what they say now.
  func otherEndChanged(_ device: XenbusDevice) throws(DeviceError)

  /// What the two ends agreed on, at the last connection.
  var negotiation: Negotiation { get }
}

extension Frontend {
  public func forget(_ device: XenbusDevice) {}
  public func otherEndChanged(_ device: XenbusDevice) throws(DeviceError) {}
}

/// A backend driver's part of one device: what its bus has it do, in the order of ``BackendHandshake``'s actions.
///
/// All of it runs on the thread that polls the bus.
public protocol Backend: AnyObject {
  /// The features to write before InitWait.
  func offer(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry]

  /// Reads the frontend's keys, maps its rings and binds its event channels; gives the device's details to write with
  /// Connected. After a failure nothing of it is left mapped.
  func connect(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry]

  /// Connected is written: begin to serve.
  func start(_ device: XenbusDevice) throws(DeviceError)

  /// Stops serving and lets go of everything of the frontend's. Harmless at any time, also twice.
  func disconnect(_ device: XenbusDevice)

  /// As ``disconnect(_:)``, when the bus ends without taking leave of the frontend: what another process could go on with after
  /// a kill may be left for it.
  func end(_ device: XenbusDevice)

  /// Answers all that was taken, takes nothing more and lets go of everything of the frontend's, which is to notice nothing
  /// but a pause.
  ///
  /// - Returns: where another process is to go on: what ``resume(_:from:)`` is given.
  /// - Throws: when that cannot be done; everything is let go of all the same.
  func detach(_ device: XenbusDevice) throws(DeviceError) -> String

  /// In the place of ``connect(_:)``: maps the live rings of a device that another process has detached from, or that it was
  /// killed with.
  ///
  /// - Throws: when what was agreed on then cannot be served now. The device stays as it is, for a process that can.
  func resume(_ device: XenbusDevice, from position: String) throws(DeviceError)

  /// While connected: where a process that comes after this one was killed can go on, for its ``resume(_:from:)``; nil when it
  /// cannot, and closes the device.
  var resumePoint: String? { get }

  /// While connected: the frontend has changed its state's key or one of the driver's ``BackendDriver/watchedKeys``, or
  /// may have. Look at what they say now.
  func otherEndChanged(_ device: XenbusDevice) throws(DeviceError)

  /// Something that the device's queue called the bus for (``XenbusDevice/attention``), such as a link that went down.
  func attend(_ device: XenbusDevice) throws(DeviceError)

  /// What the two ends agreed on, at the last connection.
  var negotiation: Negotiation { get }
}

extension Backend {
  public func otherEndChanged(_ device: XenbusDevice) throws(DeviceError) {}
  public func attend(_ device: XenbusDevice) throws(DeviceError) {}
  public func end(_ device: XenbusDevice) { disconnect(device) }
  public var resumePoint: String? { nil }

  public func detach(_ device: XenbusDevice) throws(DeviceError) -> String {
    disconnect(device)
    throw .unsupported("this driver's devices cannot be left connected")
  }

  public func resume(_ device: XenbusDevice, from position: String) throws(DeviceError) {
    throw .unsupported("this driver cannot go on with a device that another process has left connected")
  }
}

/// Makes the frontends of one type of device.
public protocol FrontendDriver {
  /// "vif", "vbd".
  var type: String { get }

  /// The state that such a frontend writes together with its rings: Initialised (block) or Connected (network).
  var publishedState: XenbusState { get }

  /// Called when the backend's offer is there, again after a failure, and again when a backend offers the device anew;
  /// may give the same object each time.
  func probe(_ device: XenbusDevice) throws(DeviceError) -> any Frontend

  /// The backend's keys, besides its state, whose changes matter while connected: "carrier".
  var watchedKeys: [String] { get }
}

extension FrontendDriver {
  public var watchedKeys: [String] { [] }
}

/// Makes the backends of one type of device.
public protocol BackendDriver {
  /// "vif", "vbd".
  var type: String { get }

  /// Called before features are offered, and again each time that they are offered anew.
  func probe(_ device: XenbusDevice) throws(DeviceError) -> any Backend

  /// The frontend's keys, besides its state, whose changes matter while connected.
  var watchedKeys: [String] { get }

  /// Whether a device is connected only when its hotplug script has said so (`hotplug-status` = connected).
  var waitsForHotplug: Bool { get }

  /// Whether a connected frontend that asks to close (Closing) is served until it has closed (Closed), as xen-blkback does it: Linux's
  /// xen-blkfront of before 5.15 says Closing while its disk is open, and goes on using it. Otherwise everything of it is let go of at
  /// once.
  var servesUntilClosed: Bool { get }
}

extension BackendDriver {
  public var watchedKeys: [String] { [] }
  public var waitsForHotplug: Bool { false }
  public var servesUntilClosed: Bool { false }
}
