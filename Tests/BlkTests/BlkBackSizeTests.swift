import BlkBack
import Glibc
import TestSupport
import Testing
import XenLoopback

/// B10, B16 and the backend's half of B18: what a disk's size, its units and its memory come to.
struct BlkBackSizeTests {
  /// A disk of 64 sectors that can have up to 128, and what calls for attention to it.
  private func pair(
    _ frontend: RawBlkFrontend, _ wrap: (ModelDisk) -> any BlockStore = { $0 }
  ) throws -> (pair: BlkPair, resize: (UInt64) -> Void) {
    let disk = ModelDisk(BlockGeometry(sectorCount: 64), capacity: 128)
    let store = wrap(disk)
    var attention: (@Sendable () -> Void)?
    let pair = try BlkPair(options: BlkBackOptions(), frontend: frontend) { device in
      attention = device.attention
      return store
    }
    try pair.connect()
    return (
      pair,
      { count in
        disk.resize(to: count)
        attention!()
      }
    )
  }

  private func sectors(_ pair: BlkPair) throws -> String {
    try pair.rig.directory(pair.device.backendPath).string("sectors")
  }

  @Test func diskThatGrowsIsToldAndServed() throws {
    let frontend = RawBlkFrontend()
    let (pair, resize) = try pair(frontend)
    frontend.put(frontend.direct(BlkIf.Operation.read, sector: 64, [(0, 0, 7)]))
    #expect(try pair.statuses(frontend, 1) == [1: BlkIf.Status.error])
    let before = frontend.changeCount
    resize(128)
    #expect(try pair.scheduler.run { try sectors(pair) == "128" && frontend.changeCount > before })
    frontend.put(frontend.direct(BlkIf.Operation.read, sector: 120, [(0, 0, 7)], id: 2))
    frontend.put(frontend.direct(BlkIf.Operation.read, sector: 121, [(0, 0, 7)], id: 3))
    #expect(try pair.statuses(frontend, 2) == [2: BlkIf.Status.okay, 3: BlkIf.Status.error])
    #expect(try pair.backendState == .connected && pair.backBus.isConnected)
  }

  @Test func diskThatShrinksUnderRequestsInFlightAnswersThem() throws {
    let frontend = RawBlkFrontend()
    var held: HoldingStore?
    let (pair, resize) = try pair(frontend) { disk in
      held = HoldingStore(disk)
      return held!
    }
    frontend.put(frontend.direct(BlkIf.Operation.write, sector: 56, [(0, 0, 7)], id: 1))
    frontend.put(frontend.direct(BlkIf.Operation.write, sector: 0, [(1, 0, 7)], id: 2))
    // It has not gone to the store yet.
    frontend.put(frontend.direct(BlkIf.Operation.writeBarrier, sector: 48, [(2, 0, 7)], id: 3))
    frontend.push()
    #expect(pair.scheduler.run { held!.heldCount == 2 })
    resize(32)
    #expect(try pair.scheduler.run { try sectors(pair) == "32" })
    held!.letGo()
    #expect(try pair.statuses(frontend, 3) == [1: BlkIf.Status.error, 2: 0, 3: BlkIf.Status.error])
    #expect(held!.submittedCount == 2, "what waited is not begun past the end")
    frontend.put(frontend.direct(BlkIf.Operation.read, sector: 25, [(0, 0, 7)], id: 4))
    frontend.put(frontend.direct(BlkIf.Operation.read, sector: 24, [(0, 0, 7)], id: 5))
    #expect(try pair.statuses(frontend, 2) == [4: BlkIf.Status.error, 5: BlkIf.Status.okay])
  }

  @Test func resizeDoesNotWriteOverAToolstackThatWithdrawsTheDisk() throws {
    let (pair, resize) = try pair(RawBlkFrontend())
    pair.scheduler.remove(pair.frontBus)
    try pair.rig.directory(pair.device.backendPath).write([StoreEntry("state", XenbusState.closing.rawValue)])
    resize(128)
    _ = pair.scheduler.run(turns: 20) { false }
    #expect(try pair.backendState != .connected)
  }

  /// One request of one sector of 4096 bytes, its numbers in the units that the frontend's driver takes.
  @Test(
    arguments: [
      (.standard, "512", 8, 7), (.freeBSD, "64", 1, 7), (.miniOS, "64", 8, 7), (.tapdisk, "512", 1, 7),
      (.sectorSize, "64", 1, 0),
    ] as [(SectorUnits, String, UInt64, UInt8)])
  func eachQuirkNamesTheSameSector(units: SectorUnits, size: String, number: UInt64, last: UInt8) throws {
    let frontend = RawBlkFrontend()
    let disk = ModelDisk(
      BlockGeometry(sectorCount: 512, sectorByteCount: 4096, discard: DiscardLimits(granularity: 4096)))
    var options = BlkBackOptions()
    options.sectorUnits = units
    let pair = try BlkPair(options: options, frontend: frontend) { _ in disk }
    try pair.connect()
    #expect(try sectors(pair) == size)
    let written = pattern(4096, seed: 6)
    frontend.bytes(page: 0, sector: 0, count: 4096).copy(from: written.span)
    frontend.put(frontend.direct(BlkIf.Operation.write, sector: number, [(0, 0, last)], id: 1))
    frontend.put(frontend.indirect(BlkIf.Operation.read, sector: number, [(1, 0, last)], in: 2, id: 2))
    frontend.put(frontend.direct(BlkIf.Operation.read, sector: number, [(0, 0, last + 1)], id: 3))
    // Its product leaves all numbers.
    frontend.put(frontend.direct(BlkIf.Operation.read, sector: .max / number, [(0, 0, last)], id: 4))
    #expect(try pair.statuses(frontend, 4).filter { $0.value == 0 }.keys.sorted() == [1, 2])
    #expect(disk.bytes(sector: 8, sectorCount: 8) == written)
    frontend.put(BlkIfRequest(BlkIfDiscardRequest(id: 5, sectorNumber: number, sectorCount: number)))
    #expect(try pair.statuses(frontend, 1) == [5: 0])
    #expect(disk.bytes(sector: 8, sectorCount: 8) == [UInt8](repeating: 0, count: 4096))
  }

  /// The pages of a queue's buffers that take memory, of those that a request was seen to use.
  @Test func buffersOfAnIdleQueueTakeNoMemory() throws {
    let store = AddressStore()
    let disk = try HandPolledDisk(RawBlkFrontend(), BlkBackOptions()) { _ in store }
    try disk.read(Array(0..<11), at: 1_000_000)
    #expect(store.residentPageCount == 11)
    guard case .idleUntil(let instant) = disk.poll(at: 2_000_000) else {
      Issue.record("it has memory to give back")
      return
    }
    #expect(instant.nanoseconds == 1_001_000_000)
    disk.poll(at: instant.nanoseconds)
    #expect(store.residentPageCount == 0)
    #expect(disk.poll(at: 5_000_000_000) == .idle)
    try disk.read(Array(0..<11), at: 6_000_000_000)
    #expect(store.residentPageCount == 11)
  }
}

/// Reads zeros, and knows where the last request's payload lay.
private final class AddressStore: BlockStore, @unchecked Sendable {
  // Sendable: the test has one thread.
  let geometry = BlockGeometry(sectorCount: 1024)
  private var last: [(address: UInt, byteCount: Int)] = []

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      let payload = requests[index].payload
      payload.zero()
      last = (0..<payload.count).map { unsafe (UInt(bitPattern: payload[$0].baseAddress), payload[$0].count) }
      completions.complete(requests[index])
    }
  }

  var residentPageCount: Int {
    var count = 0
    for (address, byteCount) in last {
      var pages = [UInt8](repeating: 0, count: (byteCount + xenPageSize - 1) / xenPageSize)
      // Safe: the queue keeps its buffers mapped, and each page has its byte.
      let isKnown = unsafe pages.withUnsafeMutableBufferPointer {
        unsafe mincore(UnsafeMutableRawPointer(bitPattern: address), byteCount, $0.baseAddress) == 0
      }
      precondition(isKnown, "the buffers stay mapped")
      count += pages.filter { $0 & 1 == 1 }.count
    }
    return count
  }
}
