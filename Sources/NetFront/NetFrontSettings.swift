import NetIf

/// What a connected card may ask of its backend besides frames.
extension NetFrontDevice {
  // MARK: Multicast

  /// Whether the backend is asked to hold back what is sent to groups that the card has not joined. What goes to everybody
  /// always arrives.
  public var filtersMulticast: Bool { multicast.isFiltering }

  /// The groups that the card has joined, whether a backend holds the others' back or not.
  public var groups: Set<MACAddress> { multicast.groups }

  /// Those of them that the backend has refused to take into its list, which is limited: Linux's holds 64.
  public var refusedGroups: Set<MACAddress> { multicast.refused }

  /// Asks for a filter, or for none (`request-multicast-control`).
  ///
  /// - Returns: whether the backend is told now. Else it is when it connects, if it can filter at all: see ``negotiation``.
  @discardableResult
  public func setMulticastFilter(_ isOn: Bool) -> Bool {
    multicast.isFiltering = isOn
    guard isConnected, filterIsOffered, offered?.filtersMulticastAtAnyTime == true else { return false }
    write { (device) throws(DeviceError) in try device.write([StoreEntry("request-multicast-control", isOn)]) }
    return true
  }

  /// Joins a group; the backend is told as soon as there is room, and each time that one connects.
  public func join(_ group: MACAddress) throws(NetFrontError) { try set(group, isJoined: true) }

  public func leave(_ group: MACAddress) throws(NetFrontError) { try set(group, isJoined: false) }

  private func set(_ group: MACAddress, isJoined: Bool) throws(NetFrontError) {
    guard group.isGroup, group != .everybody else { throw .noGroup(group) }
    multicast.set(group, isJoined: isJoined, isTold: isConnected && filterIsOffered)
    if let queues { followMulticast(queues) }
  }

  var filterIsOffered: Bool { features.multicastControl && offered?.filtersMulticast == true }

  /// Takes in what the backend has answered, and says what there is room for.
  func followMulticast(_ queues: NetFrontQueues) {
    while let (change, result) = queues.nextMulticastResult() { multicast.settle(change, result) }
    guard multicast.hasChanges else { return }
    multicast.tell(queues)
    queues.push()
  }

  // MARK: Hashing

  /// Says how the backend is to hash what it sends us, and which queue each packet is to come on (io/netif.h, "Control
  /// messages"): as soon as one is connected, and again whenever one is. Later polls find its answers, and ``hashing`` what
  /// has come of it.
  ///
  /// A packet's hash comes with it (``NetFrontFrame/metadata``).
  ///
  /// - Parameter configuration: one without an algorithm leaves the choice to the backend again.
  public func setHashing(_ configuration: NetHashConfiguration) {
    hashing = .pending(configuration)
    askForHashing()
  }

  func askForHashing() {
    guard let wish = hashing.wish, let queues else { return }
    hashing = queues.ask(for: wish) ? .pending(wish) : .failed(wish, .notOffered)
  }

  /// How many pages of the card's the backend keeps mapped, and copies as memory (``NetFeatures/staticGrants``).
  public var mappedGrantCount: Int { queues?.mappedGrantCount ?? 0 }

  // MARK: Headroom

  /// How much room the card may ask for before each frame, in bytes.
  public static let maxHeadroomByteCount = xenPageSize / 2

  /// How many bytes the backend leaves free before each frame that arrives, as it has said; see
  /// ``NetFrontFrame/headroomByteCount`` for each one's.
  public var headroomByteCount: Int { reconfiguration.agreed }

  /// Asks for room before each frame (`xdp-headroom`), or for none; the backend follows while it is connected, and frames that
  /// are on their way have what they had.
  ///
  /// Linux's backend follows once in a connection: it stays Reconfigured, which leaves it no word for having seen another value.
  /// ``headroomByteCount`` then stays what it was until the next connection.
  ///
  /// - Parameter byteCount: from zero to ``maxHeadroomByteCount``.
  /// - Throws: ``NetFrontError/notSupported(_:)`` when a backend is connected that leaves none.
  public func setHeadroom(_ byteCount: Int) throws(NetFrontError) {
    precondition((0...Self.maxHeadroomByteCount).contains(byteCount), "headroom within its range")
    guard !isConnected || byteCount == 0 || offered?.leavesHeadroom == true else {
      throw .notSupported("feature-xdp-headroom")
    }
    reconfiguration.wanted = byteCount
    if isConnected { write { (device) throws(DeviceError) in try reconfigure(device) } }
  }

  func reconfigure(_ device: XenbusDevice) throws(DeviceError) {
    guard offered?.leavesHeadroom == true else { return }
    switch reconfiguration.observe(backend: try device.otherState() ?? .unknown) {
    case .none: break
    case .begin(let byteCount):
      queues?.takeHeadroom()
      _ = try device.switchState(to: .reconfiguring, [StoreEntry("xdp-headroom", byteCount)])
    case .finish: _ = try device.switchState(to: .connected)
    }
  }

  /// Writes what the user of a connected card wants; where that fails the card is closed.
  private func write(_ body: (XenbusDevice) throws(DeviceError) -> Void) {
    guard let device else { return }
    do throws(DeviceError) { try body(device) } catch { device.report(error) }
  }
}

extension MACAddress {
  /// Everybody's (broadcast).
  fileprivate static let everybody = MACAddress(InlineArray(repeating: 0xFF))
}
