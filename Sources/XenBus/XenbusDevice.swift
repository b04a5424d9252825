import Logging
import XenPlatform

/// One end of a device as a driver sees it: where it lives in the store, who is at the other end, and what it stands on.
///
/// It belongs to the thread of its bus.
public final class XenbusDevice {
  /// The kind of device, as paths name it: "vif", "vbd".
  public let type: String
  /// Our own directory; the other end may read it.
  public let own: StoreDirectory
  /// The other end's directory: whatever it holds is the other end's word.
  public let other: StoreDirectory
  public let otherDomain: DomainID
  public let platform: any Platform
  public let log: Logger
  let queueHost: any QueueHost
  let signal: BusSignal
  /// How often it has been connected: what a queue of an earlier connection reports is not held against this one.
  private(set) var life = 0
  /// The other end's keys that the bus watches.
  var watchedKeys: [String] = []
  /// What our own key said when the device was found, or what we have written into it since.
  private(set) var knownState: XenbusState

  init(
    type: String, own: StoreDirectory, other: StoreDirectory, otherDomain: DomainID, platform: any Platform,
    queueHost: any QueueHost, signal: BusSignal, log: Logger, state: XenbusState
  ) {
    knownState = state
    self.type = type
    self.own = own
    self.other = other
    self.otherDomain = otherDomain
    self.platform = platform
    self.queueHost = queueHost
    self.signal = signal
    self.log = log
  }

  /// Has `queue` polled from now on. When it stops by itself, the device is closed with the reason that `fault` gives.
  ///
  /// - Throws: when there is nothing left to poll it with.
  public func start(
    _ queue: any DataQueue, name: String, fault: @escaping @Sendable () -> DeviceError
  ) throws(DeviceError) {
    let (signal, path, life) = (signal, own.path, life)
    do throws(ResourceError) {
      try queueHost.start(queue, name: name) { signal.report(fault(), at: path, life: life) }
    } catch { throw .resource("\(error)") }
  }

  /// Has the bus call the backend's ``Backend/attend(_:)`` at its next turn, from any thread; calls that come before it
  /// are one.
  public var attention: @Sendable () -> Void {
    let (signal, path) = (signal, own.path)
    return { signal.callForAttention(at: path) }
  }

  /// Leaves `error` where the toolstack looks for it, and in the log; the device goes on (`xenbus_dev_error`).
  public func warn(_ error: DeviceError) {
    log.warning("\(own.path): \(error)")
    writeError(error)
  }

  /// The clock by which the device's queue is polled, for what takes time within one poll.
  public var clock: @Sendable () -> Uptime {
    let host = queueHost
    return { host.now }
  }

  /// Returns when `queue` is polled no more.
  public func stop(_ queue: any DataQueue) { queueHost.stop(queue) }

  /// Closes the device because of `error`, at the next turn of its bus.
  public func report(_ error: DeviceError) { signal.report(error, at: own.path, life: life) }

  /// New zeroed pages of ours that the other end may map and copy and, unless they are for reading only, write.
  public func share(pageCount: Int, writable: Bool = true) throws(DeviceError) -> GrantedPages {
    do throws(GrantError) {
      return try platform.grants.share(pageCount: pageCount, with: otherDomain, writable: writable)
    } catch { throw .grant(error) }
  }

  /// The other end's pages that these references name, as one region.
  public func map(_ references: [GrantReference]) throws(DeviceError) -> SharedRegion {
    do throws(GrantError) {
      return try platform.grants.map(references, of: otherDomain, writable: true)
    } catch { throw .grant(error) }
  }

  /// An event channel that the other end may bind to.
  public func allocateEventChannel() throws(DeviceError) -> EventChannel {
    do throws(EventChannelError) {
      let handle = try platform.openEventChannels()
      return EventChannel(try handle.allocateUnbound(for: otherDomain), on: handle)
    } catch { throw .eventChannel(error) }
  }

  /// An event channel bound to the one that the other end allocated as `port`.
  public func bindEventChannel(to port: EventChannelPort) throws(DeviceError) -> EventChannel {
    do throws(EventChannelError) {
      let handle = try platform.openEventChannels()
      return EventChannel(try handle.bindInterdomain(to: otherDomain, port: port), on: handle)
    } catch { throw .eventChannel(error) }
  }

  /// Writes these keys into our own directory in one transaction, provided that the device still exists: a key written into
  /// a directory that the toolstack has removed would bring it back.
  public func write(_ entries: [StoreEntry]) throws(DeviceError) { _ = try own.write(entries, ifState: isOurs) }

  func beginLife() { life += 1 }

  /// For a driver that has the other end look at its keys again while both are connected.
  package func switchState(to state: XenbusState, _ entries: [StoreEntry] = []) throws(DeviceError) -> Bool {
    let written = try own.write(entries + [StoreEntry("state", state.rawValue)], ifState: isOurs)
    if written { knownState = state }
    return written
  }

  /// Whether the directory is there, and is the one that we know: a toolstack may have removed it, and made it again before
  /// anybody looked.
  func exists() throws(DeviceError) -> Bool { isOurs(try own.optionalString("state")) }

  private func isOurs(_ state: String?) -> Bool {
    guard let state else { return false }
    // Who makes a device begins with this; what has been anything else does not come back to it, unless by our own hand.
    return XenbusState(key: state) != .initialising || knownState == .initialising
  }

  /// Whether there is a device in its place that names another one as its other end.
  func hasOtherEndElsewhere(otherPathKey: String) throws(DeviceError) -> Bool {
    try own.optionalString(otherPathKey) ?? other.path != other.path
  }

  /// For a backend that is about to make its offer: whether a predecessor's stands, by which the frontend may go.
  package func isOffered() throws(DeviceError) -> Bool { try ownState() == .initWait }

  /// For a backend: whether its frontend has shared rings.
  package func hasPublishedRings() throws(DeviceError) -> Bool {
    switch try otherState() {
    case .initialised, .connected: true
    default: false
    }
  }

  /// What the other end's key says; nil when its directory is gone, and when we may not read it, because who may not read
  /// what lies above a directory is not told that the directory is gone.
  package func otherState() throws(DeviceError) -> XenbusState? { try otherState(other) }

  private func otherState(_ other: StoreDirectory) throws(DeviceError) -> XenbusState? {
    do throws(DeviceError) {
      if let key = try other.optionalString("state") { return XenbusState(key: key) }
      return try other.exists() ? .unknown : nil
    } catch {
      if case .store(let error) = error, error.code == .permissionDenied { return nil }
      throw error
    }
  }

  /// Removes our own directory, and the one above when nothing else is in it, if the other end's is gone: looked at once
  /// more, since a toolstack may be making the next device there.
  func removeAfterOther() throws(DeviceError) {
    try own.transaction { (own) throws(DeviceError) in
      guard try own.optionalString("frontend") == other.path, try otherState(own.at(other.path)) == nil else { return }
      try own.removeAll(andAbove: 1)
    }
  }

  func ownState() throws(DeviceError) -> XenbusState { XenbusState(key: try own.optionalString("state")) }

  private var home: String { "/local/domain/\(platform.domain.rawValue)" }

  func writeError(_ error: DeviceError) { own.writeError(error, home: home) }

  /// What was once wrong with the device is not any more, or the device is gone: its error node goes too, since each one
  /// counts against our quota.
  func removeError() { own.removeError(home: home) }
}

extension StoreDirectory {
  /// Writes `entries` in one transaction, provided that `isWanted` of what the device's own key says then.
  ///
  /// - Returns: whether they were written.
  func write(_ entries: [StoreEntry], ifState isWanted: (String?) -> Bool) throws(DeviceError) -> Bool {
    try transaction { (own) throws(DeviceError) in
      guard isWanted(try own.optionalString("state")) else { return false }
      try own.write(entries)
      return true
    }
  }

  /// Leaves the message where the toolstack looks for it: `error/<device>/error` in our home.
  func writeError(_ error: DeviceError, home: String) {
    // EINVAL first, as the kernel's drivers put the number of an error before its text. A store that refuses this
    // too leaves the log.
    try? StoreDirectory(errorPath(home: home).joined(separator: "/"), in: store).write(
      [StoreEntry("error", "22 \(error)")])
  }

  /// The message that is left there; nil when there is none.
  func error(home: String) throws(DeviceError) -> String? {
    try StoreDirectory(errorPath(home: home).joined(separator: "/"), in: store).optionalString("error")
  }

  /// Removes the message, and the directories above it that hold nothing else.
  func removeError(home: String) {
    var names = errorPath(home: home)
    while names.count > 1, let name = names.popLast().map(String.init) {
      let above = StoreDirectory(names.joined(separator: "/"), in: store)
      guard (try? above.children().contains(name)) == true else { return }
      try? above.remove(name)
      guard (try? above.children()) == [] else { return }
    }
  }

  /// Our home, and the names below it.
  private func errorPath(home: String) -> [Substring] {
    let device = path.hasPrefix(home + "/") ? path.dropFirst(home.count) : path[...]
    return [home[...], "error"] + device.split(separator: "/")
  }
}
