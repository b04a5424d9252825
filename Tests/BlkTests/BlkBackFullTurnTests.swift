import BlkBack
import Synchronization
import TestSupport
import Testing

/// What a turn does in which order.
struct BlkBackTurnOrderTests {
  /// Completes what it was given when it is next asked, and notes what the guest could see when it was given something.
  private final class NotingStore: BlockStore {
    let geometry = BlockGeometry(sectorCount: 64)
    private let given = Mutex<[StoreRequest]>([])
    private let seen = Mutex<[UInt32]>([])
    private let ring = Mutex<SharedBytes>(.none)

    /// Looks at this ring from now on.
    func look(at page: SharedBytes) { ring.withLock { $0 = page } }

    var shownAtEachSubmission: [UInt32] { seen.withLock { $0 } }

    func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
      seen.withLock { $0.append(ring.withLock { $0.word(at: 8) }) }
      given.withLock { given in for index in requests.indices { given.append(requests[index]) } }
    }

    func reap(into completions: inout StoreCompletions) {
      given.withLock { given in
        for request in given { completions.complete(request) }
        given = []
      }
    }
  }

  /// Else a guest waits for its answers as long as the store takes to begin the next requests.
  @Test func whatIsCompletedIsShownBeforeTheStoreIsGivenMore() throws {
    let frontend = RawBlkFrontend()
    let store = NotingStore()
    let disk = try HandPolledDisk(frontend, BlkBackOptions()) { _ in store }
    // Its response producer.
    store.look(at: frontend.rings[0].bytes)
    for id in 0..<3 as Range<UInt64> {
      frontend.put(frontend.direct(BlkIf.Operation.read, [(page: 0, first: 0, last: 7)], id: id))
      frontend.push()
      disk.poll(at: 0)
    }
    #expect(store.shownAtEachSubmission == [0, 1, 2])
  }
}

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
