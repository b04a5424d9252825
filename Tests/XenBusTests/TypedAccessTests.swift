import TestSupport
import Testing
import XenBus
import XenPlatform

/// X2: numbers and flags as other people write them.
@Suite(.onEachStore) struct TypedAccessTests {
  let rig: BusRig
  let directory: StoreDirectory

  init() throws {
    rig = try BusRig()
    directory = rig.directory("/local/domain/1/data")
  }

  @Test func numberReadsBack() throws {
    try directory.write([StoreEntry("n", 65535)])
    #expect(try directory.number("n", as: UInt16.self) == 65535)
  }

  @Test func absentNumberIsNilOrMissing() throws {
    #expect(try directory.optionalNumber("n", as: Int.self) == nil)
    #expect(throws: DeviceError.missingKey(path: "/local/domain/1/data/n")) {
      try directory.number("n", as: Int.self)
    }
  }

  @Test(arguments: ["", "-1", "+4", "65536", "99999999999999999999", "4 ", "0x4", "four", "\u{664}"])
  func malformedNumberIsRefusedWithItsText(text: String) throws {
    try directory.write([StoreEntry("n", text)])
    #expect(
      throws: DeviceError.malformedKey(
        path: "/local/domain/1/data/n", value: text, expected: "a number from 0 to 65535")
    ) { try directory.number("n", as: UInt16.self) }
  }

  @Test func signedNumberMayBeNegative() throws {
    try directory.write([StoreEntry("n", -128)])
    #expect(try directory.number("n", as: Int8.self) == -128)
  }

  @Test(arguments: [(nil, false), ("0", false), ("1", true), ("2", true)] as [(String?, Bool)])
  func flagIsAnyNumberButZero(text: String?, expected: Bool) throws {
    if let text { try directory.write([StoreEntry("flag", text)]) }
    #expect(try directory.flag("flag") == expected)
  }

  @Test func malformedFlagIsAnError() throws {
    try directory.write([StoreEntry("flag", "yes")])
    #expect(throws: DeviceError.self) { try directory.flag("flag") }
  }

  @Test func bytesThatAreNoTextReadAsReplacementCharacters() throws {
    try rig.store.write("/local/domain/1/data/s", [0x61, 0xFF], in: nil)
    #expect(try directory.string("s") == "a\u{FFFD}")
  }

  @Test func removingAnAbsentKeySucceeds() throws {
    try directory.write([StoreEntry("a", 1)])
    try directory.remove("b")
    try directory.remove("a")
    #expect(try directory.optionalString("a") == nil)
  }

  @Test func childrenAreTheNamesBelow() throws {
    #expect(try directory.children() == [])
    try directory.write([StoreEntry("queue-1", 1), StoreEntry("queue-0", 1)])
    #expect(try directory.children().sorted() == ["queue-0", "queue-1"])
  }

  @Test func directoryExistsOnceSomethingIsInIt() throws {
    #expect(try !directory.exists())
    try directory.write([StoreEntry("a", 1)])
    #expect(try directory.exists())
  }
}
