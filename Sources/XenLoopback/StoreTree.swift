import XenPlatform

/// The nodes of a xenstore with their permissions, and the transactions on them (docs/misc/xenstore.txt).
///
/// Every operation runs in a transaction; one that belongs to none has its own and commits it at once.
struct StoreTree {
  /// A committed change, for the watches.
  struct Change {
    let path: String
    /// Who may read by one of these may hear of it: those of the node before and after, and, but for what a transaction of
    /// several operations removed, those of the node above it.
    let audience: [[XenstorePermission]]
    /// Gone because a node above it was removed: only watches on this very path hear of it.
    let isImplied: Bool
  }

  struct Transaction {
    /// Whether it is no transaction for its user.
    let isOneOperation: Bool
    /// Each node as it was when the transaction first looked at it, nil for an absent one.
    fileprivate private(set) var seen: [String: StoreNode?] = [:]
    /// Their paths in the order of those looks.
    fileprivate private(set) var order: [String] = []
    /// Nodes as the transaction leaves them, nil for removed.
    fileprivate var written: [String: StoreNode?] = [:]
    /// The paths of what changed, in order, and whether each change is implied.
    fileprivate private(set) var changes: [(path: String, isImplied: Bool)] = []
    /// By how many nodes each domain owns more, or fewer.
    fileprivate var owned: [DomainID: Int] = [:]
    fileprivate var hasMadeNodes = false
    /// A node in it has become too big: it can no longer be committed.
    fileprivate var isDoomed = false

    init(isOneOperation: Bool) { self.isOneOperation = isOneOperation }

    fileprivate mutating func see(_ node: StoreNode?, at path: String) {
      seen.updateValue(node, forKey: path)
      order.append(path)
    }

    /// However often a transaction changes a node, the watches hear of it once.
    fileprivate mutating func note(_ path: String, isImplied: Bool = false) {
      if let index = changes.firstIndex(where: { $0.path == path }) {
        changes[index].isImplied = changes[index].isImplied && isImplied
      } else {
        changes.append((path, isImplied))
      }
    }

    /// One operation's as they came; those of several in the order in which their nodes were first looked at.
    fileprivate var orderedChanges: [(path: String, isImplied: Bool)] {
      if isOneOperation { return changes }
      let places = Dictionary(uniqueKeysWithValues: order.enumerated().map { ($1, $0) })
      return changes.sorted { places[$0.path]! < places[$1.path]! }
    }
  }

  private var nodes: [String: StoreNode] = [:]
  private var generation: UInt64 = 1
  private var domains: Set<DomainID> = [.zero]
  private var owned: [DomainID: Int] = [.zero: 1]
  var quotas = StoreQuotas()

  init() {
    nodes["/"] = StoreNode(permissions: [XenstorePermission(.zero, .none)], generation: 1)
  }

  // MARK: Domains

  /// Makes a domain's home, which it owns.
  mutating func introduce(_ domain: DomainID) {
    domains.insert(domain)
    var transaction = Transaction(isOneOperation: true)
    let home = StorePath.home(of: domain)
    // The control domain has no quota that could refuse it.
    try? create(home, by: .zero, in: &transaction)
    setOwner(domain, of: home, in: &transaction)
    _ = commit(transaction)
  }

  /// Removes what a domain owned, but for its home, which becomes the control domain's.
  mutating func release(_ domain: DomainID) -> [Change] {
    domains.remove(domain)
    var transaction = Transaction(isOneOperation: true)
    let home = StorePath.home(of: domain)
    let paths = nodes.filter { $0.value.owner == domain }.keys.sorted()
    for path in paths where path != home { try? remove(path, by: .zero, in: &transaction) }
    if look(home, &transaction)?.owner == domain { setOwner(.zero, of: home, in: &transaction) }
    return commit(transaction) ?? []
  }

  private func setOwner(_ domain: DomainID, of path: String, in transaction: inout Transaction) {
    guard var node = look(path, &transaction) else { return }
    node.permissions = [XenstorePermission(domain, .none)]
    put(node, at: path, in: &transaction)
  }

  // MARK: Operations; paths are absolute and well-formed

  func read(
    _ path: String, by domain: DomainID, in transaction: inout Transaction
  ) throws(XenstoreError.Code) -> StoreNode {
    guard let node = look(path, &transaction) else {
      throw absence(of: path, for: domain, wanting: .read, &transaction)
    }
    guard node.permissions.allow(.read, domain) else { throw .permissionDenied }
    return node
  }

  func write(
    _ path: String, _ value: [UInt8]?, by domain: DomainID, in transaction: inout Transaction
  ) throws(XenstoreError.Code) {
    if let node = look(path, &transaction) {
      guard node.permissions.allow(.write, domain) else { throw .permissionDenied }
      if value == nil { return }
    } else {
      let ancestor = nearestAncestor(of: path, &transaction)
      guard ancestor.node.permissions.allow(.write, domain) else { throw .permissionDenied }
      try checkCount(of: StorePath.depth(path) - StorePath.depth(ancestor.path), by: domain)
      try create(path, by: domain, in: &transaction)
    }
    if let value, var node = look(path, &transaction) {
      node.value = value
      put(node, at: path, in: &transaction)
      try checkSize(of: node, by: domain, &transaction)
    }
    transaction.note(path)
  }

  func remove(_ path: String, by domain: DomainID, in transaction: inout Transaction) throws(XenstoreError.Code) {
    guard path != "/" else { throw .invalid }
    guard let node = look(path, &transaction) else {
      let reason = absence(of: path, for: domain, wanting: .write, &transaction)
      // Removing what is not there succeeds where it could have been.
      if reason == .notFound, look(StorePath.parent(path), &transaction) != nil { return }
      throw reason
    }
    guard node.permissions.allow(.write, domain) else { throw .permissionDenied }
    let parent = StorePath.parent(path)
    guard var above = look(parent, &transaction) else { return }
    removeTree(path, node, isImplied: false, in: &transaction)
    above.children.removeAll { $0 == StorePath.name(path) }
    put(above, at: parent, in: &transaction)
  }

  /// - Parameter permissions: checked.
  func setPermissions(
    _ path: String, _ permissions: [XenstorePermission], by domain: DomainID, in transaction: inout Transaction
  ) throws(XenstoreError.Code) {
    guard var node = look(path, &transaction) else {
      throw absence(of: path, for: domain, wanting: .write, &transaction)
    }
    guard node.permissions.areOwned(by: domain), domain == .zero || permissions[0].domain == domain else {
      throw .permissionDenied
    }
    node.permissions = permissions
    put(node, at: path, in: &transaction)
    try checkSize(of: node, by: domain, &transaction)
    transaction.note(path)
  }

  /// The committed changes; nil, and nothing committed, when somebody else changed what the transaction saw.
  mutating func commit(_ transaction: Transaction) -> [Change]? {
    for (path, node) in transaction.seen where nodes[path]?.generation != node?.generation { return nil }
    let changes = transaction.orderedChanges.compactMap { (path, isImplied) -> Change? in
      let former = transaction.seen[path] ?? nil
      let node = transaction.written[path] ?? former
      // What it made and removed again has never been there for anybody else.
      guard former != nil || node != nil else { return nil }
      let parent = StorePath.parent(path)
      let above = node == nil && !transaction.isOneOperation ? nil : transaction.written[parent] ?? nodes[parent]
      return Change(
        path: path, audience: [former, node, above].compactMap { $0?.permissions }, isImplied: isImplied)
    }
    if !transaction.written.isEmpty { generation += 1 }
    for (path, written) in transaction.written {
      nodes[path] = written
      nodes[path]?.generation = generation
    }
    owned.merge(transaction.owned, uniquingKeysWith: +)
    return changes
  }

  // MARK: Quotas

  /// Before a transaction that several operations belong to is committed: those were each held to what others had
  /// committed. Like xenstored it leaves no domain with as many nodes as it may own when it made some.
  func check(_ transaction: Transaction, by domain: DomainID) throws(XenstoreError.Code) {
    if transaction.isDoomed { throw .system("a node in the transaction is too big (ENOMEM)") }
    guard domain != .zero, transaction.hasMadeNodes else { return }
    for (owner, more) in transaction.owned where more != 0 && owner != .zero {
      if owned[owner, default: 0] + more >= quotas.nodesPerDomain { throw .quotaExceeded }
    }
  }

  func check(_ permissions: [XenstorePermission], by domain: DomainID) throws(XenstoreError.Code) {
    if permissions.isEmpty { throw .invalid }
    if domain != .zero, permissions.count > quotas.permissionsPerNode { throw .quotaExceeded }
    // A node is given to nobody who is not there.
    if !domains.contains(permissions[0].domain) { throw .notFound }
  }

  /// Before so many nodes are made at once. What the transaction removed, if it is not committed, counts still.
  private func checkCount(of more: Int, by domain: DomainID) throws(XenstoreError.Code) {
    if domain != .zero, owned[domain, default: 0] + more > quotas.nodesPerDomain { throw .quotaExceeded }
  }

  /// After the node was written: a transaction that it was written in cannot be saved then.
  private func checkSize(
    of node: StoreNode, by domain: DomainID, _ transaction: inout Transaction
  ) throws(XenstoreError.Code) {
    guard domain != .zero, node.recordByteCount >= quotas.bytesPerNode else { return }
    transaction.isDoomed = true
    throw .quotaExceeded
  }

  // MARK: Helpers

  private func look(_ path: String, _ transaction: inout Transaction) -> StoreNode? {
    if let written = transaction.written[path] { return written }
    if let seen = transaction.seen[path] { return seen }
    transaction.see(nodes[path], at: path)
    return nodes[path]
  }

  private func put(_ node: StoreNode?, at path: String, in transaction: inout Transaction) {
    if let former = look(path, &transaction) { transaction.owned[former.owner, default: 0] -= 1 }
    if let node { transaction.owned[node.owner, default: 0] += 1 }
    transaction.written.updateValue(node, forKey: path)
  }

  private func nearestAncestor(
    of path: String, _ transaction: inout Transaction
  ) -> (path: String, node: StoreNode) {
    var ancestor = path
    while true {
      ancestor = StorePath.parent(ancestor)
      if let node = look(ancestor, &transaction) { return (ancestor, node) }
    }
  }

  /// Who may not do the same with the nearest existing node above is not told that a node is absent.
  private func absence(
    of path: String, for domain: DomainID, wanting access: XenstorePermission.Access, _ transaction: inout Transaction
  ) -> XenstoreError.Code {
    nearestAncestor(of: path, &transaction).node.permissions.allow(access, domain) ? .notFound : .permissionDenied
  }

  /// Makes an empty node and those missing above it. A new node has its parent's permissions, owned by its maker unless
  /// that is the control domain.
  private func create(
    _ path: String, by domain: DomainID, in transaction: inout Transaction
  ) throws(XenstoreError.Code) {
    let parentPath = StorePath.parent(path)
    if look(parentPath, &transaction) == nil { try create(parentPath, by: domain, in: &transaction) }
    guard var parent = look(parentPath, &transaction) else { return }
    transaction.hasMadeNodes = true
    parent.children.append(StorePath.name(path))
    put(parent, at: parentPath, in: &transaction)
    try checkSize(of: parent, by: domain, &transaction)
    var permissions = parent.permissions
    if domain != .zero { permissions[0] = XenstorePermission(domain, permissions[0].access) }
    let node = StoreNode(permissions: permissions)
    put(node, at: path, in: &transaction)
    try checkSize(of: node, by: domain, &transaction)
  }

  private func removeTree(_ path: String, _ node: StoreNode, isImplied: Bool, in transaction: inout Transaction) {
    for name in node.children {
      let child = StorePath.child(name, of: path)
      if let below = look(child, &transaction) { removeTree(child, below, isImplied: true, in: &transaction) }
    }
    transaction.note(path, isImplied: isImplied)
    put(nil, at: path, in: &transaction)
  }
}
