import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// B14: what a disk counts.
struct BlkStatisticsTests {
  /// What the backend says of a disk that it lets go of.
  private func counts(_ pair: BlkPair) throws -> BlkBackStatistics {
    try pair.toolstack.unplug(pair.device)
    _ = pair.scheduler.run { pair.backBus.isEmpty }
    return try #require(pair.closed.list.first)
  }

  @Test func statisticsCountWhatWasDone() throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    try disk.write(sector: 0, pattern(1024, seed: 1).span, tag: 1)
    try disk.read(sector: 0, byteCount: 512, tag: 2)
    try disk.flush(tag: 3)
    try disk.writeBarrier(sector: 0, pattern(512, seed: 1).span, tag: 4)
    _ = pair.complete(disk)
    let counts = try counts(pair)
    #expect(counts.writeRequests == 2 && counts.barrierRequests == 1 && counts.sectorsWritten == 3)
    #expect(counts.readRequests == 1 && counts.sectorsRead == 1)
    #expect(counts.flushRequests == 1 && counts.failedRequests == 0 && counts.discardRequests == 0)
    #expect(counts.latency.total == 4)
    #expect(
      counts.description.split(separator: "\n").prefix(7) == [
        "oo_req   0", "rd_req   1", "wr_req   1", "f_req    2", "ds_req   0", "rd_sect  1", "wr_sect  3",
      ])
  }

  @Test func discardThatIsNotOfferedIsAFailure() throws {
    let frontend = RawBlkFrontend()
    let pair = try BlkPair(frontend: frontend, store: ZeroStore())
    try pair.connect()
    frontend.put(BlkIfRequest(operation: BlkIf.Operation.discard, id: 1))
    frontend.put(BlkIfRequest(operation: 77, id: 2))
    #expect(try pair.statuses(frontend, 2) == [1: BlkIf.Status.notSupported, 2: BlkIf.Status.notSupported])
    let counts = try counts(pair)
    #expect(counts.discardRequests == 0 && counts.failedRequests == 2)
  }

  @Test func requestsBehindABarrierAreCountedAsWaiting() throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: ReorderingStore(MemoryStore(sectorCount: 64)))
    try pair.connect()
    let sector = pattern(512, seed: 1)
    try disk.write(sector: 0, sector.span, tag: 1)
    try disk.writeBarrier(sector: 0, sector.span, tag: 2)
    for tag in 3...5 { try disk.read(sector: 0, byteCount: 512, tag: UInt64(tag)) }
    _ = pair.complete(disk)
    // The barrier is over: this one waits for nothing.
    try disk.read(sector: 0, byteCount: 512, tag: 6)
    _ = pair.complete(disk)
    #expect(try counts(pair).waitedRequests == 3)
  }

  /// What the backend has counted after `use` has polled its only queue.
  private func latency(
    of store: any BlockStore, on host: OneQueue, _ use: (_ disk: BlkFrontDevice) throws -> Void
  ) throws -> LatencyHistogram {
    let disk = BlkFrontDevice()
    let rig = try Rig()
    let back = try Bus(on: rig.driverDomain, queueHost: host, log: .silent)
    let front = try Bus(on: rig.guest, log: .silent)
    var counts: BlkBackStatistics?
    let device = try rig.toolstack.addVbd(to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: "test")
    try back.register(BlkBackDriver(whenClosed: { counts = $1 }) { _ in store })
    try front.register(disk, at: device.frontendPath)
    try #require(
      front.run(seconds: 300) {
        back.poll()
        return disk.isConnected
      })
    try use(disk)
    back.close()
    front.run(seconds: 300) { back.poll() == .idle && back.isEmpty }
    return try #require(counts?.latency)
  }

  @Test func latencyGoesOnFromPollToPollOfOneTurnInEight() throws {
    let host = OneQueue()
    let store = HoldingStore(MemoryStore(sectorCount: 64))
    let latency = try latency(of: store, on: host) { disk in
      #expect(host.goesByTicks, "or each poll asks for the time as well")
      for tag in 0..<UInt64(20) { try disk.read(sector: 0, byteCount: 512, tag: tag) }
      disk.push()
      // Two of each turn: the first turn's and the ninth's are timed.
      for turn in 0..<10 as Range<UInt64> {
        host.poll(at: Uptime(nanoseconds: 5_000_000 + turn * 100_000), budget: 2)
      }
      store.letGo()
      host.poll(at: Uptime(nanoseconds: 6_000_000), budget: 2)
    }
    #expect(latency.total == 4)
    #expect(latency.count(in: 10) == 2, "1000 microseconds are from 512 to 1023")
    #expect(latency.count(in: 8) == 2, "200 microseconds are from 128 to 255")
  }

  @Test func latencyHasTheTimeThatTheStoreTakesWithinAPoll() throws {
    let host = OneQueue()
    let latency = try latency(of: SlowStore { host.now = Uptime(nanoseconds: 5_000_000 + 300_000) }, on: host) { disk in
      try disk.read(sector: 0, byteCount: 512, tag: 1)
      disk.push()
      host.poll(at: Uptime(nanoseconds: 5_000_000), budget: 2)
    }
    #expect(latency.total == 1)
    #expect(latency.count(in: 9) == 1, "300 microseconds are from 256 to 511")
  }

  @Test(arguments: [(0, 0), (999, 0), (1000, 1), (1999, 1), (2000, 2), (1_000_000, 10), (.max, 31)] as [(UInt64, Int)])
  func bucketsArePowersOfTwoOfAMicrosecond(nanoseconds: UInt64, bucket: Int) {
    var histogram = LatencyHistogram()
    histogram.add(nanoseconds: nanoseconds)
    #expect((0..<LatencyHistogram.bucketCount).filter { histogram.count(in: $0) == 1 } == [bucket])
  }

  @Test func histogramPrintsTheBucketsInUse() {
    var histogram = LatencyHistogram()
    #expect(histogram.description == "nothing")
    for _ in 0..<3 { histogram.add(nanoseconds: 600_000) }
    histogram.add(nanoseconds: 3_000_000)
    #expect(histogram.description == "<    1.0 ms  3\n<    2.0 ms  0\n<    4.0 ms  1")
  }
}

/// A store whose every submission takes time.
private final class SlowStore: BlockStore {
  let geometry = BlockGeometry(sectorCount: 64)
  private let work: @Sendable () -> Void

  init(work: @escaping @Sendable () -> Void) { self.work = work }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    work()
    for index in requests.indices { completions.complete(requests[index]) }
  }
}
