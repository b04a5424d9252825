import TestSupport
import Testing
import XenPlatform

@testable import XenLoopback

/// Messages as bytes.
struct XenstoreMessageTests {
  /// As a little-endian machine's C compiler lays out `struct xsd_sockmsg`.
  private let bytes: [UInt8] = [2, 0, 0, 0, 4, 3, 2, 1, 0xFF, 0xFF, 0xFF, 0xFF, 3, 0, 0, 0, 0x2F, 0x61, 0]
  private let message = XenstoreMessage(
    kind: 2, request: 0x0102_0304, transaction: .max, payload: [0x2F, 0x61, 0])

  @Test func messageHasTheHeadersLayoutBothWays() throws {
    #expect(message.bytes == bytes)
    var incoming = bytes + [1]
    #expect(try XenstoreMessage.take(from: &incoming) == message)
    #expect(incoming == [1])
  }

  @Test func partOfAMessageIsNoneYet() throws {
    for count in bytes.indices {
      var incoming = Array(bytes.prefix(count))
      #expect(try XenstoreMessage.take(from: &incoming) == nil)
      #expect(incoming.count == count)
    }
  }

  @Test func longestPayloadPassesAndALongerOneIsRefusedByItsHeaderAlone() throws {
    var incoming = XenstoreMessage(kind: 2, request: 0, transaction: 0, payload: .init(repeating: 9, count: 4096)).bytes
    #expect(try XenstoreMessage.take(from: &incoming)?.payload.count == 4096)
    for length in [4097, 0x8000_0000, UInt32.max] as [UInt32] {
      var header = Array(bytes.prefix(12)) + (0..<4).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) }
      #expect(throws: XenstoreMessage.TooLong.self) { try XenstoreMessage.take(from: &header) }
    }
  }
}

/// Whatever a client may write: asked for, or refused.
struct XenstoreRequestTests {
  private func parse(_ kind: XenstoreMessage.Kind, _ payload: String) throws -> XenstoreRequest {
    try XenstoreRequest(
      XenstoreMessage(kind: kind.rawValue, request: 1, transaction: 0, payload: Array(payload.utf8)))
  }

  @Test func everyRequestPasses() throws {
    let (one, two) = (DomainID(rawValue: 1), DomainID(rawValue: 65535))
    let cases: [(XenstoreMessage.Kind, String, XenstoreRequest)] = [
      (.directory, "/a\0", .directory("/a")),
      (.directoryPart, "/a\012\0", .directoryPart("/a", offset: 12)),
      (.read, "\0", .read("")),
      (.write, "/a\0v\0w", .write("/a", Array("v\0w".utf8))),
      (.write, "/a\0", .write("/a", [])),
      (.makeDirectory, "a/b\0", .makeDirectory("a/b")),
      (.remove, "/a\0", .remove("/a")),
      (.permissions, "/a\0", .permissions("/a")),
      (
        .setPermissions, "/a\0n1\0r65535\0w1\0b1\0",
        .setPermissions("/a", [.init(one, .none), .init(two, .read), .init(one, .write), .init(one, .both)])
      ),
      (.watch, "@releaseDomain\0t\0", .watch("@releaseDomain", token: "t")),
      (.unwatch, "/a\0\0", .unwatch("/a", token: "")),
      (.resetWatches, "", .resetWatches),
      (.startTransaction, "\0", .startTransaction),
      (.endTransaction, "T\0", .endTransaction(commit: true)),
      (.endTransaction, "F\0", .endTransaction(commit: false)),
      (.domainPath, "1\0", .domainPath(one)),
      (.isDomainIntroduced, "65535\0", .isDomainIntroduced(two)),
      (.control, "help\0", .help),
    ]
    for (kind, payload, request) in cases { #expect(try parse(kind, payload) == request) }
    for kind in [.introduce, .release, .resume, .setTarget] as [XenstoreMessage.Kind] {
      for payload in ["", "1\0", "1\02\03\0"] { #expect(try parse(kind, payload) == .manageDomains) }
    }
  }

  @Test(
    arguments: [
      .directory, .read, .makeDirectory, .remove, .permissions, .domainPath, .isDomainIntroduced, .control,
      .endTransaction,
    ] as [XenstoreMessage.Kind])
  func oneStringIsOneStringWithItsZero(kind: XenstoreMessage.Kind) {
    for payload in ["", "1", "1\0\0", "1\02\0", "1\02", "\0\0"] {
      #expect(throws: XenstoreErrorName.invalid) { try parse(kind, payload) }
    }
  }

  @Test(arguments: [.watch, .unwatch, .directoryPart] as [XenstoreMessage.Kind])
  func twoStringsAreTwoStringsWithTheirZeros(kind: XenstoreMessage.Kind) {
    for payload in ["", "\0", "/a", "/a\0", "/a\01", "/a\01\0\0", "/a\01\02\0", "\0\0\0"] {
      #expect(throws: XenstoreErrorName.invalid) { try parse(kind, payload) }
    }
  }

  @Test func writeNeedsAPathWithItsZero() {
    for payload in ["", "/a"] { #expect(throws: XenstoreErrorName.invalid) { try parse(.write, payload) } }
  }

  @Test func permissionsAreALetterAndADomain() {
    for entry in ["", "n", "1", "x1", "N1", "nx", "n1x", "n 1", "n+1", "n-1", "n65536", "n4294967296", "n1\0", "é1"] {
      #expect(throws: XenstoreErrorName.invalid) { try parse(.setPermissions, "/a\0\(entry)\0") }
    }
    for payload in ["", "\0", "/a\0", "/a\0n1", "/a\0n1\0r2"] {
      #expect(throws: XenstoreErrorName.invalid) { try parse(.setPermissions, payload) }
    }
  }

  @Test func numbersAreDecimalAndInRange() {
    for number in ["", "x", "-1", "+1", " 1", "1 ", "0x1", "65536", "99999999999999999999", "١"] {
      for kind in [.domainPath, .isDomainIntroduced] as [XenstoreMessage.Kind] {
        #expect(throws: XenstoreErrorName.invalid) { try parse(kind, "\(number)\0") }
      }
    }
    for number in ["", "x", "-1", "+1", "99999999999999999999"] {
      #expect(throws: XenstoreErrorName.invalid) { try parse(.directoryPart, "/a\0\(number)\0") }
    }
  }

  @Test func transactionsEndInOneOfTwoWays() {
    for payload in ["X\0", "TT\0", "t\0", "TF\0", "\0"] {
      #expect(throws: XenstoreErrorName.invalid) { try parse(.endTransaction, payload) }
    }
  }

  @Test func onlyHelpIsControlled() {
    for payload in ["\0", "check\0", "live-update\0", "help\0x\0"] {
      #expect(throws: XenstoreErrorName.invalid) { try parse(.control, payload) }
    }
  }

  /// What only a server says, what was removed, and what never was.
  @Test(arguments: [15, 16, 20, 23, 24, 128, 0xFFFF, .max] as [UInt32])
  func unknownKindIsSaidToBe(kind: UInt32) {
    #expect(throws: XenstoreErrorName.unknownKind) {
      try XenstoreRequest(XenstoreMessage(kind: kind, request: 1, transaction: 0, payload: [0]))
    }
  }

  @Test func everyStringOfBytesHasItsOwnString() {
    let bytes = Array(UInt8.min...UInt8.max)
    #expect(String(latin1: bytes).wire == bytes + [0])
  }

  /// Any bytes at all are asked for or refused, and nothing traps.
  @Test(arguments: seeds(1...20, of: XenstoreRequestTests.self)) func anyPayloadIsAskedForOrRefused(seed: Seed) {
    var random = SeededGenerator(seed)
    let bytes: [UInt8] = [0, 0, 0] + Array("/@anrwb019T- xé".utf8) + [0xFF]
    for _ in 0..<2000 {
      let payload = (0..<Int.random(in: 0...12, using: &random)).map { _ in bytes.randomElement(using: &random)! }
      let kind = UInt32.random(in: 0...24, using: &random)
      _ = try? XenstoreRequest(XenstoreMessage(kind: kind, request: 0, transaction: 0, payload: payload))
    }
  }
}
