import BlkBack
import BlkFront
import TestSupport
import Testing

/// A disk's ends that go on looking at their ring: they ask the other end for no event, and find what is there.
struct BlkLookTests {
  @Test func aBackendThatLooksIsNotNotified() throws {
    let frontend = RawBlkFrontend()
    let disk = try HandPolledDisk(frontend, BlkBackOptions()) { _ in
      MemoryStore(geometry: BlockGeometry(sectorCount: 64))
    }
    func put(_ id: UInt64) {
      frontend.put(frontend.direct(BlkIf.Operation.read, [(page: 0, first: 0, last: 7)], id: id))
    }
    disk.poll(at: 0)
    put(0)
    #expect(frontend.push())
    #expect(disk.hasWork)
    disk.poll(at: 0, looks: true)
    for id in 1...3 as ClosedRange<UInt64> {
      #expect(!disk.hasWork)
      put(id)
      #expect(!frontend.push())
      #expect(disk.hasWork)
      disk.poll(at: 0, looks: true)
    }
    #expect(try frontend.responses().map(\.id) == [0, 1, 2, 3])
    // Before it sleeps it asks.
    disk.poll(at: 0)
    put(4)
    #expect(frontend.push())
  }

  @Test func aFrontendThatLooksIsNotNotified() throws {
    let disk = BlkFrontDevice()
    let backend = RawBlkBackend()
    let pair = try BlkPair(frontend: disk, backend: backend)
    try pair.connect()
    func answer() throws -> Bool {
      let request = try #require(try backend.requests().first)
      return backend.answer(
        BlkIfResponse(id: request.id, operation: request.operation, status: BlkIf.Status.okay))
    }
    var completed: [UInt64] = []
    // A fresh ring asks for an event at the first response.
    for tag in 0..<4 as Range<UInt64> {
      try disk.read(sector: 0, byteCount: 512, tag: tag)
      disk.push()
      #expect(!disk.hasWork)
      #expect(try answer() == (tag == 0))
      #expect(disk.hasWork)
      disk.poll(looks: true) { completed.append($0.tag) }
    }
    #expect(completed == [0, 1, 2, 3] && !disk.hasWork)
    // Before it sleeps it asks.
    try disk.read(sector: 0, byteCount: 512, tag: 4)
    disk.push()
    disk.poll { _ in Issue.record("nothing has come") }
    #expect(try answer())
  }
}
