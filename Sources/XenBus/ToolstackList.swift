import XenPlatform

extension Toolstack {
  /// A device as the store shows it now.
  public struct Listed: Hashable, Sendable {
    public let device: Device
    public let type: String
    /// The virtual device of a disk, the handle of a card.
    public let number: Int
    public let guest: DomainID
    public let driverDomain: DomainID
    /// ``XenbusState/unknown`` for a half that is not there.
    public let frontendState: XenbusState
    public let backendState: XenbusState
    /// What the two ends have left in their error nodes, word for word: a domain's own words, so show them
    /// ``Swift/String/quoted``.
    public let frontendError: String?
    public let backendError: String?
  }

  /// Every device of this type in the store, of whatever domains: by guest, then by number.
  ///
  /// They are found by their backends' directories, whose paths name the guest and the number; what a backend says of its
  /// frontend counts only where that path is one of the type's in that guest's home. A frontend without a backend is
  /// found where libxl has it.
  ///
  /// - Parameter type: "vbd" or "vif".
  public func devices(of type: String) throws(DeviceError) -> [Listed] {
    var found: [Listed] = []
    let domains = try numbers(in: "/local/domain", as: UInt16.self)
    for domain in domains {
      let home = "/local/domain/\(domain)"
      for backendType in try StoreDirectory("\(home)/backend", in: store).children() {
        for guest in try numbers(in: "\(home)/backend/\(backendType)", as: UInt16.self) {
          for number in try numbers(in: "\(home)/backend/\(backendType)/\(guest)", as: Int.self) {
            let usual = Device(
              type: type, number: number, of: DomainID(rawValue: guest), servedBy: DomainID(rawValue: domain),
              backendType: backendType)
            let said = try StoreDirectory(usual.backendPath, in: store).optionalString("frontend")
            // A backend that says nothing is told by its name alone.
            guard said.map({ isFrontend($0, type, of: guest, number) }) ?? (backendType == type) else { continue }
            let device = Device(frontendPath: said ?? usual.frontendPath, backendPath: usual.backendPath)
            found.append(try look(at: device, type, number, guest: guest, driverDomain: domain))
          }
        }
      }
    }
    let known = Set(found.map(\.device.frontendPath))
    for guest in domains {
      for number in try numbers(in: "/local/domain/\(guest)/device/\(type)", as: Int.self) {
        // Only the number of the domain is taken from a guest's words, and shown.
        let front = StoreDirectory("/local/domain/\(guest)/device/\(type)/\(number)", in: store)
        guard !known.contains(front.path) else { continue }
        let domain = (try? front.optionalNumber("backend-id", as: UInt16.self)) ?? 0
        let device = Device(
          type: type, number: number, of: DomainID(rawValue: guest), servedBy: DomainID(rawValue: domain))
        found.append(try look(at: device, type, number, guest: guest, driverDomain: domain))
      }
    }
    return found.sorted { ($0.guest.rawValue, $0.number) < ($1.guest.rawValue, $1.number) }
  }

  /// The names in a directory that are numbers, as a toolstack writes them.
  private func numbers<Number: FixedWidthInteger>(
    in path: String, as type: Number.Type
  ) throws(DeviceError) -> [Number] {
    try StoreDirectory(path, in: store).children().compactMap { name in
      Number(name).flatMap { "\($0)" == name ? $0 : nil }
    }
  }

  /// Whether this is where a guest may have the frontend of such a device: `/local/domain/GUEST/ROOT/TYPE/NUMBER`.
  private func isFrontend(_ path: String, _ type: String, of guest: UInt16, _ number: Int) -> Bool {
    let names = path.split(separator: "/", omittingEmptySubsequences: false)
    return names.count == 7 && Array(names[..<4]) == ["", "local", "domain", "\(guest)"]
      && Toolstack.isName(String(names[4])) && Array(names[5...]) == [type[...], "\(number)"]
  }

  private func look(
    at device: Device, _ type: String, _ number: Int, guest: UInt16, driverDomain: UInt16
  ) throws(DeviceError) -> Listed {
    Listed(
      device: device, type: type, number: number, guest: DomainID(rawValue: guest),
      driverDomain: DomainID(rawValue: driverDomain), frontendState: try state(device.frontendPath),
      backendState: try state(device.backendPath), frontendError: try error(of: device.frontendPath, in: guest),
      backendError: try error(of: device.backendPath, in: driverDomain))
  }

  private func state(_ path: String) throws(DeviceError) -> XenbusState {
    XenbusState(key: try StoreDirectory(path, in: store).optionalString("state"))
  }

  private func error(of path: String, in domain: UInt16) throws(DeviceError) -> String? {
    try StoreDirectory(path, in: store).error(home: "/local/domain/\(domain)")
  }
}
