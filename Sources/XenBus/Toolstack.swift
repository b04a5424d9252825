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

    /// Where libxl has a device of this kind, unless other names are given.
    ///
    /// - Parameters:
    ///   - type: "vbd" or "vif".
    ///   - backendType: the name under `backend/`; nil for the type's own.
    ///   - frontendRoot: the name in the guest's home.
    public init(
      type: String, number: Int, of guest: DomainID, servedBy driverDomain: DomainID, backendType: String? = nil,
      frontendRoot: String = "device"
    ) {
      frontendPath = "/local/domain/\(guest.rawValue)/\(frontendRoot)/\(type)/\(number)"
      backendPath =
        "/local/domain/\(driverDomain.rawValue)/backend/\(backendType ?? type)/\(guest.rawValue)/\(number)"
    }

    /// The caller has seen that a device may be there.
    init(frontendPath: String, backendPath: String) {
      (self.frontendPath, self.backendPath) = (frontendPath, backendPath)
    }
  }

  let store: any Xenstore

  public init(on platform: any Platform) throws(XenstoreError) { store = try platform.openXenstore() }

  /// Whether the store takes this as one name of a path (docs/misc/xenstore.txt), and it is a plain one: not so long, not
  /// empty, and nothing that a shell would see more in.
  public static func isName(_ text: String) -> Bool {
    (1...64).contains(text.utf8.count)
      && text.utf8.allSatisfy { byte in
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
          UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"):
          true
        default: false
        }
      }
  }

  // MARK: Making devices

  /// A disk that is asked for.
  public struct Disk: Hashable, Sendable {
    /// The virtual device, such as 51712 for xvda (``VirtualDisk``).
    public var number: Int
    /// What the backend serves, in its own words; a path for a file or a block device.
    public var params: String
    /// The block device that Linux's own backend is to serve, as `MAJOR:MINOR` in hexadecimal; nil where the backend
    /// opens what ``params`` names.
    public var physicalDevice: String?
    public var isReadOnly: Bool
    /// The name under `backend/`: another than "vbd" for a backend that looks elsewhere.
    public var backendType: String
    /// The name in the guest's home: another than "device" for a frontend in userspace, since a Linux guest's own drivers
    /// take all that is there.
    public var frontendRoot: String

    public init(
      number: Int = 51712, params: String, physicalDevice: String? = nil, isReadOnly: Bool = false,
      backendType: String = "vbd", frontendRoot: String = "device"
    ) {
      (self.number, self.params, self.physicalDevice) = (number, params, physicalDevice)
      (self.isReadOnly, self.backendType, self.frontendRoot) = (isReadOnly, backendType, frontendRoot)
    }
  }

  /// A network card that is asked for.
  public struct Card: Hashable, Sendable {
    /// The card's number in its guest, from 0.
    public var handle: Int
    /// Six bytes in hexadecimal, such as `00:16:3e:00:00:01`. It is written as it is.
    public var mac: String
    public var mtu: Int
    /// The hotplug script that somebody else runs, and which the backend waits for; nil when there is none.
    public var script: String?
    /// As a ``Disk``'s; "vif" is Linux's own.
    public var backendType: String
    public var frontendRoot: String

    public init(
      handle: Int = 0, mac: String, mtu: Int = 1500, script: String? = nil, backendType: String = "vif",
      frontendRoot: String = "device"
    ) {
      (self.handle, self.mac, self.mtu, self.script) = (handle, mac, mtu, script)
      (self.backendType, self.frontendRoot) = (backendType, frontendRoot)
    }
  }

  /// Makes a disk.
  ///
  /// - Throws: ``DeviceError/resource(_:)`` when the guest is not there, or already has such a device; nothing is then
  ///   written.
  public func add(_ disk: Disk, to guest: DomainID, servedBy driverDomain: DomainID) throws(DeviceError) -> Device {
    // A block device is what a hotplug script would have looked up, and then said so.
    let source =
      disk.physicalDevice.map {
        [
          StoreEntry("type", "phy"), StoreEntry("physical-device", $0), StoreEntry("script", "none"),
          StoreEntry("hotplug-status", "connected"),
        ]
      } ?? [StoreEntry("type", "file")]
    return try add(
      Device(
        type: "vbd", number: disk.number, of: guest, servedBy: driverDomain, backendType: disk.backendType,
        frontendRoot: disk.frontendRoot),
      to: guest, servedBy: driverDomain,
      frontend: [StoreEntry("virtual-device", disk.number), StoreEntry("device-type", "disk")],
      backend: source + [
        StoreEntry("params", disk.params), StoreEntry("mode", disk.isReadOnly ? "r" : "w"),
        StoreEntry("removable", false), StoreEntry("bootable", true),
        StoreEntry("dev", VirtualDisk.name(of: disk.number)), StoreEntry("device-type", "disk"),
        StoreEntry("discard-enable", !disk.isReadOnly),
      ])
  }

  /// Makes a network card; throws as for a disk.
  public func add(_ card: Card, to guest: DomainID, servedBy driverDomain: DomainID) throws(DeviceError) -> Device {
    // Linux's backend wants a script's name, and waits until somebody says that it has run.
    let script =
      card.script.map { [StoreEntry("script", $0)] } ?? [
        StoreEntry("script", "none"), StoreEntry("hotplug-status", "connected"),
      ]
    return try add(
      Device(
        type: "vif", number: card.handle, of: guest, servedBy: driverDomain, backendType: card.backendType,
        frontendRoot: card.frontendRoot),
      to: guest, servedBy: driverDomain,
      frontend: [StoreEntry("handle", card.handle), StoreEntry("mac", card.mac), StoreEntry("mtu", card.mtu)],
      backend: script + [
        StoreEntry("handle", card.handle), StoreEntry("mac", card.mac), StoreEntry("type", "vif"),
      ])
  }

  /// Makes a disk of a file, where libxl would.
  public func addVbd(
    _ number: Int = 51712, to guest: DomainID, servedBy driverDomain: DomainID, params: String,
    isReadOnly: Bool = false,
    backendType: String = "vbd"
  ) throws(DeviceError) -> Device {
    try add(
      Disk(number: number, params: params, isReadOnly: isReadOnly, backendType: backendType), to: guest,
      servedBy: driverDomain)
  }

  /// Makes a network card, where libxl would.
  public func addVif(
    _ handle: Int = 0, to guest: DomainID, servedBy driverDomain: DomainID, mac: String, mtu: Int = 1500
  ) throws(DeviceError) -> Device {
    try add(Card(handle: handle, mac: mac, mtu: mtu), to: guest, servedBy: driverDomain)
  }

  private func add(
    _ device: Device, to guest: DomainID, servedBy driverDomain: DomainID, frontend: [StoreEntry],
    backend: [StoreEntry]
  ) throws(DeviceError) -> Device {
    try StoreDirectory("/", in: store).transaction { (root) throws(DeviceError) in
      for domain in [guest, driverDomain] {
        guard try root.at("/local/domain/\(domain.rawValue)").exists() else {
          throw .resource("there is no \(domain)")
        }
      }
      let front = root.at(device.frontendPath)
      let back = root.at(device.backendPath)
      for half in [front, back] where try half.exists() {
        throw .resource("\(half.path) exists already: remove that device first")
      }
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

  // MARK: Removing devices

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

  /// Whether either half of the device is there.
  public func exists(_ device: Device) throws(DeviceError) -> Bool {
    if try StoreDirectory(device.frontendPath, in: store).exists() { return true }
    return try StoreDirectory(device.backendPath, in: store).exists()
  }

  /// Removes both directories, whatever state they are in, and those above them that hold nothing else.
  public func remove(_ device: Device) throws(DeviceError) {
    let root = StoreDirectory("/", in: store)
    do throws(DeviceError) {
      try root.transaction { (root) throws(DeviceError) in
        // Of the frontend its type's, of the backend its guest's and its type's.
        try root.at(device.frontendPath).removeAll(andAbove: 1)
        try root.at(device.backendPath).removeAll(andAbove: 2)
      }
    } catch {
      guard case .store(let fault) = error, fault.code == .conflict else { throw error }
      // A guest that writes its keys again and again does not keep its device. Its own directory goes by itself, and not those above:
      // without a transaction nobody knows whether they are empty.
      try root.transaction { (root) throws(DeviceError) in try root.at(device.backendPath).removeAll(andAbove: 2) }
      try root.at(device.frontendPath).removeAll(andAbove: 0)
    }
  }

  /// Whether one of the ends may hold something of the other's: rings, pages, event channels.
  private func mayBeConnected(_ device: Device) throws(DeviceError) -> Bool {
    for path in [device.frontendPath, device.backendPath] {
      switch XenbusState(key: try StoreDirectory(path, in: store).optionalString("state")) {
      case .initialised, .connected, .closing, .reconfiguring, .reconfigured: return true
      case .unknown, .initialising, .initWait, .closed: continue
      }
    }
    return false
  }

  /// Unplugs the device, waits for the two ends (which must run elsewhere) to close it, and removes it. Where neither end
  /// had anything of the other's there is nothing to wait for, and not every backend answers then: Linux's wait for a
  /// frontend.
  ///
  /// - Parameter timeout: in seconds; after that the device is removed all the same.
  /// - Returns: whether it was closed in time.
  @discardableResult
  public func destroy(_ device: Device, timeout: Double = Toolstack.destroyTimeout) throws(DeviceError) -> Bool {
    // Asked first: from then on the backend's state is what we have written.
    var isClosed = try !mayBeConnected(device)
    try unplug(device)
    let start = Uptime.now.nanoseconds
    if !isClosed { isClosed = try self.isClosed(device) }
    while !isClosed, Double(Uptime.now.nanoseconds - start) < timeout * 1e9 {
      usleep(10_000)
      isClosed = try self.isClosed(device)
    }
    try remove(device)
    return isClosed
  }
}

extension StoreDirectory {
  /// Another directory in the same transaction.
  package func at(_ path: String) -> StoreDirectory { StoreDirectory(path, in: store, transaction: transaction) }

  func make(owner: DomainID, reader: DomainID) throws(DeviceError) {
    try translating { () throws(XenstoreError) in
      try store.makeDirectory(path, in: transaction)
      try store.setPermissions(
        path, [XenstorePermission(owner, .none), XenstorePermission(reader, .read)], in: transaction)
    }
  }

  /// Removes the directory with all below it, and of as many above it those that are empty then and ours to remove.
  func removeAll(andAbove levelCount: Int) throws(DeviceError) {
    guard try exists() else { return }
    try translating { () throws(XenstoreError) in try store.remove(path, in: transaction) }
    var above = path
    for _ in 0..<levelCount {
      above = String(above[..<(above.lastIndex(of: "/") ?? above.startIndex)])
      do throws(XenstoreError) {
        guard try store.directory(above, in: transaction).isEmpty else { return }
        try store.remove(above, in: transaction)
      } catch {
        if error.code == .permissionDenied { return }
        throw .store(error)
      }
    }
  }
}
