import XenPlatform

/// A domain whose store is a real xenstored, through libxenstore, and whose grants and event channels are another
/// platform's.
package final class XenstoredPlatform: Platform {
  private let other: any Platform
  private let daemon: Xenstored
  private let catchesUp: Bool

  /// - Parameter catchesUp: whether a connection always knows of every event that is due, for tests that go step by step;
  ///   otherwise events come when they come.
  package init(_ other: any Platform, storedBy daemon: Xenstored, catchingUp catchesUp: Bool = true) {
    (self.other, self.daemon, self.catchesUp) = (other, daemon, catchesUp)
  }

  package var domain: DomainID { other.domain }
  package var grants: any GrantTable { other.grants }

  package func openEventChannels() throws(EventChannelError) -> any EventChannels { try other.openEventChannels() }

  package func openXenstore() throws(XenstoreError) -> any Xenstore {
    catchesUp ? CaughtUpXenstore(try daemon.connect(), domain: domain) : try daemon.connect()
  }
}

/// A connection that knows of every watch event due by now, for tests that go step by step.
///
/// xenstored does one thing at a time, and puts the events that a request causes into each connection's line before it
/// takes the next request. So when it answers a request on this connection, the events of all that was answered on any
/// connection before have come. Whoever looks for an event therefore asks it something first.
private final class CaughtUpXenstore: Xenstore {
  private let store: any Xenstore
  private let home: String
  /// A connection to the socket is the control domain's, and takes relative paths for that one's.
  private let isControl: Bool

  init(_ store: any Xenstore, domain: DomainID) {
    self.store = store
    home = "/local/domain/\(domain.rawValue)/"
    isControl = domain == .zero
  }

  private func catchUp() { _ = try? store.permissions("/", in: nil) }

  private func absolute(_ path: String) -> String {
    isControl || path.isEmpty || path.hasPrefix("/") || path.hasPrefix("@") ? path : home + path
  }

  var descriptor: CInt {
    catchUp()
    return store.descriptor
  }

  func nextWatchEvent() -> XenstoreWatchEvent? {
    if let event = store.nextWatchEvent() { return event }
    catchUp()
    return store.nextWatchEvent()
  }

  func read(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [UInt8] {
    try store.read(absolute(path), in: transaction)
  }

  func write(_ path: String, _ value: [UInt8], in transaction: XenstoreTransaction?) throws(XenstoreError) {
    try store.write(absolute(path), value, in: transaction)
  }

  func makeDirectory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
    try store.makeDirectory(absolute(path), in: transaction)
  }

  func remove(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
    try store.remove(absolute(path), in: transaction)
  }

  func directory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [String] {
    try store.directory(absolute(path), in: transaction)
  }

  func permissions(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [XenstorePermission] {
    try store.permissions(absolute(path), in: transaction)
  }

  func setPermissions(
    _ path: String, _ permissions: [XenstorePermission], in transaction: XenstoreTransaction?
  ) throws(XenstoreError) { try store.setPermissions(absolute(path), permissions, in: transaction) }

  func startTransaction() throws(XenstoreError) -> XenstoreTransaction { try store.startTransaction() }

  func endTransaction(_ transaction: XenstoreTransaction, commit: Bool) throws(XenstoreError) {
    try store.endTransaction(transaction, commit: commit)
  }

  func watch(_ path: String, token: String) throws(XenstoreError) { try store.watch(absolute(path), token: token) }

  func unwatch(_ path: String, token: String) throws(XenstoreError) { try store.unwatch(absolute(path), token: token) }
}
