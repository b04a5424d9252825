import XenPlatform

/// A domain that lets somebody look at the store after every single call of its bus.
final class ObservedPlatform: Platform {
  private let real: any Platform
  private let look: @Sendable () -> Void

  init(_ real: any Platform, look: @escaping @Sendable () -> Void) { (self.real, self.look) = (real, look) }

  var domain: DomainID { real.domain }
  var grants: any GrantTable { real.grants }

  func openEventChannels() throws(EventChannelError) -> any EventChannels { try real.openEventChannels() }

  func openXenstore() throws(XenstoreError) -> any Xenstore { ObservedStore(try real.openXenstore(), look: look) }
}

private final class ObservedStore: Xenstore {
  private let real: any Xenstore
  private let look: @Sendable () -> Void

  init(_ real: any Xenstore, look: @escaping @Sendable () -> Void) { (self.real, self.look) = (real, look) }

  var descriptor: CInt { real.descriptor }

  func read(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [UInt8] {
    defer { look() }
    return try real.read(path, in: transaction)
  }

  func write(_ path: String, _ value: [UInt8], in transaction: XenstoreTransaction?) throws(XenstoreError) {
    defer { look() }
    try real.write(path, value, in: transaction)
  }

  func makeDirectory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
    defer { look() }
    try real.makeDirectory(path, in: transaction)
  }

  func remove(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
    defer { look() }
    try real.remove(path, in: transaction)
  }

  func directory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [String] {
    try real.directory(path, in: transaction)
  }

  func permissions(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [XenstorePermission] {
    try real.permissions(path, in: transaction)
  }

  func setPermissions(
    _ path: String, _ permissions: [XenstorePermission], in transaction: XenstoreTransaction?
  ) throws(XenstoreError) {
    defer { look() }
    try real.setPermissions(path, permissions, in: transaction)
  }

  func startTransaction() throws(XenstoreError) -> XenstoreTransaction { try real.startTransaction() }

  func endTransaction(_ transaction: XenstoreTransaction, commit: Bool) throws(XenstoreError) {
    defer { look() }
    try real.endTransaction(transaction, commit: commit)
  }

  func watch(_ path: String, token: String) throws(XenstoreError) { try real.watch(path, token: token) }

  func unwatch(_ path: String, token: String) throws(XenstoreError) { try real.unwatch(path, token: token) }

  func nextWatchEvent() -> XenstoreWatchEvent? { real.nextWatchEvent() }
}
