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
    let twins = try Twins(seed)
    for step in 0..<400 {
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

  init(_ seed: Seed) throws {
    random = SeededGenerator(seed)
    let loopback = Loopback()
    let control = loopback.addDomain()
    let guests = (1...3).map { _ in loopback.addDomain().domain }
    platforms = [control, XenstoredPlatform(control, storedBy: try Xenstored(domains: guests))]
    connections = try platforms.map { platform in
      try (0..<3).map { _ in Connection(store: try platform.openXenstore()) }
    }
  }

  /// One operation on both; its words, and what came of it: its result, and each connection's events.
  func step() throws -> (operation: String, results: Results) {
    let place = Int.random(in: 0..<3, using: &random)
    let (words, operation) = draw(connections[0][place].transactions.count)
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
    } catch { return "\((error as? XenstoreError)?.code as Any? ?? error)" }
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
    switch Int.random(in: 0..<40, using: &random) {
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
