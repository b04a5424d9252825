import XenPlatform

/// The store that all connections share: the tree, the transactions under way, the watches.
struct SharedStore {
  struct Watch {
    let connection: ObjectIdentifier
    let process: LoopbackProcess
    let absolutePath: String
    /// As it was set; events name paths in the same form.
    let path: String
    let token: String
    let events: Mailbox<XenstoreWatchEvent>

    /// How many events wait for a connection before further ones only say that something has changed.
    static let waitingLimit = 1024

    /// An event that waits already, and says the same, does for this one too; and where very many wait, further ones name the
    /// path that is watched, and not the one below it, so that a storm of changes over ever new paths is no longer than that and
    /// the watches (XSA-349). But each coming and going of a domain is told.
    func report(_ path: String) {
      // Whoever watches by a long token hears nothing of long paths: the event would be longer than a message.
      guard path.utf8.count + token.utf8.count + 2 <= StorePath.payloadByteLimit else { return }
      let event = XenstoreWatchEvent(path: path, token: token)
      if StorePath.isSpecial(path) { return events.put(event) }
      events.putUnlessWaiting(
        event, limit: Self.waitingLimit, substitute: XenstoreWatchEvent(path: self.path, token: token))
    }
  }

  private struct OpenTransaction {
    let connection: ObjectIdentifier
    let process: LoopbackProcess
    var working = StoreTree.Transaction(isOneOperation: false)
  }

  private var tree = StoreTree()
  private var transactions: [XenstoreTransaction: OpenTransaction] = [:]
  private var nextTransaction: UInt32 = 1
  private var watches = StoreWatches()
  /// Who may hear of domains that come and go, which nobody but the control domain may unless it says so.
  private var specialPermissions = [introduction, departure].reduce(into: [:]) {
    $0[$1] = [XenstorePermission(.zero, .none)]
  }

  static let introduction = "@introduceDomain"
  static let departure = "@releaseDomain"

  var quotas: StoreQuotas {
    get { tree.quotas }
    set { tree.quotas = newValue }
  }

  var waitingEventCount: Int {
    Dictionary(watches.all.map { (ObjectIdentifier($0.events), $0.events.count) }) { first, _ in first }.values.reduce(
      0, +)
  }

  var counts: StoreCounts { StoreCounts(watches: watches.count, openTransactions: transactions.count) }

  // MARK: Domains, connections and processes

  mutating func introduce(_ domain: DomainID) {
    tree.introduce(domain)
    if domain != .zero { fire(special: Self.introduction) }
  }

  mutating func release(_ domain: DomainID) {
    fire(tree.release(domain))
    fire(special: Self.departure)
  }

  mutating func end(_ connection: ObjectIdentifier) {
    watches.removeAll { $0.connection == connection }
    transactions = transactions.filter { $0.value.connection != connection }
  }

  mutating func end(_ process: LoopbackProcess) {
    watches.removeAll { $0.process === process }
    transactions = transactions.filter { $0.value.process !== process }
  }

  // MARK: Operations

  /// Runs one operation of the tree in the connection's transaction, or in one of its own.
  mutating func perform<Result>(
    on connection: ObjectIdentifier, in transaction: XenstoreTransaction?,
    _ body: (borrowing StoreTree, inout StoreTree.Transaction) throws(XenstoreError.Code) -> Result
  ) throws(XenstoreError.Code) -> Result {
    guard let transaction else {
      var working = StoreTree.Transaction(isOneOperation: true)
      let result = try body(tree, &working)
      // It cannot conflict: nobody else has had the tree since it began.
      fire(tree.commit(working) ?? [])
      return result
    }
    guard transactions[transaction]?.connection == connection else { throw .notFound }
    return try body(tree, &transactions[transaction]!.working)
  }

  mutating func startTransaction(
    by process: LoopbackProcess, on connection: ObjectIdentifier
  ) throws(XenstoreError.Code) -> XenstoreTransaction {
    let underWay = transactions.values.count { $0.process.domain == process.domain }
    if process.domain != .zero, underWay >= quotas.transactionsPerDomain { throw .quotaExceeded }
    let transaction = XenstoreTransaction(rawValue: nextTransaction)
    nextTransaction &+= 1
    transactions[transaction] = OpenTransaction(connection: connection, process: process)
    return transaction
  }

  mutating func endTransaction(
    _ transaction: XenstoreTransaction, by domain: DomainID, on connection: ObjectIdentifier, commit: Bool
  ) throws(XenstoreError.Code) {
    guard let open = transactions[transaction], open.connection == connection else { throw .notFound }
    transactions[transaction] = nil
    guard commit else { return }
    try tree.check(open.working, by: domain)
    guard let changes = tree.commit(open.working) else { throw .conflict }
    fire(changes)
  }

  mutating func setPermissions(
    special path: String, _ permissions: [XenstorePermission], by domain: DomainID
  ) throws(XenstoreError.Code) {
    try tree.check(permissions, by: domain)
    guard let former = specialPermissions[path] else { throw .invalid }
    guard former.areOwned(by: domain) else { throw .permissionDenied }
    specialPermissions[path] = permissions
  }

  // MARK: Watches

  mutating func add(_ watch: Watch) throws(XenstoreError.Code) {
    if watches.at(watch.absolutePath).contains(where: { $0.isSame(as: watch) }) { throw .exists }
    let domain = watch.process.domain
    if domain != .zero, watches.count(of: domain) >= quotas.watchesPerDomain { throw .tooBig }
    watches.append(watch)
    watch.report(watch.path)
  }

  mutating func removeWatch(
    on connection: ObjectIdentifier, _ absolutePath: String, token: String
  ) throws(XenstoreError.Code) {
    let found = watches.remove(at: absolutePath) { $0.connection == connection && $0.token == token }
    guard found else { throw .notFound }
  }

  private func fire(_ changes: [StoreTree.Change]) {
    for change in changes {
      for watch in change.isImplied ? watches.at(change.path) : watches.atOrAbove(change.path) {
        guard change.audience.contains(where: { $0.allow(.read, watch.process.domain) }) else { continue }
        // A watch set by a relative path hears of relative paths.
        let below = change.path.dropFirst(watch.absolutePath == "/" ? 0 : watch.absolutePath.count)
        watch.report(watch.path == "/" ? change.path : watch.path + below)
      }
    }
  }

  private func fire(special path: String) {
    for watch in watches.at(path) {
      if specialPermissions[path]?.allow(.read, watch.process.domain) == true { watch.report(path) }
    }
  }
}

extension SharedStore.Watch {
  fileprivate func isSame(as other: Self) -> Bool {
    connection == other.connection && absolutePath == other.absolutePath && token == other.token
  }
}
