import XenPlatform

/// One node of a ``StoreTree``.
struct StoreNode: Hashable {
  var value: [UInt8] = []
  /// In the order in which they were made.
  var children: [String] = []
  /// Not empty; the first entry names the owner and what everybody else may do.
  var permissions: [XenstorePermission]
  /// When the node last changed; conflicts are found by it.
  var generation: UInt64 = 0

  var owner: DomainID { permissions[0].domain }

  /// The bytes of xenstored's record of it: a header of 24, 8 for each permission, the value, the names and their zeros.
  var recordByteCount: Int {
    24 + 8 * permissions.count + value.count + children.reduce(0) { $0 + $1.utf8.count + 1 }
  }
}

extension [XenstorePermission] {
  func areOwned(by domain: DomainID) -> Bool { domain == .zero || self[0].domain == domain }

  func allow(_ wanted: XenstorePermission.Access, _ domain: DomainID) -> Bool {
    if areOwned(by: domain) { return true }
    let access = dropFirst().first { $0.domain == domain }?.access ?? self[0].access
    return access == .both || access == wanted
  }
}
