import BlkBack
import TestSupport
import Testing

/// A guest that always puts as much as a turn takes of a store that answers at once: the last turn before each sleep finds nothing.
struct BlkBackFullTurnTests {
  /// Its events ask for something, and none of them is held back.
  @Test func fullTurnsAreNoEventsForNothing() throws {
    let frontend = RawBlkFrontend()
    let disk = try HandPolledDisk(frontend, BlkBackOptions()) { _ in
      MemoryStore(geometry: BlockGeometry(sectorCount: 64))
    }
    for round in 1...100 {
      for id in 0..<16 {
        frontend.put(frontend.direct(BlkIf.Operation.read, [(page: id % 4, first: 0, last: 7)], id: UInt64(id)))
      }
      frontend.push()
      // Memory is given back a second after the last request; an event is held back for less.
      if case .idleUntil(let instant) = disk.poll(at: 0) {
        #expect(instant.nanoseconds >= 1_000_000_000, "round \(round)")
      }
      #expect(try frontend.responses().count == 16, "round \(round)")
    }
  }
}
