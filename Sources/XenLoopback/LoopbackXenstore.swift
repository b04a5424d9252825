import Synchronization
import XenPlatform

/// The store that all connections share: the tree, the transactions under way, the watches.
struct SharedStore {
  struct Watch {
    let connection: ObjectIdentifier
    let domain: DomainID
    let absolutePath: String
    /// As it was set; events name paths in the same form.
    let path: String
    let token: String
    let events: Mailbox<XenstoreWatchEvent>
  }

  var tree = StoreTree()
  var transactions: [XenstoreTransaction: StoreTree.Transaction] = [:]
  var nextTransaction: UInt32 = 1
  var watches: [Watch] = []

  func fire(_ changes: [StoreTree.Change]) {
    for change in changes {
      for watch in watches {
        let concerns =
          change.isImplied
          ? change.path == watch.absolutePath : StorePath.isAtOrBelow(change.path, watch.absolutePath)
        guard concerns, change.node.allows(.read, watch.domain) else { continue }
        // A watch set by a relative path hears of relative paths.
        let below = change.path.dropFirst(watch.absolutePath == "/" ? 0 : watch.absolutePath.count)
        let reported = watch.path == "/" ? change.path : watch.path + below
        watch.events.put(XenstoreWatchEvent(path: reported, token: watch.token))
      }
    }
  }
}

/// One domain's connection to the ``SharedStore``.
final class LoopbackXenstore: Xenstore {
  private let domain: DomainID
  private let loopback: Loopback
  private let events: Mailbox<XenstoreWatchEvent>
  private let transactions = Mutex<Set<XenstoreTransaction>>([])

  init(_ domain: DomainID, in loopback: Loopback) throws(ResourceError) {
    events = try Mailbox()
    self.domain = domain
    self.loopback = loopback
  }

  deinit {
    let mine = transactions.withLock { $0 }
    loopback.store.withLock { store in
      store.watches.removeAll { $0.connection == ObjectIdentifier(self) }
      for transaction in mine { store.transactions[transaction] = nil }
    }
  }

  var descriptor: CInt { events.wakeup.descriptor }

  func nextWatchEvent() -> XenstoreWatchEvent? { events.take() }

  func read(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [UInt8] {
    try node(path, in: transaction, "read").value
  }

  func directory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [String] {
    try node(path, in: transaction, "directory").children.sorted()
  }

  func permissions(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [XenstorePermission] {
    try node(path, in: transaction, "permissions of").permissions
  }

  private func node(
    _ path: String, in transaction: XenstoreTransaction?, _ operation: String
  ) throws(XenstoreError) -> StoreTree.Node {
    let domain = domain
    return try perform(operation, path, in: transaction) { (tree, path, working) throws(XenstoreError.Code) in
      try tree.read(path, by: domain, in: &working)
    }
  }

  func write(_ path: String, _ value: [UInt8], in transaction: XenstoreTransaction?) throws(XenstoreError) {
    let domain = domain
    guard value.count + path.utf8.count < StorePath.valueByteLimit else { throw XenstoreError(.tooBig, "write", path) }
    try perform("write", path, in: transaction) { (tree, path, working) throws(XenstoreError.Code) in
      try tree.write(path, value, by: domain, in: &working)
    }
  }

  func makeDirectory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
    let domain = domain
    try perform("mkdir", path, in: transaction) { (tree, path, working) throws(XenstoreError.Code) in
      try tree.write(path, nil, by: domain, in: &working)
    }
  }

  func remove(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
    let domain = domain
    try perform("rm", path, in: transaction) { (tree, path, working) throws(XenstoreError.Code) in
      try tree.remove(path, by: domain, in: &working)
    }
  }

  func setPermissions(
    _ path: String, _ permissions: [XenstorePermission], in transaction: XenstoreTransaction?
  ) throws(XenstoreError) {
    let domain = domain
    try perform("set permissions of", path, in: transaction) { (tree, path, working) throws(XenstoreError.Code) in
      try tree.setPermissions(path, permissions, by: domain, in: &working)
    }
  }

  /// Runs one operation in its transaction, or in one of its own, and names it in whatever error comes out.
  private func perform<Result>(
    _ operation: String, _ path: String, in transaction: XenstoreTransaction?,
    _ body: (borrowing StoreTree, String, inout StoreTree.Transaction) throws(XenstoreError.Code) -> Result
  ) throws(XenstoreError) -> Result {
    guard let absolute = StorePath.absolute(path, for: domain) else { throw XenstoreError(.invalid, operation, path) }
    do throws(XenstoreError.Code) {
      return try loopback.store.withLock { (store) throws(XenstoreError.Code) in
        guard let transaction else {
          var working = StoreTree.Transaction()
          let result = try body(store.tree, absolute, &working)
          // It cannot conflict: nobody else has had the lock since it began.
          if let changes = store.tree.commit(working) { store.fire(changes) }
          return result
        }
        guard var working = store.transactions[transaction] else { throw .notFound }
        defer { store.transactions[transaction] = working }
        return try body(store.tree, absolute, &working)
      }
    } catch { throw XenstoreError(error, operation, path) }
  }

  func startTransaction() throws(XenstoreError) -> XenstoreTransaction {
    let transaction = loopback.store.withLock { store in
      let transaction = XenstoreTransaction(rawValue: store.nextTransaction)
      store.nextTransaction &+= 1
      store.transactions[transaction] = StoreTree.Transaction()
      return transaction
    }
    _ = transactions.withLock { $0.insert(transaction) }
    return transaction
  }

  func endTransaction(_ transaction: XenstoreTransaction, commit: Bool) throws(XenstoreError) {
    _ = transactions.withLock { $0.remove(transaction) }
    do throws(XenstoreError.Code) {
      try loopback.store.withLock { (store) throws(XenstoreError.Code) in
        guard let working = store.transactions.removeValue(forKey: transaction) else {
          throw .notFound
        }
        guard commit else { return }
        guard let changes = store.tree.commit(working) else { throw .conflict }
        store.fire(changes)
      }
    } catch { throw XenstoreError(error, "end transaction", "") }
  }

  func watch(_ path: String, token: String) throws(XenstoreError) {
    guard let absolute = StorePath.absolute(path, for: domain) else { throw XenstoreError(.invalid, "watch", path) }
    let watch = SharedStore.Watch(
      connection: ObjectIdentifier(self), domain: domain, absolutePath: absolute, path: path, token: token,
      events: events)
    let isNew = loopback.store.withLock { store in
      if store.watches.contains(where: { $0.connection == watch.connection && $0.path == path && $0.token == token }) {
        return false
      }
      store.watches.append(watch)
      return true
    }
    guard isNew else { throw XenstoreError(.exists, "watch", path) }
    events.put(XenstoreWatchEvent(path: path, token: token))
  }

  func unwatch(_ path: String, token: String) throws(XenstoreError) {
    let connection = ObjectIdentifier(self)
    let removed = loopback.store.withLock { store in
      let before = store.watches.count
      store.watches.removeAll { $0.connection == connection && $0.path == path && $0.token == token }
      return before != store.watches.count
    }
    guard removed else { throw XenstoreError(.notFound, "unwatch", path) }
  }
}
