import Testing
import XenLoopback
import XenPlatform

/// What one domain may do with the nodes of another.
struct StorePermissionTests {
  private let xen = Domains()
  private let path = "/local/domain/1/a"

  @Test func nodeIsItsOwnersUntilTheOwnerSaysOtherwise() throws {
    let (owner, other) = (try xen.one.openXenstore(), try xen.two.openXenstore())
    try owner.write("a", [1], in: nil)
    #expect(try owner.permissions("a", in: nil) == [XenstorePermission(xen.one.domain, .none)])
    #expect(try refusal { _ = try other.read(path, in: nil) } == .permissionDenied)
    #expect(try refusal { try other.write(path, [2], in: nil) } == .permissionDenied)
    #expect(try refusal { try other.remove(path, in: nil) } == .permissionDenied)
    #expect(try refusal { _ = try other.read("\(path)/absent", in: nil) } == .permissionDenied)
    try owner.setPermissions(
      "a", [XenstorePermission(xen.one.domain, .none), XenstorePermission(xen.two.domain, .read)], in: nil)
    #expect(try other.read(path, in: nil) == [1])
    #expect(try refusal { _ = try other.read("\(path)/absent", in: nil) } == .notFound)
    #expect(try refusal { try other.write(path, [2], in: nil) } == .permissionDenied)
    #expect(try refusal { _ = try xen.loopback.addDomain().openXenstore().read(path, in: nil) } == .permissionDenied)
  }

  @Test func writersNodeIsTheWritersBelowAnothers() throws {
    let (owner, other) = (try xen.one.openXenstore(), try xen.two.openXenstore())
    try owner.write("a", [], in: nil)
    try owner.setPermissions(
      "a", [XenstorePermission(xen.one.domain, .none), XenstorePermission(xen.two.domain, .both)], in: nil)
    try other.write("\(path)/b", [1], in: nil)
    #expect(try other.permissions("\(path)/b", in: nil)[0] == XenstorePermission(xen.two.domain, .none))
  }

  @Test func ownerGivesAwayRightsButNotTheNode() throws {
    let (owner, other) = (try xen.one.openXenstore(), try xen.two.openXenstore())
    try owner.write("a", [], in: nil)
    let others = [XenstorePermission(xen.two.domain, .none)]
    #expect(try refusal { try owner.setPermissions("a", others, in: nil) } == .permissionDenied)
    #expect(try refusal { try other.setPermissions(path, others, in: nil) } == .permissionDenied)
    try xen.control.openXenstore().setPermissions(path, others, in: nil)
    #expect(try refusal { _ = try owner.read("a", in: nil) } == .permissionDenied)
    #expect(try other.read(path, in: nil) == [])
  }

  @Test func transactionIsItsConnectionsOwn() throws {
    let (owner, other) = (try xen.one.openXenstore(), try xen.one.openXenstore())
    let transaction = try owner.startTransaction()
    #expect(try refusal { try other.write("a", [1], in: transaction) } == .notFound)
    #expect(try refusal { try other.endTransaction(transaction, commit: true) } == .notFound)
    try owner.write("a", [2], in: transaction)
    try owner.endTransaction(transaction, commit: true)
    #expect(try owner.read("a", in: nil) == [2])
  }
}

struct StoreWatchTests {
  private let xen = Domains()

  @Test func watchHearsOnlyOfWhatItsDomainMayRead() throws {
    let (owner, other) = (try xen.one.openXenstore(), try xen.two.openXenstore())
    try other.watch("/local/domain/1/a", token: "t")
    _ = other.takeEvents()
    try owner.write("a", [], in: nil)
    #expect(other.takeEvents() == [])
    try owner.setPermissions("a", [XenstorePermission(xen.one.domain, .read)], in: nil)
    #expect(other.takePaths() == ["/local/domain/1/a"])
    // Below what it may read it hears of what it may not: that something is there it can list anyway.
    try owner.write("a/b", [], in: nil)
    try owner.setPermissions("a/b", [XenstorePermission(xen.one.domain, .none)], in: nil)
    _ = other.takeEvents()
    try owner.write("a/b", [1], in: nil)
    #expect(other.takePaths() == ["/local/domain/1/a/b"])
  }

  @Test func whoLosesItsRightHearsOfThat() throws {
    let (owner, other) = (try xen.one.openXenstore(), try xen.two.openXenstore())
    try owner.write("a", [], in: nil)
    try owner.setPermissions("a", [XenstorePermission(xen.one.domain, .read)], in: nil)
    try other.watch("/local/domain/1/a", token: "t")
    _ = other.takeEvents()
    try owner.setPermissions("a", [XenstorePermission(xen.one.domain, .none)], in: nil)
    #expect(other.takePaths() == ["/local/domain/1/a"])
    try owner.write("a", [1], in: nil)
    #expect(other.takeEvents() == [])
  }

  @Test func eventThatWaitsAlreadyIsNotPutAgain() throws {
    let (store, other) = (try xen.one.openXenstore(), try xen.one.openXenstore())
    try store.watch("a", token: "one")
    try store.watch("a", token: "two")
    _ = store.takeEvents()
    for round in 0..<100 { for name in ["x", "y", "z"] { try other.write("a/\(name)", [UInt8(round)], in: nil) } }
    let expected = ["x", "y", "z"].flatMap { name in
      ["one", "two"].map { XenstoreWatchEvent(path: "a/\(name)", token: $0) }
    }
    #expect(store.takeEvents() == expected)
    try other.write("a/x", [], in: nil)
    #expect(store.takePaths() == ["a/x", "a/x"], "what has been taken comes anew")
  }

  @Test func domainsThatComeAndGoAreTold() throws {
    let store = try xen.control.openXenstore()
    for path in ["@introduceDomain", "@releaseDomain"] { try store.watch(path, token: "t") }
    #expect(store.takePaths() == ["@introduceDomain", "@releaseDomain"])
    let (first, second) = (xen.loopback.addDomain(), xen.loopback.addDomain())
    #expect(store.takePaths() == ["@introduceDomain", "@introduceDomain"], "each is told, also while one waits")
    xen.loopback.destroy(first.domain)
    #expect(store.takePaths() == ["@releaseDomain"])
    second.kill()
    #expect(store.takePaths() == [], "a process is no domain")
  }

  @Test func onlyTheControlDomainHearsOfOtherDomainsUnlessItSaysSo() throws {
    let (control, other) = (try xen.control.openXenstore(), try xen.one.openXenstore())
    try other.watch("@introduceDomain", token: "t")
    #expect(other.takePaths() == ["@introduceDomain"], "the first event comes whoever watches")
    _ = xen.loopback.addDomain()
    #expect(other.takeEvents() == [])
    let permissions = [XenstorePermission(.zero, .none), XenstorePermission(xen.one.domain, .read)]
    #expect(
      try refusal { try other.setPermissions("@introduceDomain", permissions, in: nil) } == .permissionDenied)
    #expect(try refusal { try control.setPermissions("@somethingElse", permissions, in: nil) } == .invalid)
    try control.setPermissions("@introduceDomain", permissions, in: nil)
    _ = xen.loopback.addDomain()
    #expect(other.takePaths() == ["@introduceDomain"])
  }
}

/// What the store refuses a domain that has had its share (the quotas of C xenstored).
struct StoreQuotaTests {
  private let xen = Domains()

  /// Sets a quota and gives a connection of domain 1, which owns its home already.
  private func store(_ change: (inout StoreQuotas) -> Void) throws -> any Xenstore {
    change(&xen.loopback.storeQuotas)
    return try xen.one.openXenstore()
  }

  @Test func defaultsAreThoseOfXenstored() {
    let quotas = xen.loopback.storeQuotas
    #expect(quotas.nodesPerDomain == 1000 && quotas.bytesPerNode == 2048 && quotas.permissionsPerNode == 5)
    #expect(quotas.watchesPerDomain == 128 && quotas.transactionsPerDomain == 10)
  }

  @Test func domainOwnsNoMoreNodesThanItMay() throws {
    let store = try store { $0.nodesPerDomain = 4 }
    try store.write("a/b", [], in: nil)
    #expect(try refusal { try store.write("c/d", [], in: nil) } == .quotaExceeded)
    #expect(try refusal { _ = try store.read("c", in: nil) } == .notFound, "what fails leaves nothing")
    try store.write("c", [], in: nil)
    #expect(try refusal { try store.makeDirectory("d", in: nil) } == .quotaExceeded)
    try store.write("c", [1], in: nil)
    try store.remove("a", in: nil)
    try store.write("d", [], in: nil)
    try store.write("e", [], in: nil)
    #expect(try refusal { try store.write("f", [], in: nil) } == .quotaExceeded)
    #expect(try store.directory("/local/domain/1", in: nil) == ["c", "d", "e"])
  }

  @Test func nodeThatChangesItsOwnerCountsForTheNewOne() throws {
    let store = try store { $0.nodesPerDomain = 2 }
    let control = try xen.control.openXenstore()
    try store.write("a", [], in: nil)
    #expect(try refusal { try store.write("b", [], in: nil) } == .quotaExceeded)
    try control.setPermissions("/local/domain/1/a", [XenstorePermission(xen.two.domain, .none)], in: nil)
    try store.write("b", [], in: nil)
    #expect(try refusal { try xen.two.openXenstore().write("a", [], in: nil) } == .quotaExceeded)
  }

  @Test func controlDomainHasNoQuotaAndWhatItGivesCounts() throws {
    let store = try store { $0 = StoreQuotas(all: 2) }
    let control = try xen.control.openXenstore()
    for name in 0..<5 { try control.write("/local/domain/1/\(name)", [], in: nil) }
    #expect(try store.permissions("4", in: nil) == [XenstorePermission(xen.one.domain, .none)])
    try control.remove("/local/domain/1/4", in: nil)
    #expect(try refusal { try store.write("4", [], in: nil) } == .quotaExceeded)
    for token in 0..<5 { try control.watch("/", token: "\(token)") }
    for _ in 0..<5 { _ = try control.startTransaction() }
    let permissions = (0..<5).map { XenstorePermission(DomainID(rawValue: $0), .read) }
    try control.setPermissions("/local/domain/1/0", permissions, in: nil)
  }

  @Test func transactionCountsWhatItMakesAndRemoves() throws {
    let store = try store { $0.nodesPerDomain = 4 }
    for name in ["a", "b"] { try store.write(name, [], in: nil) }
    let swap = try store.startTransaction()
    try store.remove("a", in: swap)
    try store.write("c", [], in: swap)
    try store.endTransaction(swap, commit: true)
    try store.write("d", [], in: nil)
    #expect(try refusal { try store.write("e", [], in: nil) } == .quotaExceeded)
    let dropped = try store.startTransaction()
    try store.remove("b", in: dropped)
    try store.endTransaction(dropped, commit: false)
    #expect(try refusal { try store.write("e", [], in: nil) } == .quotaExceeded)
    let removal = try store.startTransaction()
    try store.remove("b", in: removal)
    #expect(try refusal { try store.write("e", [], in: removal) } == .quotaExceeded, "b is still there for others")
    try store.endTransaction(removal, commit: true)
    try store.write("e", [], in: nil)
  }

  @Test func transactionThatFillsTheQuotaIsNotCommitted() throws {
    let store = try store { $0.nodesPerDomain = 3 }
    let full = try store.startTransaction()
    try store.write("a", [], in: full)
    try store.write("b", [], in: full)
    #expect(try refusal { try store.endTransaction(full, commit: true) } == .quotaExceeded)
    for name in ["a", "b"] { try store.write(name, [], in: nil) }
  }

  @Test func transactionWithANodeThatIsTooBigIsNotCommitted() throws {
    let store = try xen.one.openXenstore()
    let transaction = try store.startTransaction()
    try store.write("a", [], in: transaction)
    #expect(
      try refusal { try store.write("b", [UInt8](repeating: 0, count: 2048), in: transaction) } == .quotaExceeded)
    guard case .system = try refusal({ try store.endTransaction(transaction, commit: true) }) else {
      Issue.record("the transaction is committed")
      return
    }
    #expect(try refusal { _ = try store.read("a", in: nil) } == .notFound)
  }

  @Test func commitCountsWhatOthersMadeMeanwhile() throws {
    let store = try store { $0.nodesPerDomain = 4 }
    let other = try xen.one.openXenstore()
    for name in ["a", "b"] { try store.makeDirectory(name, in: nil) }
    let transaction = try store.startTransaction()
    try store.write("a/x", [], in: transaction)
    try other.write("b/x", [], in: nil)
    #expect(try refusal { try store.endTransaction(transaction, commit: true) } == .quotaExceeded)
    #expect(try refusal { _ = try store.read("a/x", in: nil) } == .notFound)
  }

  @Test func recordOfANodeIsShorterThanItMayBe() throws {
    let store = try xen.one.openXenstore()
    // A header of 24 bytes, and 8 for its one permission.
    try store.write("a", [UInt8](repeating: 0, count: 2047 - 32), in: nil)
    #expect(try refusal { try store.write("b", [UInt8](repeating: 0, count: 2048 - 32), in: nil) } == .quotaExceeded)
    #expect(try refusal { _ = try store.read("b", in: nil) } == .notFound)
    #expect(try refusal { try store.write("a/b", [], in: nil) } == .quotaExceeded, "a child's name is in it too")
    let more = [XenstorePermission(xen.one.domain, .none), XenstorePermission(xen.two.domain, .read)]
    #expect(try refusal { try store.setPermissions("a", more, in: nil) } == .quotaExceeded)
    #expect(try store.permissions("a", in: nil).count == 1)
  }

  @Test func directoryHoldsNoMoreNamesThanItsRecord() throws {
    let store = try store { $0.bytesPerNode = 32 + 3 * 3 + 1 }
    try store.makeDirectory("a", in: nil)
    for name in ["aa", "bb", "cc"] { try store.write("a/\(name)", [], in: nil) }
    #expect(try refusal { try store.write("a/dd", [], in: nil) } == .quotaExceeded)
  }

  @Test func nodeHasNoMorePermissionsThanItMay() throws {
    let store = try store { $0.permissionsPerNode = 2 }
    try store.write("a", [], in: nil)
    let permissions = (1...3).map { XenstorePermission(DomainID(rawValue: $0), .read) }
    #expect(try refusal { try store.setPermissions("a", permissions, in: nil) } == .quotaExceeded)
    try store.setPermissions("a", Array(permissions.prefix(2)), in: nil)
  }

  @Test func domainHasNoMoreWatchesThanItMayOnAllItsConnections() throws {
    let store = try store { $0.watchesPerDomain = 2 }
    do {
      let other = try xen.one.openXenstore()
      try other.watch("a", token: "1")
      try store.watch("a", token: "1")
      #expect(try refusal { try store.watch("a", token: "2") } == .tooBig)
    }
    try store.watch("a", token: "2")
    try store.unwatch("a", token: "1")
    try store.watch("a", token: "3")
    try xen.two.openXenstore().watch("a", token: "1")
  }

  @Test func domainHasNoMoreTransactionsUnderWayThanItMay() throws {
    let store = try store { $0.transactionsPerDomain = 2 }
    let first = try store.startTransaction()
    _ = try store.startTransaction()
    #expect(try refusal { _ = try store.startTransaction() } == .quotaExceeded)
    try store.endTransaction(first, commit: false)
    _ = try store.startTransaction()
  }

  @Test func quotaThatFillsUpTakesNothingAway() throws {
    let store = try xen.one.openXenstore()
    for name in ["a", "b"] { try store.write(name, [], in: nil) }
    xen.loopback.storeQuotas.nodesPerDomain = 0
    try store.write("a", [1], in: nil)
    #expect(try refusal { try store.write("c", [], in: nil) } == .quotaExceeded)
    xen.loopback.storeQuotas = StoreQuotas()
    try store.write("c", [], in: nil)
  }
}

extension StoreQuotas {
  fileprivate init(all limit: Int) {
    self.init()
    nodesPerDomain = limit
    watchesPerDomain = limit
    transactionsPerDomain = limit
    permissionsPerNode = limit
  }
}
