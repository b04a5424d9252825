import Glibc
import XenPlatform

/// Makes and removes devices as xl and libxl do: both directories in one transaction, with libxl's permissions.
///
/// It needs the rights of the control domain.
public struct Toolstack {
  /// How long libxl waits for a backend to close a device that is being destroyed.
  public static let destroyTimeout = 10.0
  /// How long libxl waits for a hotplug script.
  public static let hotplugTimeout = 40.0

  /// A device's two directories.
  public struct Device: Hashable, Sendable {
    public let frontendPath: String
    public let backendPath: String
  }

  private let store: any Xenstore

  public init(on platform: any Platform) throws(XenstoreError) { store = try platform.openXenstore() }

  /// Makes a disk.
  ///
  /// - Parameters:
  ///   - number: the virtual device, such as 51712 for xvda.
  ///   - params: what the backend serves, in its own words; a path for a file.
  ///   - backendType: the name under `backend/`; "vbd" unless a backend looks elsewhere.
  public func addVbd(
    _ number: Int = 51712, to guest: DomainID, servedBy driverDomain: DomainID, params: String,
    isReadOnly: Bool = false,
    backendType: String = "vbd"
  ) throws(DeviceError) -> Device {
    try add(
      type: "vbd", backendType: backendType, number: number, to: guest, servedBy: driverDomain,
      frontend: [StoreEntry("virtual-device", number), StoreEntry("device-type", "disk")],
      backend: [
        StoreEntry("params", params), StoreEntry("type", "file"), StoreEntry("mode", isReadOnly ? "r" : "w"),
        StoreEntry("removable", false), StoreEntry("bootable", true), StoreEntry("dev", Self.diskName(number)),
        StoreEntry("device-type", "disk"), StoreEntry("discard-enable", !isReadOnly),
      ])
  }

  /// Makes a network card.
  ///
  /// - Parameters:
  ///   - handle: the card's number in its guest, from 0.
  ///   - mac: six bytes in hexadecimal, such as `00:16:3e:00:00:01`. It is written as it is.
  public func addVif(
    _ handle: Int = 0, to guest: DomainID, servedBy driverDomain: DomainID, mac: String, mtu: Int = 1500
  ) throws(DeviceError) -> Device {
    try add(
      type: "vif", backendType: "vif", number: handle, to: guest, servedBy: driverDomain,
      frontend: [StoreEntry("handle", handle), StoreEntry("mac", mac), StoreEntry("mtu", mtu)],
      backend: [
        StoreEntry("handle", handle), StoreEntry("mac", mac), StoreEntry("type", "vif"), StoreEntry("script", "none"),
        StoreEntry("hotplug-status", "connected"),
      ])
  }

  /// The name that a guest knows the disk by (docs/man/xen-vbd-interface.7.pandoc): `xvda`, or `xvda1` for a partition;
  /// the plain number where it is no such disk.
  private static func diskName(_ number: Int) -> String {
    guard number >> 8 == 202, let letter = UnicodeScalar(UInt32(97 + (number & 0xF0) >> 4)) else { return "\(number)" }
    return "xvd\(letter)" + (number & 0xF == 0 ? "" : "\(number & 0xF)")
  }

  private func add(
    type: String, backendType: String, number: Int, to guest: DomainID, servedBy driverDomain: DomainID,
    frontend: [StoreEntry], backend: [StoreEntry]
  ) throws(DeviceError) -> Device {
    let device = Device(
      frontendPath: "/local/domain/\(guest.rawValue)/device/\(type)/\(number)",
      backendPath: "/local/domain/\(driverDomain.rawValue)/backend/\(backendType)/\(guest.rawValue)/\(number)")
    try StoreDirectory("/", in: store).transaction { (root) throws(DeviceError) in
      let front = root.at(device.frontendPath)
      let back = root.at(device.backendPath)
      // The guest owns its directory and the backend reads it; the other way round for the backend's. Children inherit.
      try front.make(owner: guest, reader: driverDomain)
      try back.make(owner: driverDomain, reader: guest)
      try front.write(
        [StoreEntry("backend", device.backendPath), StoreEntry("backend-id", driverDomain.rawValue)] + frontend)
      try back.write(
        [
          StoreEntry("frontend", device.frontendPath), StoreEntry("frontend-id", guest.rawValue),
          StoreEntry("online", true),
        ] + backend)
      try front.write([StoreEntry("state", XenbusState.initialising.rawValue)])
      try back.write([StoreEntry("state", XenbusState.initialising.rawValue)])
    }
    return device
  }

  /// Asks the two ends to close the device (`online` = 0, Closing); ``isClosed(_:)`` says when they have.
  public func unplug(_ device: Device) throws(DeviceError) {
    try StoreDirectory(device.backendPath, in: store).transaction { (back) throws(DeviceError) in
      guard try back.exists() else { return }
      try back.write([StoreEntry("online", false)])
      // Who is closed already has nothing more to write, and stays so.
      if XenbusState(key: try back.optionalString("state")) == .closed { return }
      try back.write([StoreEntry("state", XenbusState.closing.rawValue)])
    }
  }

  /// Whether the backend has let go of the device.
  public func isClosed(_ device: Device) throws(DeviceError) -> Bool {
    let state = XenbusState(key: try StoreDirectory(device.backendPath, in: store).optionalString("state"))
    return state == .closed || state == .unknown
  }

  /// Removes both directories, whatever state they are in.
  public func remove(_ device: Device) throws(DeviceError) {
    try StoreDirectory("/", in: store).transaction { (root) throws(DeviceError) in
      try root.at(device.frontendPath).removeAll()
      try root.at(device.backendPath).removeAll()
    }
  }

  /// Unplugs the device, waits for the two ends (which must run elsewhere) to close it, and removes it.
  ///
  /// - Parameter timeout: in seconds; after that the device is removed all the same.
  /// - Returns: whether the backend closed it in time.
  @discardableResult
  public func destroy(_ device: Device, timeout: Double = Toolstack.destroyTimeout) throws(DeviceError) -> Bool {
    try unplug(device)
    let start = Uptime.now.nanoseconds
    while try !isClosed(device), Double(Uptime.now.nanoseconds - start) < timeout * 1e9 { usleep(10_000) }
    let closed = try isClosed(device)
    try remove(device)
    return closed
  }
}

extension StoreDirectory {
  /// Another directory in the same transaction.
  func at(_ path: String) -> StoreDirectory { StoreDirectory(path, in: store, transaction: transaction) }

  func make(owner: DomainID, reader: DomainID) throws(DeviceError) {
    try translating { () throws(XenstoreError) in
      try store.makeDirectory(path, in: transaction)
      try store.setPermissions(
        path, [XenstorePermission(owner, .none), XenstorePermission(reader, .read)], in: transaction)
    }
  }

  func removeAll() throws(DeviceError) {
    if try exists() { try translating { () throws(XenstoreError) in try store.remove(path, in: transaction) } }
  }
}
