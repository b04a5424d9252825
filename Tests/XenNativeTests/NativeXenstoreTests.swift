import Foundation
import Synchronization
import Testing
import XenPlatform
import XenstoredSupport

/// The store's connection through libxenstore, on a real xenstored.
// For what hangs: many times what all tests together take, since a test waits for its turn among them.
@Suite(.needsXenstored, .timeLimit(.minutes(80))) struct NativeXenstoreTests {
  private let daemon: Xenstored
  private let store: any Xenstore

  init() throws {
    daemon = try Xenstored()
    store = try daemon.connect()
  }

  @Test func directoryLongerThanAMessageIsListedWhole() throws {
    let names = (0..<700).map { "a-name-of-some-length-\($0)" }
    for name in names { try store.makeDirectory("/long/\(name)", in: nil) }
    #expect(try store.directory("/long", in: nil) == names)
    let transaction = try store.startTransaction()
    #expect(try store.directory("/long", in: transaction) == names)
    try store.endTransaction(transaction, commit: true)
  }

  @Test func valueMayBeAnyBytes() throws {
    for value: [UInt8] in [[], [0], [0, 0, 1, 0], Array(repeating: 0xff, count: 4090)] {
      try store.write("/a", value, in: nil)
      #expect(try store.read("/a", in: nil) == value)
    }
  }

  @Test func zeroInAPathOrTokenIsRefusedAndNotCutOff() throws {
    try store.write("/a", [], in: nil)
    #expect(throws: XenstoreError(.invalid, "read", "/a\0b")) { _ = try store.read("/a\0b", in: nil) }
    #expect(throws: XenstoreError(.invalid, "watch with token", "t\0u")) { try store.watch("/a", token: "t\0u") }
  }

  @Test func manyTransactionsAreUnderWayAtOnceOnOneConnection() throws {
    let transactions = try (0..<100).map { number in
      let transaction = try store.startTransaction()
      try store.write("/t/\(number % 10)/\(number)", [UInt8(number)], in: transaction)
      return transaction
    }
    #expect(Set(transactions).count == 100)
    var committed = 0
    for transaction in transactions {
      do {
        try store.endTransaction(transaction, commit: true)
        committed += 1
      } catch { #expect(error.code == .conflict) }
    }
    #expect(committed == 1, "all of them made /t")
  }

  @Test func watchMayBeEndedAndSetAnew() throws {
    for _ in 0..<3 {
      try store.watch("/a", token: "t")
      #expect(nextEvent() == XenstoreWatchEvent(path: "/a", token: "t"))
      try store.write("/a/b", [], in: nil)
      #expect(nextEvent() == XenstoreWatchEvent(path: "/a/b", token: "t"))
      try store.unwatch("/a", token: "t")
      try store.write("/a/b", [], in: nil)
      // Events come before the answer to a later request.
      _ = try store.read("/a/b", in: nil)
      #expect(store.nextWatchEvent() == nil)
    }
  }

  private func nextEvent() -> XenstoreWatchEvent? {
    var waits = [pollfd(fd: store.descriptor, events: Int16(POLLIN), revents: 0)]
    return Wakeup.wait(for: &waits, timeout: 10_000) ? store.nextWatchEvent() : nil
  }

  // MARK: A xenstored that has ended

  private static let ended = XenstoreError.Code.system(
    "xenstored has ended the connection; when it runs, start this program again")

  /// With a watch libxenstore reads on a thread of its own, without one it does not.
  @Test(arguments: [false, true]) func endOfXenstoredIsSaidByEveryCall(hasWatch: Bool) throws {
    if hasWatch {
      try store.watch("/a", token: "t")
      #expect(nextEvent() != nil)
    }
    daemon.end()
    for _ in 0..<3 {
      #expect(throws: XenstoreError(Self.ended, "read", "/a")) { _ = try store.read("/a", in: nil) }
      #expect(throws: XenstoreError(Self.ended, "write", "/a")) { try store.write("/a", [], in: nil) }
      #expect(throws: XenstoreError(Self.ended, "start transaction", "")) { _ = try store.startTransaction() }
      #expect(throws: XenstoreError(Self.ended, "watch", "/b")) { try store.watch("/b", token: "t") }
      #expect(store.nextWatchEvent() == nil)
    }
    #expect(throws: XenstoreError.self) { _ = try daemon.connect() }
  }

  @Test(arguments: [false, true]) func callUnderWayWhenXenstoredEndsFails(hasWatch: Bool) throws {
    if hasWatch { try store.watch("/a", token: "t") }
    let answer = Mutex<XenstoreError?>(nil)
    let done = try Wakeup()
    let asked = try Wakeup()
    // A thread of its own: the calls block, and the tests' threads are few.
    Thread.detachNewThread { [store] in
      do throws(XenstoreError) {
        while true {
          _ = try store.read("/", in: nil)
          asked.signal()
        }
      } catch { answer.withLock { $0 = error } }
      done.signal()
    }
    // It is nearly always waiting for an answer when xenstored ends; where it is not, it fails in the same words.
    Wakeup.wait(for: asked.descriptor, timeout: 10_000)
    daemon.end()
    Wakeup.wait(for: done.descriptor, timeout: 10_000)
    #expect(answer.withLock { $0 } == XenstoreError(Self.ended, "read", "/"))
  }
}
