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
    try node(path, in: transaction, "directory").children
  }

  func permissions(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) -> [XenstorePermission] {
    try node(path, in: transaction, "permissions of").permissions
  }

  private func node(
    _ path: String, in transaction: XenstoreTransaction?, _ operation: String
  ) throws(XenstoreError) -> StoreNode {
    try perform(operation, path, in: transaction) { (tree, working) throws(XenstoreError.Code) in
      try tree.read(try absolute(path), by: domain, in: &working)
    }
  }

  func write(_ path: String, _ value: [UInt8], in transaction: XenstoreTransaction?) throws(XenstoreError) {
    try perform("write", path, and: value.count, in: transaction) { (tree, working) throws(XenstoreError.Code) in
      try tree.write(try absolute(path), value, by: domain, in: &working)
    }
  }

  func makeDirectory(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
    try perform("mkdir", path, in: transaction) { (tree, working) throws(XenstoreError.Code) in
      try tree.write(try absolute(path), nil, by: domain, in: &working)
    }
  }

  func remove(_ path: String, in transaction: XenstoreTransaction?) throws(XenstoreError) {
    try perform("rm", path, in: transaction) { (tree, working) throws(XenstoreError.Code) in
      try tree.remove(try absolute(path), by: domain, in: &working)
    }
  }

  func setPermissions(
    _ path: String, _ permissions: [XenstorePermission], in transaction: XenstoreTransaction?
  ) throws(XenstoreError) {
    let operation = "set permissions of"
    // Each is a letter, a number and a zero.
    let byteCount = permissions.reduce(0) { $0 + 2 + String($1.domain.rawValue).utf8.count }
    if StorePath.isSpecial(path) {
      try checkMessage(operation, path, and: byteCount)
      return try ask(operation, path) { (store) throws(XenstoreError.Code) in
        try store.setPermissions(special: path, permissions, by: domain)
      }
    }
    try perform(operation, path, and: byteCount, in: transaction) { (tree, working) throws(XenstoreError.Code) in
      try tree.check(permissions, by: domain)
      try tree.setPermissions(try absolute(path), permissions, by: domain, in: &working)
    }
  }

  /// One operation on the node that `path` names; its request holds so many bytes besides.
  private func perform<Result>(
    _ operation: String, _ path: String, and byteCount: Int = 0, in transaction: XenstoreTransaction?,
    _ body: (borrowing StoreTree, inout StoreTree.Transaction) throws(XenstoreError.Code) -> Result
  ) throws(XenstoreError) -> Result {
    try checkMessage(operation, path, and: byteCount)
    return try ask(operation, path) { (store) throws(XenstoreError.Code) in
      try store.perform(on: identity, in: transaction, body)
    }
  }

  private func absolute(_ path: String) throws(XenstoreError.Code) -> String {
    guard let absolute = StorePath.absolute(path, for: domain) else { throw .invalid }
    return absolute
  }

  /// A request holds the path, a zero and whatever else, and no more than one message can.
  private func checkMessage(_ operation: String, _ path: String, and byteCount: Int) throws(XenstoreError) {
    // A zero would end the string early.
    if path.utf8.contains(0) { throw XenstoreError(.invalid, operation, path) }
    if path.utf8.count + 1 + byteCount > StorePath.payloadByteLimit { throw XenstoreError(.tooBig, operation, path) }
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
    try checkWatch(path, token, "watch")
    guard let absolute = StorePath.watched(path, by: domain) else { throw XenstoreError(.invalid, "watch", path) }
    let watch = SharedStore.Watch(
      connection: identity, process: process, absolutePath: absolute, path: path, token: token, events: events)
    try ask("watch", path) { (store) throws(XenstoreError.Code) in try store.add(watch) }
  }

  func unwatch(_ path: String, token: String) throws(XenstoreError) {
    try checkWatch(path, token, "unwatch")
    // Whether it is well-formed nobody asks here: what is not cannot be watched.
    let absolute = StorePath.complete(path, for: domain)
    try ask("unwatch", path) { (store) throws(XenstoreError.Code) in
      try store.removeWatch(on: identity, absolute, token: token)
    }
  }

  private func checkWatch(_ path: String, _ token: String, _ operation: String) throws(XenstoreError) {
    if token.utf8.contains(0) { throw XenstoreError(.invalid, operation, path) }
    try checkMessage(operation, path, and: token.utf8.count + 1)
  }

  var descriptor: CInt { events.wakeup.descriptor }

  func nextWatchEvent() -> XenstoreWatchEvent? { events.take(by: process) }
}
