import TestSupport
import Testing
import XenLoopback
import XenPlatform
import XenstoredSupport

/// X14: the same random operations on the loopback's store and on a real xenstored have the same results and the same
/// watch events, connection by connection, in the same order.
///
/// With one exception. A transaction of xenstored copies each node when it first looks at it, and so may see the store of
/// several moments at once: a directory as it was, and a child as it is. What it then answers may differ (EIO, say), but such
/// a transaction is bound to conflict; that it does, on both stores, is checked in place of its answers.
struct StoreDifferenceTests {
  static let seeds = TestSupport.seeds(0...15, of: StoreDifferenceTests.self)

  @Test(.needsXenstored, arguments: seeds) func randomOperationsDoTheSameOnBothStores(seed: Seed) throws {
    try expectNoDifference(try Twins(seed), steps: 400)
  }

  /// The same with one connection of the control domain and one each of two guests, over the pages that they share with
  /// xenstored: what permissions forbid, quotas refuse, and watches may hear of.
  @Test(.needsXenstored, arguments: seeds) func guestsOperationsDoTheSameOnBothStores(seed: Seed) throws {
    try expectNoDifference(try Twins(ofGuests: seed), steps: 100)
  }

  /// Each length about the limits of io/xs_wire.h, which random paths seldom have.
  @Test(
    .needsXenstored,
    arguments: ["/", "/a/", "/local/domain/0/", "/local/domain/12345/", "/local/domain/123456/", "", "@"])
  func pathsAreTooLongForBothStoresAlike(start: String) throws {
    let daemon = try Xenstored()
    let stores = [try Loopback().addDomain().openXenstore(), try daemon.connect()]
    let lengths = [2040...2072, 3070...3074, 4088...4096].joined()
    for path in lengths.map({ start + String(repeating: "x", count: $0 - start.utf8.count) }) {
      let results = stores.map { store in
        [
          outcome { try store.makeDirectory(path, in: nil) }, outcome { try store.write(path, [1], in: nil) },
          outcome { _ = try store.read(path, in: nil) }, outcome { try store.watch(path, token: "t") },
          outcome { try store.unwatch(path, token: "t") }, outcome { try store.remove(path, in: nil) },
        ]
      }
      #expect(results[0] == results[1], "a path of \(path.utf8.count) bytes")
    }
  }

  private func outcome(_ operation: () throws -> Void) -> String {
    do {
      try operation()
      return "done"
    } catch { return "\((error as? XenstoreError)?.code as Any? ?? error)" }
  }

  private func expectNoDifference(_ twins: Twins, steps: Int) throws {
    for step in 0..<steps {
      let (operation, results) = try twins.step()
      guard results.loopback == results.xenstored else {
        Issue.record("step \(step), \(operation): loopback \(results.loopback), xenstored \(results.xenstored)")
        return
      }
    }
    #expect(try twins.commitOfAnyDoomedTransaction() == nil)
  }
}

/// Two stores and three connections to each, which are told the same.
private final class Twins {
  typealias Results = (loopback: [String], xenstored: [String])

  private struct Connection {
    var store: any Xenstore
    var transactions: [XenstoreTransaction] = []
    /// Those in which the stores have answered differently.
    var doomed: Set<XenstoreTransaction> = []
  }

  private let platforms: [any Platform]
  private var connections: [[Connection]]
  private var random: SeededGenerator
  private let haveGuests: Bool

  /// All connections are the control domain's.
  convenience init(_ seed: Seed) throws {
    try self.init(seed, haveGuests: false) { _, _, platforms in
      try platforms.map { platform in try (0..<3).map { _ in try platform.openXenstore() } }
    }
  }

  /// The first is the control domain's, the others are two guests'.
  convenience init(ofGuests seed: Seed) throws {
    try self.init(seed, haveGuests: true) { guests, daemon, platforms in
      #if canImport(CXen)
        [
          [try platforms[0].openXenstore(), try guests[0].openXenstore(), try guests[1].openXenstore()],
          [
            try platforms[1].openXenstore(), try GuestXenstore(guests[0].domain, of: daemon),
            try GuestXenstore(guests[1].domain, of: daemon),
          ],
        ]
      #else
        []
      #endif
    }
    // Somewhere to meet, where everybody may do everything.
    for twin in connections {
      try twin[0].store.makeDirectory("/t", in: nil)
      try twin[0].store.setPermissions("/t", [XenstorePermission(.zero, .both)], in: nil)
    }
  }

  private init(
    _ seed: Seed, haveGuests: Bool,
    _ connect: ([LoopbackDomain], Xenstored, [any Platform]) throws -> [[any Xenstore]]
  ) throws {
    self.haveGuests = haveGuests
    random = SeededGenerator(seed)
    let loopback = Loopback()
    let control = loopback.addDomain()
    let guests = (1...3).map { _ in loopback.addDomain() }
    let daemon = try Xenstored(domains: guests.map(\.domain))
    platforms = [control, XenstoredPlatform(control, storedBy: daemon)]
    connections = try connect(guests, daemon, platforms).map { $0.map { Connection(store: $0) } }
  }

  /// One operation on both; its words, and what came of it: its result, and each connection's events.
  func step() throws -> (operation: String, results: Results) {
    let place = Int.random(in: 0..<3, using: &random)
    let (words, operation) = draw(connections[0][place].transactions.count)
    let isDoomed =
      if case .end(let index, commit: true) = operation {
        connections[0][place].doomed.contains(connections[0][place].transactions[index])
      } else { false }
    var results: [[String]] = []
    for index in 0..<2 {
      let result = perform(operation, platforms[index], &connections[index][place])
      let events = connections[index].map { connection in
        var events: [XenstoreWatchEvent] = []
        while let event = connection.store.nextWatchEvent() { events.append(event) }
        return events.map { "\($0.path) \($0.token)" }.joined(separator: ", ")
      }
      results.append([result] + events)
    }
    if isDoomed, results.contains(where: { $0[0] != Self.cannotCommit }) {
      results[0][0] = "is committed on one, although it was answered otherwise on the other: \(results[0][0])"
    }
    if case .other(let index?, _) = operation, results[0][0] != results[1][0] {
      for twin in 0..<2 {
        connections[twin][place].doomed.insert(connections[twin][place].transactions[index])
        results[twin][0] = "something"
      }
    }
    return ("connection \(place) \(words)", (results[0], results[1]))
  }

  /// Ends them all; gives what one was answered that should not have been committed.
  func commitOfAnyDoomedTransaction() throws -> String? {
    for index in 0..<2 {
      for place in 0..<3 {
        for transaction in connections[index][place].doomed {
          connections[index][place].transactions = [transaction]
          let answer = perform(.end(0, commit: true), platforms[index], &connections[index][place])
          if answer != Self.cannotCommit { return answer }
        }
      }
    }
    return nil
  }

  private static let cannotCommit = "cannot be committed"

  private typealias Operation = (any Xenstore, XenstoreTransaction?) throws -> String

  private enum Step {
    case start, reopen
    case end(Int, commit: Bool)
    case other(inTransaction: Int?, Operation)
  }

  private func perform(_ step: Step, _ platform: any Platform, _ connection: inout Connection) -> String {
    do {
      switch step {
      case .start: connection.transactions.append(try connection.store.startTransaction())
      case .reopen where haveGuests: break
      case .reopen: connection = Connection(store: try platform.openXenstore())
      case .end(let index, let commit):
        let transaction = connection.transactions.remove(at: index)
        let isDoomed = connection.doomed.remove(transaction) != nil
        do { try connection.store.endTransaction(transaction, commit: commit) } catch {
          // xenstored says ENOMEM of one in which an operation has failed half-way.
          if isDoomed { return Self.cannotCommit }
          throw error
        }
      case .other(let index, let operation):
        return try operation(connection.store, index.map { connection.transactions[$0] })
      }
      return "done"
    } catch {
      // What has no code of ours is in each store's own words.
      guard let error = error as? XenstoreError, case .system = error.code else {
        return "\((error as? XenstoreError)?.code as Any? ?? error)"
      }
      return "fails"
    }
  }

  // MARK: What to do

  private func draw(_ transactionCount: Int) -> (words: String, Step) {
    let chosen =
      transactionCount == 0 || Int.random(in: 0..<3, using: &random) == 0
      ? nil : Int.random(in: 0..<transactionCount, using: &random)
    let inside = chosen.map { " in \($0)" } ?? ""
    let path = path()
    switch Int.random(in: 0..<100, using: &random) {
    case 0..<24:
      let value = value()
      return (
        "writes \(value.count) bytes to \(path)\(inside)",
        .other(inTransaction: chosen) {
          try $0.write(path, value, in: $1)
          return "done"
        }
      )
    case 24..<32:
      return (
        "makes \(path)\(inside)",
        .other(inTransaction: chosen) {
          try $0.makeDirectory(path, in: $1)
          return "done"
        }
      )
    case 32..<45:
      return (
        "removes \(path)\(inside)",
        .other(inTransaction: chosen) {
          try $0.remove(path, in: $1)
          return "done"
        }
      )
    case 45..<53: return ("reads \(path)\(inside)", .other(inTransaction: chosen) { "\(try $0.read(path, in: $1))" })
    case 53..<60:
      return ("lists \(path)\(inside)", .other(inTransaction: chosen) { "\(try $0.directory(path, in: $1))" })
    case 60..<65:
      return (
        "asks for the permissions of \(path)\(inside)",
        .other(inTransaction: chosen) {
          "\(try $0.permissions(path, in: $1).map { "\($0.domain) \($0.access)" })"
        }
      )
    case 65..<72:
      let permissions = permissions()
      return (
        "gives \(path) \(permissions.count) permissions\(inside)",
        .other(inTransaction: chosen) {
          try $0.setPermissions(path, permissions, in: $1)
          return "done"
        }
      )
    case 72..<79 where transactionCount < 3: return ("starts a transaction", .start)
    case 79..<88 where transactionCount > 0:
      let commit = Int.random(in: 0..<5, using: &random) > 0
      let index = Int.random(in: 0..<transactionCount, using: &random)
      return ("ends transaction \(index)", .end(index, commit: commit))
    case 98: return ("is made anew", .reopen)
    case let number:
      let token = ["x", "y", ""].randomElement(using: &random)!
      let watched = number % 7 == 0 ? ["/", "@releaseDomain", "@"].randomElement(using: &random)! : path
      if number % 3 == 0 {
        return (
          "unwatches \(watched) \(token)",
          .other(inTransaction: nil) { store, _ in
            try store.unwatch(watched, token: token)
            return "done"
          }
        )
      }
      return (
        "watches \(watched) \(token)",
        .other(inTransaction: nil) { store, _ in
          try store.watch(watched, token: token)
          return "done"
        }
      )
    }
  }

  /// Few enough that they meet; some relative, some at the limits of length, some malformed.
  private func path() -> String {
    let names = (0..<Int.random(in: 1...3, using: &random)).map { _ in ["a", "b", "c"].randomElement(using: &random)! }
    let path = names.joined(separator: "/")
    // A guest could not list a directory with such names.
    switch Int.random(in: (haveGuests ? 2 : 0)..<40, using: &random) {
    case 0: return "/t/" + String(repeating: "x", count: 2044 + Int.random(in: 0...2, using: &random))
    case 1: return "/local/domain/0/" + String(repeating: "x", count: 2047 + Int.random(in: 0...2, using: &random))
    case 2: return String(repeating: "x", count: 4094 + Int.random(in: 0...3, using: &random))
    case 3: return ["", "/t//a", "/t/a/", "t a", "/t/a.b", "@releaseDomain"].randomElement(using: &random)!
    case 4..<12: return path
    case 12..<16: return "/local/domain/0/" + path
    default: return "/t/" + path
    }
  }

  private func value() -> [UInt8] {
    let count = [0, 1, 2, 3, 4000, 4096].randomElement(using: &random)!
    return [UInt8](repeating: .random(in: 0...255, using: &random), count: count)
  }

  private func permissions() -> [XenstorePermission] {
    (0..<Int.random(in: 0...6, using: &random)).map { _ in
      // Domain 9 is not there.
      let domain = [0, 0, 1, 2, 3, 9].randomElement(using: &random)! as UInt16
      let access = [XenstorePermission.Access.none, .read, .write, .both].randomElement(using: &random)!
      return XenstorePermission(DomainID(rawValue: domain), access)
    }
  }
}
