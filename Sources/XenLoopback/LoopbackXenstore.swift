import XenPlatform

/// One process's connection to the ``SharedStore``.
final class LoopbackXenstore: Xenstore {
  private let process: LoopbackProcess
  private let loopback: Loopback
  private let events: Mailbox<XenstoreWatchEvent>

  init(_ process: LoopbackProcess, in loopback: Loopback) throws(ResourceError) {
    events = try Mailbox()
    self.process = process
    self.loopback = loopback
  }

  deinit {
    let connection = identity
    loopback.store.withLock { $0.end(connection) }
  }

  private var identity: ObjectIdentifier { ObjectIdentifier(self) }
  private var domain: DomainID { process.domain }

  /// Asks the store for something, as long as the process lives, and names it in whatever error comes out.
  private func ask<Result>(
    _ operation: String, _ path: String, _ body: (inout SharedStore) throws(XenstoreError.Code) -> Result
  ) throws(XenstoreError) -> Result {
    do throws(XenstoreError.Code) {
      return try loopback.store.withLock { (store) throws(XenstoreError.Code) in
        if process.isKilled { throw .system(LoopbackProcess.wasKilled) }
        return try body(&store)
      }
    } catch { throw XenstoreError(error, operation, path) }
  }

  // MARK: Nodes

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
  ) throws(XenstoreError) -> StoreNode {
    try perform(operation, path, in: transaction) { (tree, path, domain, working) throws(XenstoreError.Code) in
      try tree.read(path, by: domain, in: &working)
    }
  }

  func write(_ path: String, _ value: [UInt8], in transaction: XenstoreTransaction?) throws(XenstoreError) {
    guard value.count + path.utf8.count < StorePath.valueByteLimit else { throw XenstoreError(.tooBig, "write", path) }
    try perform("write", path, in: transaction) { (tree, path, domain, working) throws(XenstoreError.Code) in
      try tree.write(path, value, by: domain, in: &working)
    }
  }

  func makeDirectory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
    try perform("mkdir", path, in: transaction) { (tree, path, domain, working) throws(XenstoreError.Code) in
      try tree.write(path, nil, by: domain, in: &working)
    }
  }

  func remove(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
    try perform("rm", path, in: transaction) { (tree, path, domain, working) throws(XenstoreError.Code) in
      try tree.remove(path, by: domain, in: &working)
    }
  }

  func setPermissions(
    _ path: String, _ permissions: [XenstorePermission], in transaction: XenstoreTransaction?
  ) throws(XenstoreError) {
    if StorePath.isSpecial(path) {
      return try ask("set permissions of", path) { (store) throws(XenstoreError.Code) in
        try store.setPermissions(special: path, permissions, by: domain)
      }
    }
    try perform("set permissions of", path, in: transaction) {
      (tree, path, domain, working) throws(XenstoreError.Code) in
      try tree.setPermissions(path, permissions, by: domain, in: &working)
    }
  }

  /// One operation on the node that `path` names.
  private func perform<Result>(
    _ operation: String, _ path: String, in transaction: XenstoreTransaction?,
    _ body: (borrowing StoreTree, String, DomainID, inout StoreTree.Transaction) throws(XenstoreError.Code) -> Result
  ) throws(XenstoreError) -> Result {
    guard let absolute = StorePath.absolute(path, for: domain) else { throw XenstoreError(.invalid, operation, path) }
    return try ask(operation, path) { (store) throws(XenstoreError.Code) in
      try store.perform(on: identity, in: transaction) {
        (tree, working) throws(XenstoreError.Code) in try body(tree, absolute, domain, &working)
      }
    }
  }

  // MARK: Transactions

  func startTransaction() throws(XenstoreError) -> XenstoreTransaction {
    try ask("start transaction", "") { (store) throws(XenstoreError.Code) in
      try store.startTransaction(by: process, on: identity)
    }
  }

  func endTransaction(_ transaction: XenstoreTransaction, commit: Bool) throws(XenstoreError) {
    try ask("end transaction", "") { (store) throws(XenstoreError.Code) in
      try store.endTransaction(transaction, by: domain, on: identity, commit: commit)
    }
  }

  // MARK: Watches

  func watch(_ path: String, token: String) throws(XenstoreError) {
    guard let absolute = StorePath.watched(path, by: domain) else { throw XenstoreError(.invalid, "watch", path) }
    let watch = SharedStore.Watch(
      connection: identity, process: process, absolutePath: absolute, path: path, token: token, events: events)
    try ask("watch", path) { (store) throws(XenstoreError.Code) in try store.add(watch) }
  }

  func unwatch(_ path: String, token: String) throws(XenstoreError) {
    guard let absolute = StorePath.watched(path, by: domain) else { throw XenstoreError(.invalid, "unwatch", path) }
    try ask("unwatch", path) { (store) throws(XenstoreError.Code) in
      try store.removeWatch(on: identity, absolute, token: token)
    }
  }

  var descriptor: CInt { events.wakeup.descriptor }

  func nextWatchEvent() -> XenstoreWatchEvent? { events.take(by: process) }
}
