import TestSupport
import Testing
import XenBus
import XenPlatform

/// X2: watches of the store, as a bus relies on them.
@Suite(.onEachStore) struct WatchTests {
  let rig: BusRig
  let connection: any Xenstore

  init() throws {
    rig = try BusRig()
    connection = try rig.guest.openXenstore()
  }

  private func events() -> [XenstoreWatchEvent] {
    var events: [XenstoreWatchEvent] = []
    while let event = connection.nextWatchEvent() { events.append(event) }
    return events
  }

  @Test func watchReportsOnceAtOnce() throws {
    try connection.watch("/local/domain/1/data", token: "t")
    #expect(events() == [XenstoreWatchEvent(path: "/local/domain/1/data", token: "t")])
  }

  @Test func changeBelowIsReportedByItsPath() throws {
    try connection.watch("/local/domain/1/data", token: "t")
    _ = events()
    try rig.write("/local/domain/1/data/sub", "key", "1")
    #expect(events().contains(XenstoreWatchEvent(path: "/local/domain/1/data/sub/key", token: "t")))
  }

  @Test(.needsGuestsRights) func relativeWatchReportsRelativePaths() throws {
    try connection.watch("data", token: "t")
    _ = events()
    try rig.write("/local/domain/1/data", "key", "1")
    #expect(events().contains(XenstoreWatchEvent(path: "data/key", token: "t")))
  }

  @Test func endedWatchReportsNothing() throws {
    try connection.watch("/local/domain/1/data", token: "t")
    _ = events()
    try connection.unwatch("/local/domain/1/data", token: "t")
    try rig.write("/local/domain/1/data", "key", "1")
    #expect(events() == [])
  }

  @Test func sameWatchTwiceIsRefused() throws {
    try connection.watch("data", token: "t")
    #expect { try connection.watch("data", token: "t") } throws: { ($0 as? XenstoreError)?.code == .exists }
  }

  @Test func removalOfADirectoryAboveIsReportedOnTheWatchedPath() throws {
    try rig.write("/local/domain/1/data/sub", "state", "1")
    try connection.watch("/local/domain/1/data/sub/state", token: "t")
    _ = events()
    try rig.store.remove("/local/domain/1/data", in: nil)
    #expect(events() == [XenstoreWatchEvent(path: "/local/domain/1/data/sub/state", token: "t")])
  }

  @Test func changesInATransactionAreReportedWhenItEnds() throws {
    try connection.watch("/local/domain/1/data", token: "t")
    _ = events()
    try rig.directory("/local/domain/1/data").transaction { (data) throws(DeviceError) in
      try data.write([StoreEntry("key", 1)])
      #expect(events() == [])
    }
    #expect(events() != [])
  }
}
