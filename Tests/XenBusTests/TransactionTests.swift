import TestSupport
import Testing
import XenBus
import XenPlatform

/// X2: what a transaction sees belongs together, and what it writes appears at once or not at all.
@Suite(.onEachStore) struct TransactionTests {
  let rig: BusRig
  let directory: StoreDirectory
  /// The same directory through a connection of somebody else's.
  let theirs: StoreDirectory

  init() throws {
    rig = try BusRig()
    directory = StoreDirectory("/local/domain/1/data", in: try rig.guest.openXenstore())
    theirs = rig.directory("/local/domain/1/data")
    try directory.write([StoreEntry("a", 1), StoreEntry("b", 1)])
  }

  @Test func conflictIsTriedAgainOnWhatIsThereNow() throws {
    var attempts = 0
    try directory.transaction { (directory) throws(DeviceError) in
      attempts += 1
      let seen = try directory.number("a", as: Int.self)
      if attempts == 1 { try theirs.write([StoreEntry("a", 5)]) }
      try directory.write([StoreEntry("b", seen + 1)])
    }
    #expect(attempts == 2)
    #expect(try theirs.number("b", as: Int.self) == 6)
  }

  @Test func transactionThatAlwaysConflictsGivesUpAfterSixteenAttempts() throws {
    var attempts = 0
    #expect {
      try directory.transaction { (directory) throws(DeviceError) in
        attempts += 1
        _ = try directory.number("a", as: Int.self)
        try theirs.write([StoreEntry("a", attempts)])
        try directory.write([StoreEntry("b", 99)])
      }
    } throws: { error in
      if case DeviceError.store(let error) = error { error.code == .conflict } else { false }
    }
    #expect(attempts == 16)
    #expect(try theirs.number("b", as: Int.self) == 1)
  }

  @Test func throwingBodyWritesNothingAndIsNotRepeated() throws {
    var attempts = 0
    #expect(throws: DeviceError.resource("enough")) {
      try directory.transaction { (directory) throws(DeviceError) in
        attempts += 1
        try directory.write([StoreEntry("a", 2)])
        throw .resource("enough")
      }
    }
    #expect(attempts == 1)
    #expect(try theirs.number("a", as: Int.self) == 1)
  }

  @Test func keysReadInOneTransactionBelongTogether() throws {
    var attempts = 0
    let pair = try directory.transaction { (directory) throws(DeviceError) in
      attempts += 1
      let a = try directory.number("a", as: Int.self)
      if attempts == 1 {
        try theirs.transaction { (theirs) throws(DeviceError) in
          try theirs.write([StoreEntry("a", 2), StoreEntry("b", 2)])
        }
      }
      return [a, try directory.number("b", as: Int.self)]
    }
    #expect(pair == [2, 2])
  }

  @Test func writesAppearOnlyWhenTheTransactionEnds() throws {
    try directory.transaction { (directory) throws(DeviceError) in
      try directory.write([StoreEntry("a", 2), StoreEntry("b", 2)])
      #expect(try directory.number("a", as: Int.self) == 2)
      #expect(try theirs.optionalNumber("a", as: Int.self) == 1)
    }
    #expect(try theirs.number("a", as: Int.self) == 2)
    #expect(try theirs.number("b", as: Int.self) == 2)
  }
}
