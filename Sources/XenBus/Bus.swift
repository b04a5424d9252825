import Glibc
import Logging
import XenPlatform

/// The xenbus of one domain: it finds devices in the store, hands them to drivers, and takes each one through its
/// handshake.
///
/// A bus belongs to one thread, which calls ``poll()`` whenever ``wait(milliseconds:)`` or ``descriptors`` say so, or
/// lets ``run(until:)`` do it. The queues of its devices are polled by the ``QueueHost`` that it was given.
public final class Bus {
  private enum Drivers {
    case front(any FrontendDriver)
    case back(any BackendDriver)

    var type: String {
      switch self {
      case .front(let driver): driver.type
      case .back(let driver): driver.type
      }
    }

    /// The other end's keys whose changes matter.
    var watchedKeys: [String] {
      switch self {
      case .front(let driver): ["state"] + driver.watchedKeys
      case .back(let driver): ["state"] + driver.watchedKeys
      }
    }

    /// Where a device's own directory says who its other end is.
    var otherPathKey: String { if case .front = self { "backend" } else { "frontend" } }
    var otherDomainKey: String { otherPathKey + "-id" }
  }

  private let platform: any Platform
  private let store: any Xenstore
  private let queueHost: any QueueHost
  private let log: Logger
  private let home: String
  private let signal: BusSignal
  /// Where devices of one kind are looked for.
  private struct Root {
    let path: String
    /// How many names lie between there and a device.
    let depth: Int
    let drivers: Drivers
    /// False once unregistered; the watch stays, for the devices found so far.
    var findsDevices = true
  }

  /// By watch token.
  private var roots: [String: Root] = [:]
  private var sessions: [String: any DeviceSession] = [:]
  /// Devices whose own keys say nothing that we could follow, and why.
  private var refused: [String: DeviceError] = [:]
  private var dirty: Set<String> = []
  /// Frontends of a domain that was resumed whose devices are not there again.
  private var suspended: [String: (frontend: any Frontend, device: XenbusDevice)] = [:]

  /// - Parameter queueHost: who polls the queues of backends; by default each has a thread of its own.
  public init(
    on platform: any Platform, queueHost: any QueueHost = ThreadPerQueue(), log: Logger = Logger(label: "xenbus")
  ) throws(XenstoreError) {
    self.platform = platform
    self.queueHost = queueHost
    self.log = log
    do throws(ResourceError) { signal = try BusSignal() } catch {
      throw XenstoreError(.system(error.description), "connect to", "")
    }
    store = try platform.openXenstore()
    home = "/local/domain/\(platform.domain.rawValue)"
  }

  /// Queues are stopped and everything is let go of, as when a process ends; the states stay as they are. To take leave
  /// of the other ends first, ``close()``.
  deinit {
    for session in sessions.values { session.end() }
    forgetSuspended()
  }

  // MARK: Drivers

  /// Serves every device of the driver's type below `root` (by default `backend` in our home), now and later.
  public func register(_ driver: any BackendDriver, root: String? = nil) throws(XenstoreError) {
    try watch(root: "\(root ?? home + "/backend")/\(driver.type)", depth: 2, .back(driver))
  }

  /// Uses every device of the driver's type below `root` (by default `device` in our home), now and later.
  public func register(_ driver: any FrontendDriver, root: String? = nil) throws(XenstoreError) {
    try watch(root: "\(root ?? home + "/device")/\(driver.type)", depth: 1, .front(driver))
  }

  /// Uses the one device at `path`, wherever that is, now and whenever it comes back.
  public func register(_ driver: any FrontendDriver, at path: String) throws(XenstoreError) {
    try watch(root: path, depth: 0, .front(driver))
  }

  /// Serves the one device at `path`, wherever that is.
  public func register(_ driver: any BackendDriver, at path: String) throws(XenstoreError) {
    try watch(root: path, depth: 0, .back(driver))
  }

  /// Finds no more devices of `type`; those found go on.
  public func unregister(type: String) {
    for (token, root) in roots where root.drivers.type == type { roots[token]?.findsDevices = false }
  }

  private func watch(root path: String, depth: Int, _ drivers: Drivers) throws(XenstoreError) {
    let token = Self.rootToken(path)
    let former = roots.updateValue(Root(path: path, depth: depth, drivers: drivers), forKey: token)
    precondition(former?.findsDevices != true, "one driver a type")
    // Setting a watch anew reports once, as the first time, and so finds what is there.
    if former != nil { try store.unwatch(path, token: token) }
    try store.watch(path, token: token)
  }

  // MARK: Running

  /// One descriptor or more to sleep on: readable when ``poll()`` has something to do.
  public var descriptors: [CInt] { [store.descriptor, signal.wakeup.descriptor] }

  /// Takes the changes that the store and the queues have reported, and takes every device concerned as far as it goes.
  /// Never waits for a peer.
  ///
  /// - Returns: `.more` when changes are left to take; an instant when something that has failed is to be tried again then.
  @discardableResult
  public func poll() -> PollOutcome {
    for (path, call) in signal.take() {
      guard let session = sessions[path] else { continue }
      if let (error, life) = call.fault, session.device.life == life {
        session.close(because: error)
        dirty.insert(path)
      }
      // Also when the fault is a former life's. After one of this life nothing is asked: the device is not connected.
      if call.wantsAttention { session.answer() }
    }
    var budget = 64
    while budget > 0, let event = store.nextWatchEvent() {
      budget -= 1
      note(event)
    }
    let now = queueHost.now
    for (path, session) in sessions {
      guard let instant = session.retriesAt, instant <= now else { continue }
      session.retry()
      dirty.insert(path)
    }
    var turns: [DomainID: Int] = [:]
    for path in dirty.sorted() {
      if let domain = sessions[path]?.device.otherDomain {
        guard turns[domain, default: 0] < Self.turnsPerDomain else { continue }
        turns[domain, default: 0] += 1
      }
      dirty.remove(path)
      if let session = sessions[path], !session.turn() { forget(path) }
    }
    if budget == 0 || !dirty.isEmpty { return .more }
    return nextRetry.map { .idleUntil($0) } ?? .idle
  }

  private var nextRetry: Uptime? {
    var next: Uptime?
    for session in sessions.values {
      if let instant = session.retriesAt { next = min(instant, next ?? instant) }
    }
    return next
  }

  /// How many devices of one other domain a poll looks at: who has many, and changes them all the time, keeps nobody else
  /// waiting for longer (XSA-349).
  private static let turnsPerDomain = 16

  /// Sleeps until there is something to do.
  ///
  /// - Parameter milliseconds: how long at most; -1 without end.
  public func wait(milliseconds: CInt) {
    var waits = descriptors.map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    _ = Wakeup.wait(for: &waits, timeout: milliseconds)
  }

  /// Polls and sleeps by turns until `condition` holds or the time is up.
  ///
  /// - Parameter seconds: how long at most; nil without end.
  /// - Returns: whether the condition came to hold.
  @discardableResult
  public func run(seconds: Double? = nil, until condition: () -> Bool) -> Bool {
    let start = Uptime.now.nanoseconds
    while true {
      let outcome = poll()
      if condition() { return true }
      if let seconds, Double(Uptime.now.nanoseconds - start) > seconds * 1e9 { return false }
      if outcome != .more { wait(milliseconds: 20) }
    }
  }

  /// Withdraws from every device, as the protocol asks; ``isEmpty`` says when the other ends have let go.
  public func close() {
    for token in roots.keys { roots[token]?.findsDevices = false }
    for session in sessions.values { session.leave() }
    dirty.formUnion(sessions.keys)
    forgetSuspended()
  }

  private func forgetSuspended() {
    for (frontend, device) in suspended.values { frontend.forget(device) }
    suspended = [:]
  }

  /// The domain was suspended and has been resumed, perhaps on another host: each frontend gives up what it had shared,
  /// which is gone, and publishes anew as soon as its device's directory is there, wherever that says its backend is now.
  /// What its user had under way goes on where the driver can, since ``Frontend/forget(_:)`` is not called. Those that were
  /// leaving, after ``close()``, have left. Backends begin as after a restart.
  ///
  /// To be called before the next poll, which would take the directories that the toolstack has made anew for other
  /// devices. Nothing on a real Xen announces to its userspace that a domain was resumed; this is for a platform that does.
  public func resume() {
    for (path, session) in sessions {
      unwatchOtherEnd(of: session.device, session.device.watchedKeys)
      switch session {
      case let session as FrontendSession where !session.leaves:
        if let frontend = session.suspend() { suspended[path] = (frontend, session.device) }
      case let session as FrontendSession: session.leaveAtOnce()
      default: session.end()
      }
    }
    sessions = [:]
    for root in roots.values { scan(root.path, depth: root.depth, root) }
  }

  /// Ends this bus's part in every device and leaves the devices connected, so that another process can go on where this one
  /// stopped: the other ends notice a pause. Waits for what their backends have under way, one device after the other.
  ///
  /// - Returns: the devices for which that could not be done, and why. The next process closes those.
  public func detach() -> [String: DeviceError] {
    var failures: [String: DeviceError] = [:]
    for token in roots.keys { roots[token]?.findsDevices = false }
    for (path, session) in sessions {
      do throws(DeviceError) { try session.detach() } catch {
        log.error("\(path): cannot be left connected: \(error)")
        if (try? session.device.exists()) == true { session.device.writeError(error) }
        failures[path] = error
      }
    }
    sessions = [:]
    return failures
  }

  /// Has each backend look again at what it stands on, as if its queue had called for that (``Backend/attend(_:)``): a store
  /// that has another size by now, for one. One that is held (``heldDevices``) is tried again at the next poll.
  public func callForAttention() { for session in sessions.values { session.answer() } }

  /// Whether every device is connected.
  public var isConnected: Bool { suspended.isEmpty && !sessions.isEmpty && sessions.values.allSatisfy(\.isConnected) }

  /// Whether no device is left, or only such as we have closed for good.
  public var isEmpty: Bool { suspended.isEmpty && sessions.values.allSatisfy(\.hasLeft) }

  /// One line for each device: connected, or what it waits for, and why it was closed or refused.
  public var report: [String] {
    let lines = sessions.map { path, session in
      let state = session.isConnected ? "connected" : session.waitsFor.map { "waits for \($0)" } ?? "closed"
      return "\(path): \(state)" + (session.fault.map { "; \($0)" } ?? "")
    }
    let gone = suspended.keys.map { "\($0): waits for its directory, since the domain was resumed" }
    return (lines + gone + refused.map { path, error in "\(path): refused; \(error)" }).sorted()
  }

  /// The devices that another process has left connected (``detach()``) or was killed with, and that this one cannot serve, and
  /// why. Each is tried again for a while, and anew at ``callForAttention()``.
  public var heldDevices: [String: DeviceError] {
    sessions.compactMapValues { session in (session as? BackendSession).flatMap { $0.isHeld ? $0.fault : nil } }
  }

  /// Those of them that are not tried any more before somebody calls for attention.
  public var givenUpDevices: [String: DeviceError] {
    sessions.compactMapValues { session in (session as? BackendSession).flatMap { $0.isGivenUp ? $0.fault : nil } }
  }

  /// What the two ends of each device agreed on, feature by feature, by the device's own path.
  public var negotiations: [String: Negotiation] { sessions.mapValues(\.negotiation) }

  // MARK: Finding devices

  private static func rootToken(_ path: String) -> String { "root:\(path)" }

  private static let otherEndToken = "other:"

  private func note(_ event: XenstoreWatchEvent) {
    if event.token.hasPrefix(Self.otherEndToken) {
      // Stale when the device has gone meanwhile: then it is in nobody's way.
      dirty.insert(String(event.token.dropFirst(Self.otherEndToken.count)))
      return
    }
    guard let root = roots[event.token] else { return }
    let names = event.path.dropFirst(root.path.count).split(separator: "/")
    guard names.count >= root.depth else {
      return scan(event.path, depth: root.depth - names.count, root)
    }
    let path = ([root.path[...]] + names.prefix(root.depth)).joined(separator: "/")
    let key = names.dropFirst(root.depth).first
    if key == nil || key == "state" { dropIfMadeAnew(path, root) }
    consider(path, root)
  }

  /// Considers every device `depth` names below `path`, and those that were there and may have gone.
  private func scan(_ path: String, depth: Int, _ root: Root) {
    guard depth > 0 else { return consider(path, root) }
    let names = (try? StoreDirectory(path, in: store).children()) ?? []
    for name in names { scan("\(path)/\(name)", depth: depth - 1, root) }
    dirty.formUnion(sessions.keys.filter { $0.hasPrefix(path + "/") })
    for device in refused.keys where device.hasPrefix(path + "/") { consider(device, root) }
  }

  /// A device that was removed and made again between two polls is a new one; its other end may be elsewhere.
  private func dropIfMadeAnew(_ path: String, _ root: Root) {
    guard let session = sessions[path],
      (try? session.device.hasOtherEndElsewhere(otherPathKey: root.drivers.otherPathKey)) == true
        || (try? session.device.exists()) == false
    else { return }
    session.end()
    forget(path)
  }

  /// Something changed at or below a device's directory.
  private func consider(_ path: String, _ root: Root) {
    dirty.insert(path)
    guard root.findsDevices || suspended[path] != nil, sessions[path] == nil else { return }
    let own = StoreDirectory(path, in: store)
    do throws(DeviceError) {
      // Seen at one moment: a toolstack may be removing the device.
      let (state, otherPath, domain) = try own.transaction { (own) throws(DeviceError) in
        (
          try own.optionalString("state"), try own.optionalString(root.drivers.otherPathKey),
          try own.optionalString(root.drivers.otherDomainKey)
        )
      }
      // Half written: the rest gives another event.
      guard let state else {
        if refused.removeValue(forKey: path) != nil { own.removeError(home: home) }
        return
      }
      guard let otherPath else { return }
      guard otherPath.hasPrefix("/") else {
        throw .malformedKey(
          path: own.path(of: root.drivers.otherPathKey), value: otherPath, expected: "an absolute path")
      }
      guard let domain else { throw .missingKey(path: own.path(of: root.drivers.otherDomainKey)) }
      let id = try own.number(domain, of: root.drivers.otherDomainKey, as: UInt16.self)
      let device = XenbusDevice(
        type: root.drivers.type, own: own, other: StoreDirectory(otherPath, in: store),
        otherDomain: DomainID(rawValue: id), platform: platform, queueHost: queueHost, signal: signal, log: log,
        state: XenbusState(key: state))
      let session: any DeviceSession =
        switch root.drivers {
        case .front(let driver): try FrontendSession(device, driver, resumed: suspended[path]?.frontend)
        case .back(let driver): try BackendSession(device, driver)
        }
      try watchOtherEnd(of: device, root.drivers.watchedKeys)
      sessions[path] = session
      suspended[path] = nil
      refused[path] = nil
    } catch { refuse(own, error) }
  }

  /// All of them, or none.
  private func watchOtherEnd(of device: XenbusDevice, _ keys: [String]) throws(DeviceError) {
    do throws(XenstoreError) {
      for key in keys { try store.watch(device.other.path(of: key), token: Self.otherEndToken + device.own.path) }
      device.watchedKeys = keys
    } catch {
      unwatchOtherEnd(of: device, keys)
      throw .store(error)
    }
  }

  private func unwatchOtherEnd(of device: XenbusDevice, _ keys: [String]) {
    for key in keys { try? store.unwatch(device.other.path(of: key), token: Self.otherEndToken + device.own.path) }
  }

  /// A device whose own keys say nothing that we could follow: closed, with the reason where the toolstack looks for it.
  private func refuse(_ own: StoreDirectory, _ error: DeviceError) {
    refused[own.path] = error
    do throws(DeviceError) {
      // Our own Closing comes back as a change: it is said once.
      if XenbusState(key: try own.optionalString("state")) == .closing { return }
      own.writeError(error, home: home)
      _ = try own.write([StoreEntry("state", XenbusState.closing.rawValue)]) { $0 != nil }
      log.error("\(own.path): \(error)")
    } catch { log.error("\(own.path): cannot even be refused: \(error)") }
  }

  private func forget(_ path: String) {
    guard let session = sessions.removeValue(forKey: path) else { return }
    unwatchOtherEnd(of: session.device, session.device.watchedKeys)
    session.device.removeError()
  }
}
