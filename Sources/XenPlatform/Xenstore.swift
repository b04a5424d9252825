/// One connection to xenstore (xen/include/public/io/xs_wire.h).
///
/// Paths are absolute (`/local/domain/1/device`) or relative to the domain's home (`device`). Calls may block for as long
/// as the store takes to answer. Watches and transactions belong to the connection and end with it.
public protocol Xenstore: AnyObject, Sendable {
  func read(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [UInt8]

  /// Creates the node, and those above it, where they are missing.
  func write(_ path: String, _ value: [UInt8], in transaction: XenstoreTransaction?) throws(XenstoreError)

  /// Creates an empty node where there is none yet.
  func makeDirectory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError)

  /// Removes the node and all below it.
  func remove(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError)

  /// The names of the node's children.
  func directory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [String]

  func permissions(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [XenstorePermission]

  /// The first entry names the owner, and what domains not listed may do.
  func setPermissions(
    _ path: String, _ permissions: [XenstorePermission], in transaction: XenstoreTransaction?
  ) throws(XenstoreError)

  func startTransaction() throws(XenstoreError) -> XenstoreTransaction

  /// - Throws: code `.conflict` when somebody else changed what the transaction read or wrote: start it anew.
  func endTransaction(_ transaction: XenstoreTransaction, commit: Bool) throws(XenstoreError)

  /// Reports every change at or below `path` from now on, and once at once.
  func watch(_ path: String, token: String) throws(XenstoreError)

  func unwatch(_ path: String, token: String) throws(XenstoreError)

  /// The next report, or nil when there is none now. Never blocks.
  func nextWatchEvent() -> XenstoreWatchEvent?

  /// Readable while ``nextWatchEvent()`` would give an event.
  var descriptor: CInt { get }
}

/// A transaction under way on one connection.
public struct XenstoreTransaction: RawRepresentable, Hashable, Sendable {
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }
}

/// Something changed at `path`; it names the change, not the new value, and several changes may give one event.
public struct XenstoreWatchEvent: Hashable, Sendable {
  /// In the form (absolute or relative) in which the watch was set.
  public let path: String
  public let token: String

  public init(path: String, token: String) {
    self.path = path
    self.token = token
  }
}

/// What one domain may do with a node (docs/misc/xenstore.txt: `n`, `r`, `w`, `b`).
public struct XenstorePermission: Hashable, Sendable {
  public enum Access: Sendable { case none, read, write, both }

  public let domain: DomainID
  public let access: Access

  public init(_ domain: DomainID, _ access: Access) {
    self.domain = domain
    self.access = access
  }
}

/// A call on xenstore that was refused.
public struct XenstoreError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The reasons that callers tell apart; the names in parentheses are the protocol's.
  @nonexhaustive public enum Code: Error, Hashable, Sendable {
    /// There is no such node (ENOENT).
    case notFound
    /// The node's permissions forbid it (EACCES).
    case permissionDenied
    /// Somebody else changed what the transaction saw (EAGAIN).
    case conflict
    /// The same watch exists already (EEXIST).
    case exists
    /// The path or value is not well-formed (EINVAL).
    case invalid
    /// The value or path is too long, or this domain has as many watches as it may (E2BIG).
    case tooBig
    /// A quota is used up (ENOSPC, EDQUOT).
    case quotaExceeded
    /// Anything else, in words.
    case system(String)
  }

  public let code: Code
  /// What was asked for, such as "read".
  public let operation: String
  public let path: String

  public init(_ code: Code, _ operation: String, _ path: String) {
    self.code = code
    self.operation = operation
    self.path = path
  }

  public var description: String {
    let reason =
      switch code {
      case .notFound: "there is no such node"
      case .permissionDenied: "its permissions forbid it"
      case .conflict: "somebody else changed it meanwhile"
      case .exists: "it exists already"
      case .invalid: "the path or value is not well-formed, or (oxenstored) a quota is used up"
      case .tooBig: "the value or path is too long for xenstore, or this domain has as many watches as it may"
      case .quotaExceeded: "this domain's xenstore quota is used up"
      case .system(let words): words
      }
    return "xenstore \(operation) \(path): \(reason)"
  }
}
