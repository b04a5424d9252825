import Glibc
import SystemPackage
import Testing
import XenPlatform

@testable import XenLoopback

/// What a client of the store's socket is answered. The answers are those that xenstored 4.17 gives on its own socket, but
/// for who may manage domains.
struct XenstoreSocketTests {
  private let xen = Domains()
  private let folder: SocketFolder
  private let socket: XenstoreSocket

  init() throws {
    folder = try SocketFolder()
    socket = try XenstoreSocket(serving: xen.loopback, at: FilePath(folder.path))
  }

  private func client() throws -> RawStoreClient { try RawStoreClient(folder.path) }

  @Test func nodesAreMadeReadListedAndRemoved() throws {
    let client = try client()
    #expect(try client.ask(.write, "/a/b\0v\0w") == "write OK|")
    #expect(try client.ask(.read, "/a/b\0") == "read v|w")
    #expect(try client.ask(.makeDirectory, "/a/c\0") == "makeDirectory OK|")
    #expect(try client.ask(.directory, "/a\0") == "directory b|c|")
    #expect(try client.ask(.directory, "/a/c\0") == "directory ")
    #expect(try client.ask(.remove, "/a/b\0") == "remove OK|")
    #expect(try client.ask(.read, "/a/b\0") == "error ENOENT|")
    #expect(try client.ask(.read, "/a//b\0") == "error EINVAL|")
    #expect(try client.ask(.read, "/é\0") == "error EINVAL|")
    #expect(try client.ask(.remove, "/none/none\0") == "error ENOENT|")
    #expect(try client.ask(.remove, "/\0") == "error EINVAL|")
  }

  /// Relative to the control domain's home, which may read and write what is others'.
  @Test func clientIsOfTheControlDomain() throws {
    let client = try client()
    #expect(try client.ask(.write, "a\0v") == "write OK|")
    #expect(try client.ask(.read, "/local/domain/0/a\0") == "read v")
    try xen.one.openXenstore().write("secret", Array("s".utf8), in: nil)
    #expect(try client.ask(.read, "/local/domain/1/secret\0") == "read s")
    #expect(try client.ask(.permissions, "/local/domain/1/secret\0") == "permissions n1|")
  }

  @Test func permissionsAreSetAndShown() throws {
    let client = try client()
    _ = try client.ask(.write, "/a\0")
    #expect(try client.ask(.setPermissions, "/a\0n1\0r2\0w3\0b4\0") == "setPermissions OK|")
    #expect(try client.ask(.permissions, "/a\0") == "permissions n1|r2|w3|b4|")
    #expect(try client.ask(.setPermissions, "/none\0n1\0") == "error ENOENT|")
    #expect(try client.ask(.setPermissions, "@releaseDomain\0n0\0r1\0") == "setPermissions OK|")
    #expect(try client.ask(.setPermissions, "@other\0n0\0") == "error EINVAL|")
    #expect(try client.ask(.permissions, "@releaseDomain\0") == "error EINVAL|")
  }

  @Test func domainsAreNamed() throws {
    let client = try client()
    #expect(try client.ask(.domainPath, "007\0") == "domainPath /local/domain/7|")
    #expect(try client.ask(.isDomainIntroduced, "0\0") == "isDomainIntroduced T|")
    #expect(try client.ask(.isDomainIntroduced, "2\0") == "isDomainIntroduced T|")
    #expect(try client.ask(.isDomainIntroduced, "3\0") == "isDomainIntroduced F|")
    xen.loopback.destroy(xen.two.domain)
    #expect(try client.ask(.isDomainIntroduced, "2\0") == "isDomainIntroduced F|")
  }

  @Test(arguments: [.introduce, .release, .resume, .setTarget] as [RawStoreClient.Kind])
  func domainsAreNotManagedFromHere(kind: RawStoreClient.Kind) throws {
    #expect(try client().ask(kind, "1\0" + "1\0" + "1\0") == "error EACCES|")
  }

  @Test func controlKnowsHelpAlone() throws {
    let client = try client()
    #expect(try client.ask(.control, "help\0") == "control help\t\n|")
    #expect(try client.ask(.control, "check\0") == "error EINVAL|")
  }

  @Test func answerBearsItsRequestsNumbers() throws {
    let client = try client()
    client.write(.read, "/\0", request: .max)
    client.write(.read, "/none\0", in: 99, request: 5)
    let answers = [try client.next(), try client.next()].compactMap { $0 }
    #expect(answers.map(\.request) == [.max, 5])
    #expect(answers.map(\.transaction) == [0, 99])
  }

  // MARK: Long lists

  @Test func listLongerThanAMessageComesInParts() throws {
    let (client, store) = (try client(), try xen.control.openXenstore())
    let names = (0..<1000).map { "child-number-\($0)" }
    for name in names { try store.write("/a/\(name)", [], in: nil) }
    #expect(try client.ask(.directory, "/a\0") == "error E2BIG|")
    var (list, numbers, parts): ([UInt8], Set<String>, Int) = ([], [], 0)
    while !list.suffix(2).elementsEqual([0, 0]) {
      client.write(.directoryPart, "/a\0\(list.count)\0")
      let message = try client.next()
      let payload = try #require(message).payload
      #expect(payload.count <= 4096)
      let zero = try #require(payload.firstIndex(of: 0))
      numbers.insert(String(latin1: payload[..<zero]))
      list += payload[(zero + 1)...]
      parts += 1
    }
    #expect(list == names.joined(separator: "\0").utf8 + [0, 0])
    #expect(numbers.count == 1 && parts == 5)
    try store.write("/a/another", [], in: nil)
    let answer = try client.ask(.directoryPart, "/a\0" + "0\0")
    let other = try #require(answer).dropFirst("directoryPart ".count)
    #expect(!numbers.contains(String(other.prefix { $0 != "|" })))
    #expect(try client.ask(.directoryPart, "/a\0" + "999999\0")?.hasSuffix("||") == true)
    #expect(try client.ask(.directoryPart, "/none\0" + "0\0") == "error ENOENT|")
  }

  // MARK: Transactions

  @Test func transactionIsSeenWhenItIsCommitted() throws {
    let (client, other) = (try client(), try client())
    let transaction = try client.startTransaction()
    #expect(try client.ask(.write, "/a\0v", in: transaction) == "write OK|")
    #expect(try client.ask(.read, "/a\0", in: transaction) == "read v")
    #expect(try other.ask(.read, "/a\0") == "error ENOENT|")
    #expect(try client.ask(.endTransaction, "T\0", in: transaction) == "endTransaction OK|")
    #expect(try other.ask(.read, "/a\0") == "read v")
    #expect(try client.ask(.endTransaction, "T\0", in: transaction) == "error ENOENT|")
  }

  @Test func transactionInConflictIsRefusedAndOneGivenUpIsNot() throws {
    let (client, other) = (try client(), try client())
    for (end, answer) in [("T\0", "error EAGAIN|"), ("F\0", "endTransaction OK|")] {
      let transaction = try client.startTransaction()
      _ = try client.ask(.write, "/a\0mine", in: transaction)
      _ = try other.ask(.write, "/a\0other")
      #expect(try client.ask(.endTransaction, end, in: transaction) == answer)
      #expect(try client.ask(.read, "/a\0") == "read other")
    }
  }

  @Test func transactionThatIsNotOnesOwnDoesNotExist() throws {
    let (client, other) = (try client(), try client())
    let transaction = try other.startTransaction()
    for kind in [.read, .directory, .permissions, .remove, .makeDirectory] as [RawStoreClient.Kind] {
      #expect(try client.ask(kind, "/\0", in: transaction) == "error ENOENT|")
    }
    for kind in [.domainPath, .isDomainIntroduced] as [RawStoreClient.Kind] {
      #expect(try client.ask(kind, "0\0", in: transaction) == "error ENOENT|")
    }
    #expect(try client.ask(.resetWatches, "\0", in: transaction) == "error ENOENT|")
    #expect(try client.ask(.startTransaction, "\0", in: transaction) == "error ENOENT|")
    #expect(try client.ask(.endTransaction, "T\0", in: transaction) == "error ENOENT|")
    #expect(try client.ask(.endTransaction, "T\0") == "error ENOENT|")
    #expect(try other.ask(.startTransaction, "\0", in: transaction) == "error EBUSY|")
    #expect(try other.ask(.endTransaction, "X\0", in: transaction) == "error EINVAL|")
    #expect(try other.ask(.endTransaction, "T\0", in: transaction) == "endTransaction OK|")
  }

  // MARK: Watches

  @Test func watchReportsAtOnceAndThenEveryChange() throws {
    let client = try client()
    #expect(try client.ask(.watch, "/a\0t\0") == "watch OK|")
    #expect(try client.nextText() == "watchEvent /a|t|")
    try xen.control.openXenstore().write("/a/b", [], in: nil)
    #expect(try client.nextText() == "watchEvent /a/b|t|")
    #expect(try client.ask(.watch, "/a\0t\0") == "error EEXIST|")
    #expect(try client.ask(.unwatch, "/a\0t\0") == "unwatch OK|")
    #expect(try client.ask(.unwatch, "/a\0t\0") == "error ENOENT|")
    try xen.control.openXenstore().write("/a/c", [], in: nil)
    #expect(try client.ask(.read, "/a/c\0") == "read ")
  }

  @Test func ownChangesReportComesBeforeItsAnswer() throws {
    let client = try client()
    for path in ["/a", "a"] {
      #expect(try client.ask(.watch, "\(path)\0t\0") == "watch OK|")
      #expect(try client.nextText() == "watchEvent \(path)|t|")
      #expect(try client.ask(.write, "\(path)/b\0") == "watchEvent \(path)/b|t|")
      #expect(try client.nextText() == "write OK|")
    }
    let transaction = try client.startTransaction()
    #expect(try client.ask(.write, "/a/c\0", in: transaction) == "write OK|")
    #expect(try client.ask(.endTransaction, "T\0", in: transaction) == "watchEvent /a/c|t|")
    #expect(try client.nextText() == "endTransaction OK|")
  }

  @Test func reportsComeInOrder() throws {
    let (client, store) = (try client(), try xen.control.openXenstore())
    _ = try client.ask(.watch, "/a\0t\0")
    _ = try client.nextText()
    for number in 0..<200 { try store.write("/a/\(number)", [], in: nil) }
    for number in 0..<200 { #expect(try client.nextText() == "watchEvent /a/\(number)|t|") }
  }

  @Test func domainsComingAndGoingIsReported() throws {
    let client = try client()
    for path in ["@introduceDomain", "@releaseDomain"] {
      #expect(try client.ask(.watch, "\(path)\0t\0") == "watch OK|")
      #expect(try client.nextText() == "watchEvent \(path)|t|")
    }
    _ = xen.loopback.addDomain()
    #expect(try client.nextText() == "watchEvent @introduceDomain|t|")
    xen.loopback.destroy(xen.one.domain)
    #expect(try client.nextText() == "watchEvent @releaseDomain|t|")
  }

  /// A watch belongs to no transaction, whatever its message says, as in xenstored.
  @Test func tokenIsAnyBytesAndTheTransactionDoesNotMatter() throws {
    let client = try client()
    let payload = Array("/a\0".utf8) + [0xFF, 0x80, 0x2F, 0]
    client.write(XenstoreMessage(kind: 4, request: 1, transaction: 99, payload: payload).bytes)
    #expect(try client.next()?.transaction == 99)
    #expect(try client.next()?.payload == payload)
  }

  /// As in xenstored: that one is lost, and the connection goes on.
  @Test func reportThatFitsNoMessageIsLeftOut() throws {
    let (client, store) = (try client(), try xen.control.openXenstore())
    let token = String(repeating: "t", count: 4000)
    _ = try client.ask(.watch, "/a\0\(token)\0")
    #expect(try client.nextText() == "watchEvent /a|\(token)|")
    try store.write("/a/" + String(repeating: "b", count: 100), [], in: nil)
    try store.write("/a/c", [], in: nil)
    #expect(try client.nextText() == "watchEvent /a/c|\(token)|")
  }

  @Test func resetEndsWatchesAndTransactions() throws {
    let (client, store) = (try client(), try xen.control.openXenstore())
    _ = try client.ask(.watch, "/a\0t\0")
    _ = try client.nextText()
    let transaction = try client.startTransaction()
    #expect(try client.ask(.resetWatches, "\0") == "resetWatches OK|")
    #expect(xen.loopback.storeCounts == StoreCounts())
    try store.write("/a", [], in: nil)
    #expect(try client.ask(.read, "/a\0") == "read ")
    #expect(try client.ask(.read, "/a\0", in: transaction) == "error ENOENT|")
    #expect(try client.ask(.watch, "/a\0t\0") == "watch OK|")
  }
}
