/// What one domain may have in the store; the control domain may have any number (xenstored's options; the defaults are those
/// of Xen 4.17). What exceeds a quota is refused with `.quotaExceeded`, a watch with `.tooBig`, as C xenstored does.
public struct StoreQuotas: Hashable, Sendable {
  /// Nodes that it owns. A transaction that makes some must leave it with fewer.
  public var nodesPerDomain = 1000
  /// A node's record must be smaller than this: 24 bytes, 8 for each permission, the value, and each child's name with a
  /// zero.
  public var bytesPerNode = 2048
  /// Entries in a node's permissions.
  public var permissionsPerNode = 5
  /// Watches on all its connections; xenstored itself lets one more through.
  public var watchesPerDomain = 128
  /// Transactions under way at once on all its connections; xenstored itself lets one more through.
  public var transactionsPerDomain = 10

  public init() {}
}
