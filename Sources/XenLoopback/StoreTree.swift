import XenPlatform

/// The nodes of a xenstore with their permissions, and the transactions on them (docs/misc/xenstore.txt).
///
/// Every operation runs in a transaction; one that belongs to none has its own and commits it at once.
struct StoreTree {
  struct Node: Hashable {
    var value: [UInt8] = []
    var children: Set<String> = []
    /// The first entry names the owner and what everybody else may do.
    var permissions: [XenstorePermission]
    /// When the node last changed; conflicts are found by it.
    fileprivate(set) var generation: UInt64 = 0
  }

  /// A committed change, for the watches.
  struct Change {
    let path: String
    /// The node as it is now or, removed, as it was: who may read it may hear of it.
    let node: Node
    /// Gone because a node above it was removed: only watches on this very path hear of it.
    let isImplied: Bool
  }

  struct Transaction {
    /// Each node as it was when the transaction first looked at it, nil for an absent one.
    fileprivate var seen: [String: Node?] = [:]
    /// Nodes as the transaction leaves them, nil for removed.
    fileprivate var written: [String: Node?] = [:]
    /// At most one for each path.
    fileprivate var changes: [Change] = []

    /// However often a transaction changes a node, the watches hear of it once.
    fileprivate mutating func note(_ change: Change) {
      changes.removeAll { $0.path == change.path }
      changes.append(change)
    }
  }

  private var nodes: [String: Node] = [:]
  private var generation: UInt64 = 1

  init() {
    nodes["/"] = Node(permissions: [XenstorePermission(.zero, .none)], generation: 1)
  }

  /// Makes a domain's home, which it owns.
  mutating func introduce(_ domain: DomainID) {
    var transaction = Transaction()
    let home = StorePath.home(of: domain)
    create(home, by: .zero, in: &transaction)
    var node = look(home, &transaction)!
    node.permissions = [XenstorePermission(domain, .none)]
    put(node, at: home, in: &transaction)
    _ = commit(transaction)
  }

  // MARK: Operations; paths are absolute and well-formed

  func read(_ path: String, by domain: DomainID, in transaction: inout Transaction) throws(XenstoreError.Code) -> Node {
    guard let node = look(path, &transaction) else { throw absence(of: path, for: domain, &transaction) }
    guard node.allows(.read, domain) else { throw .permissionDenied }
    return node
  }

  func write(
    _ path: String, _ value: [UInt8]?, by domain: DomainID, in transaction: inout Transaction
  ) throws(XenstoreError.Code) {
    if var node = look(path, &transaction) {
      guard node.allows(.write, domain) else { throw .permissionDenied }
      guard let value else { return }
      node.value = value
      put(node, at: path, in: &transaction)
    } else {
      guard nearestAncestor(of: path, &transaction).allows(.write, domain) else { throw .permissionDenied }
      create(path, by: domain, in: &transaction)
      if let value, var node = look(path, &transaction) {
        node.value = value
        put(node, at: path, in: &transaction)
      }
    }
    transaction.note(Change(path: path, node: look(path, &transaction)!, isImplied: false))
  }

  func remove(_ path: String, by domain: DomainID, in transaction: inout Transaction) throws(XenstoreError.Code) {
    guard path != "/" else { throw .invalid }
    guard let node = look(path, &transaction) else {
      // Removing what is not there succeeds where it could have been.
      if look(StorePath.parent(path), &transaction) != nil { return }
      throw absence(of: path, for: domain, &transaction)
    }
    guard node.allows(.write, domain) else { throw .permissionDenied }
    removeTree(path, node, isImplied: false, in: &transaction)
    let parent = StorePath.parent(path)
    if var above = look(parent, &transaction) {
      above.children.remove(StorePath.name(path))
      put(above, at: parent, in: &transaction)
    }
  }

  func setPermissions(
    _ path: String, _ permissions: [XenstorePermission], by domain: DomainID, in transaction: inout Transaction
  ) throws(XenstoreError.Code) {
    guard let owner = permissions.first else { throw .invalid }
    guard var node = look(path, &transaction) else { throw absence(of: path, for: domain, &transaction) }
    guard node.isOwned(by: domain), domain == .zero || owner.domain == domain else { throw .permissionDenied }
    node.permissions = permissions
    put(node, at: path, in: &transaction)
    transaction.note(Change(path: path, node: node, isImplied: false))
  }

  /// The committed changes; nil when somebody else changed what the transaction saw.
  mutating func commit(_ transaction: Transaction) -> [Change]? {
    for (path, node) in transaction.seen where nodes[path]?.generation != node?.generation { return nil }
    // What it made and removed again has never been there for anybody else.
    let changes = transaction.changes.filter { nodes[$0.path] != nil || transaction.written[$0.path] != .some(nil) }
    if !transaction.written.isEmpty { generation += 1 }
    for (path, written) in transaction.written {
      nodes[path] = written
      nodes[path]?.generation = generation
    }
    return changes
  }

  // MARK: Helpers

  private func look(_ path: String, _ transaction: inout Transaction) -> Node? {
    if let written = transaction.written[path] { return written }
    if let seen = transaction.seen[path] { return seen }
    transaction.seen.updateValue(nodes[path], forKey: path)
    return nodes[path]
  }

  private func put(_ node: Node?, at path: String, in transaction: inout Transaction) {
    transaction.written.updateValue(node, forKey: path)
  }

  private func nearestAncestor(of path: String, _ transaction: inout Transaction) -> Node {
    var ancestor = path
    while true {
      ancestor = StorePath.parent(ancestor)
      if let node = look(ancestor, &transaction) { return node }
    }
  }

  /// Who may not read the nearest existing node above is not told that a node is absent.
  private func absence(of path: String, for domain: DomainID, _ transaction: inout Transaction) -> XenstoreError.Code {
    path == "/" || nearestAncestor(of: path, &transaction).allows(.read, domain) ? .notFound : .permissionDenied
  }

  /// Makes an empty node and those missing above it. A new node has its parent's permissions, owned by its maker unless
  /// that is the control domain.
  private func create(_ path: String, by domain: DomainID, in transaction: inout Transaction) {
    let parentPath = StorePath.parent(path)
    if look(parentPath, &transaction) == nil { create(parentPath, by: domain, in: &transaction) }
    guard var parent = look(parentPath, &transaction) else { return }
    parent.children.insert(StorePath.name(path))
    put(parent, at: parentPath, in: &transaction)
    var permissions = parent.permissions
    if domain != .zero { permissions[0] = XenstorePermission(domain, permissions[0].access) }
    put(Node(permissions: permissions), at: path, in: &transaction)
  }

  private func removeTree(_ path: String, _ node: Node, isImplied: Bool, in transaction: inout Transaction) {
    for name in node.children {
      let child = StorePath.child(name, of: path)
      if let below = look(child, &transaction) { removeTree(child, below, isImplied: true, in: &transaction) }
    }
    put(nil, at: path, in: &transaction)
    transaction.note(Change(path: path, node: node, isImplied: isImplied))
  }
}

extension StoreTree.Node {
  func isOwned(by domain: DomainID) -> Bool { domain == .zero || permissions[0].domain == domain }

  func allows(_ wanted: XenstorePermission.Access, _ domain: DomainID) -> Bool {
    if isOwned(by: domain) { return true }
    let access = permissions.dropFirst().first { $0.domain == domain }?.access ?? permissions[0].access
    return access == .both || access == wanted
  }
}
