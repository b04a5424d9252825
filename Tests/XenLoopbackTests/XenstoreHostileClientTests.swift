import Glibc
import SystemPackage
import Testing
import XenPlatform

@testable import XenLoopback

/// Clients that write what they should not, go when they should not, or do not read; beside them another one is served.
struct XenstoreHostileClientTests {
  private let xen = Domains()
  private let folder: SocketFolder
  private let socket: XenstoreSocket
  private let other: RawStoreClient

  init() throws {
    folder = try SocketFolder()
    socket = try XenstoreSocket(serving: xen.loopback, at: FilePath(folder.path))
    other = try RawStoreClient(folder.path)
  }

  private func client() throws -> RawStoreClient { try RawStoreClient(folder.path) }

  private func header(_ kind: UInt32, byteCount: UInt32) -> [UInt8] {
    [kind, 1, 0, byteCount].flatMap { field in (0..<4).map { UInt8(truncatingIfNeeded: field >> (8 * $0)) } }
  }

  @Test(arguments: [2, 0xFFFF] as [UInt32], [4097, 0x8000_0000, .max] as [UInt32])
  func messageOverTheMaximumEndsItsConnectionAlone(kind: UInt32, byteCount: UInt32) throws {
    let client = try client()
    #expect(try client.ask(.read, "/\0") == "read ")
    client.write(header(kind, byteCount: byteCount))
    #expect(try client.next() == nil)
    #expect(try other.ask(.read, "/\0") == "read ")
  }

  @Test func longestMessageIsNoFault() throws {
    let value = String(repeating: "v", count: 4093)
    #expect(try other.ask(.write, "/a\0\(value)") == "write OK|")
    #expect(try other.ask(.read, "/a\0") == "read \(value)")
  }

  @Test(arguments: [15, 16, 20, 23, .max] as [UInt32])
  func unknownKindIsAnsweredAndTheConnectionGoesOn(kind: UInt32) throws {
    other.write(XenstoreMessage(kind: kind, request: 3, transaction: 4, payload: [0, 1, 2]).bytes)
    #expect(
      try other.next()
        == XenstoreMessage(kind: 16, request: 3, transaction: 4, payload: Array("ENOSYS\0".utf8)))
    #expect(try other.ask(.read, "/\0") == "read ")
  }

  /// Whatever is refused leaves the bytes behind it where they belong.
  @Test(arguments: XenstoreMessageKinds.all) func malformedRequestIsAnsweredAndTheConnectionGoesOn(
    kind: RawStoreClient.Kind
  ) throws {
    for payload in ["", "\0\0\0\0\0", "/a", "\0", "\u{1}\u{2}", "/a\0b\0c\0d\0"] {
      let answer = try other.ask(kind, payload) ?? "nothing"
      let isKnown = answer.hasPrefix("error E") || answer.hasPrefix("\(kind) ")
      #expect(isKnown, "\(answer)")
    }
    #expect(try other.ask(.read, "/\0") == "read ")
  }

  @Test func messageInPiecesIsOneMessage() throws {
    for byte in XenstoreMessage(kind: 11, request: 1, transaction: 0, payload: Array("/a\0v".utf8)).bytes {
      #expect(try client().ask(.read, "/\0") == "read ")
      other.write([byte])
    }
    #expect(try other.nextText() == "write OK|")
  }

  @Test func manyRequestsAtOnceAreAllAnswered() throws {
    for number in 0..<500 { other.write(.read, "/\0", request: UInt32(number)) }
    for number in 0..<500 { #expect(try other.next()?.request == UInt32(number)) }
  }

  @Test func whoGoesInMidMessageHasAskedForNothing() throws {
    let message = XenstoreMessage(kind: 11, request: 1, transaction: 0, payload: Array("/a\0v".utf8)).bytes
    for count in [1, 15, 16, message.count - 1] {
      let client = try client()
      client.write(Array(message.prefix(count)))
      client.stopWriting()
      #expect(try client.next() == nil)
    }
    #expect(try other.ask(.read, "/a\0") == "error ENOENT|")
  }

  @Test func whoStopsWritingIsAnsweredStill() throws {
    let client = try client()
    client.write(.write, "/a\0v")
    client.write(.read, "/a\0")
    client.stopWriting()
    #expect(try client.nextText() == "write OK|")
    #expect(try client.nextText() == "read v")
    #expect(try client.next() == nil)
  }

  @Test func whoDoesNotReadGetsNoMoreAnswersAndLosesNone() throws {
    let client = try client()
    _ = try other.ask(.write, "/a\0" + String(repeating: "v", count: 4000))
    let sent = client.writeUntilItWaits(
      XenstoreMessage(kind: 2, request: 1, transaction: 0, payload: Array("/a\0".utf8)).bytes)
    // What the two sockets hold, and no more than the server's bounds.
    #expect(sent > 16 && sent < 50_000)
    #expect(try other.ask(.read, "/\0") == "read ")
    for _ in 0..<sent { #expect(try client.next()?.payload.count == 4000) }
  }

  /// Nor does the server use the processor until they read.
  @Test func whoStopsWritingAndReadsLateMissesNoAnswer() async {
    await #expect(processExitsWith: .success) {
      let tests = try XenstoreHostileClientTests()
      _ = try tests.other.ask(.write, "/a\0" + String(repeating: "v", count: 4000))
      // Some answers find room in the sockets, some wait in the server, some are not yet asked for.
      let clients = try stride(from: 20, to: 140, by: 8).map { count in
        let client = try tests.client()
        for _ in 0..<count { client.write(.read, "/a\0") }
        client.stopWriting()
        return (client, count)
      }
      for _ in 0..<10 { _ = try tests.other.ask(.read, "/\0") }
      let start = clock()
      usleep(500_000)
      #expect(clock() - start < 50_000, "microseconds of the processor's")
      for (client, count) in clients {
        for _ in 0..<count { #expect(try client.next()?.payload.count == 4000) }
        #expect(try client.next() == nil)
      }
    }
  }

  @Test func whoDoesNotReadWhatItsWatchesReportIsCutOff() throws {
    let client = try client()
    _ = try client.ask(.watch, "/a\0" + String(repeating: "t", count: 4000) + "\0")
    for number in 0..<1000 { #expect(try other.ask(.write, "/a/\(number)\0") == "write OK|") }
    var count = 0
    while try client.next() != nil { count += 1 }
    // At most what may wait for it, and what its socket held.
    #expect(count > 10 && count < 600)
  }

  /// How a client may go with answers and reports on their way to it.
  enum Going: CaseIterable { case silently, withRequestsUnderWay, inMidMessage, withMoreThanItsSocketHolds }

  @Test(arguments: Going.allCases) func whoVanishesLeavesNothingBehind(going: Going) throws {
    var client: RawStoreClient? = try client()
    let transaction = try #require(try client?.startTransaction())
    #expect(try client?.ask(.write, "/a/mine\0", in: transaction) == "write OK|")
    for number in 0..<1000 {
      #expect(try client?.ask(.watch, "/a\0\(number)\0") == "watch OK|")
      #expect(try client?.nextText() == "watchEvent /a|\(number)|")
    }
    #expect(xen.loopback.storeCounts == StoreCounts(watches: 1000, openTransactions: 1))
    switch going {
    case .silently: break
    case .withRequestsUnderWay: for _ in 0..<100 { client?.write(.startTransaction, "\0") }
    case .inMidMessage: client?.write(header(2, byteCount: 100))
    case .withMoreThanItsSocketHolds: for number in 0..<10 { _ = try other.ask(.write, "/a/\(number)\0") }
    }
    client = nil
    // A program that another test starts has the connection too until it is another program.
    for _ in 0..<10_000 where xen.loopback.storeCounts != StoreCounts() { usleep(1000) }
    #expect(xen.loopback.storeCounts == StoreCounts())
    #expect(try other.ask(.read, "/a/mine\0") == "error ENOENT|")
  }

  /// Nor does the server use the processor while it waits for what it has run out of.
  @Test(arguments: [0, 1]) func whoFindsNoDescriptorLeftIsServedWhenThereAreSomeAgain(spareCount: Int) async {
    await #expect(processExitsWith: .success) { [spareCount] in
      let tests = try XenstoreHostileClientTests()
      #expect(try tests.other.ask(.read, "/\0") == "read ")
      var limit = rlimit(rlim_cur: 100, rlim_max: 100)
      // Safe: the call reads a structure of ours.
      _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
      var taken: [CInt] = []
      while true {
        let descriptor = dup(STDERR_FILENO)
        guard descriptor >= 0 else { break }
        taken.append(descriptor)
      }
      // One for our end.
      for descriptor in taken.suffix(1 + spareCount) { close(descriptor) }
      let client = try tests.client()
      client.write(.read, "/\0")
      for _ in 0..<2 { #expect(try tests.other.ask(.read, "/\0") == "read ") }
      let start = clock()
      usleep(500_000)
      // A server that does not sleep would use what of this half a second other programs leave it.
      #expect(clock() - start < 50_000, "microseconds of the processor's")
      for descriptor in taken.dropLast(1 + spareCount) { close(descriptor) }
      #expect(try client.nextText() == "read ")
    }
  }

  @Test func clientBeyondTheLimitIsServedWhenAnotherGoes() throws {
    var clients = try (0..<120).map { _ in try client() }
    for client in clients.prefix(99) { #expect(try client.ask(.read, "/\0") == "read ") }
    for client in clients.dropFirst(99) { client.write(.watch, "/a\0t\0") }
    for _ in 0..<2 { #expect(try other.ask(.read, "/\0") == "read ") }
    #expect(xen.loopback.storeCounts.watches == 0)
    let last = clients.removeLast()
    clients = []
    #expect(try last.nextText() == "watch OK|")
    #expect(try other.ask(.read, "/\0") == "read ")
  }
}

enum XenstoreMessageKinds {
  static let all = (0...22 as ClosedRange<UInt32>).compactMap(RawStoreClient.Kind.init)
}
