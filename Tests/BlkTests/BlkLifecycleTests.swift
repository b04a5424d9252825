import BlkBack
import BlkFront
import BlockStores
import Glibc
import Synchronization
import TestSupport
import Testing
import XenLoopback

/// The way in and out of Connected, with the disk's pages and ports counted.
struct BlkLifecycleTests {
  @Test(arguments: seeds(1...50, of: BlkLifecycleTests.self))
  func unpluggedDiskLeavesNothingBehind(seed: Seed) throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(seed: seed, frontend: disk, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    #expect(pair.loopback.grantCounts.sharedPages == 353 && pair.loopback.grantCounts.mappedPages == 1)
    try disk.read(sector: 0, byteCount: 512, tag: 1)
    disk.push()
    try pair.toolstack.unplug(pair.device)
    #expect(try pair.scheduler.run { try pair.toolstack.isClosed(pair.device) && pair.backBus.isEmpty })
    // The frontend gives its pages back once it has seen that.
    #expect(pair.scheduler.run { pair.holdsNothing })
    var results: [BlkFrontCompletion.Result] = []
    disk.poll { results.append($0.result) }
    try pair.toolstack.remove(pair.device)
    _ = pair.scheduler.run(turns: 50) { false }
    disk.poll { results.append($0.result) }
    #expect(results.count == 1, "a request in flight ends, one way or the other")
    #expect(pair.frontBus.report.isEmpty)
  }

  @Test func bothEndsReportEachFeature() throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(
      frontend: disk, backend: BlkBackDriver(options: BlkBackOptions(offersFlush: false)) { _ in ZeroStore() })
    try pair.connect()
    func lines(_ negotiation: Negotiation) -> [[String]] {
      negotiation.lines.map { [$0.feature, $0.frontend, $0.backend, $0.agreed, $0.reason] }
    }
    #expect(
      lines(pair.backNegotiation) == [
        ["protocol", "x86_64-abi", "x86_32-abi, x86_64-abi", "x86_64-abi", ""],
        ["ring pages", "1", "16", "1", "the frontend asks for no more"],
        ["queues", "1", "4", "1", "the frontend asks for no more"],
        ["feature-persistent", "yes", "yes", "on", ""],
        ["feature-flush-cache", "not said", "no", "off", "the backend does not offer it"],
        ["feature-barrier", "not said", "yes", "on", ""],
        ["feature-discard", "not said", "no", "off", "the store cannot discard"],
        ["discard-secure", "not said", "no", "off", "the store cannot discard"],
        ["feature-max-indirect-segments", "not said", "256", "256", ""],
      ])
    #expect(
      lines(disk.negotiation) == [
        ["protocol", "x86_64-abi", "any", "x86_64-abi", ""],
        ["queues", "1", "4", "1", "the frontend asks for no more"],
        ["ring pages", "1", "16", "1", "the frontend asks for no more"], ["pool pages", "352", "any", "352", ""],
        ["feature-persistent", "yes", "yes", "on", ""],
        ["feature-max-indirect-segments", "32", "256", "32", "the frontend asks for no more"],
        ["feature-flush-cache", "yes", "no", "off", "the backend does not offer it"],
        ["feature-barrier", "yes", "yes", "on", ""],
        ["feature-discard", "yes", "no", "off", "the backend does not offer it"],
        ["discard-secure", "yes", "no", "off", "the backend does not offer it"],
        ["trusted", "1", "not asked", "1", ""],
      ])
  }

  /// As Linux's backend does, which opens its device only when the rings are there.
  @Test func featuresOfferedWithConnectedAreUsed() throws {
    let disk = BlkFrontDevice()
    let backend = RawBlkBackend()
    backend.keys = [StoreEntry("feature-flush-cache", true), StoreEntry("feature-barrier", true)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    try pair.connect()
    #expect(disk.negotiation.lines.filter { $0.agreed == "on" }.map(\.feature) == backend.keys.map(\.key))
    try disk.flush(tag: 1)
    try disk.writeBarrier(sector: 0, pattern(512, seed: 1).span, tag: 2)
    disk.push()
    #expect(try backend.requests().map(\.operation) == [BlkIf.Operation.flushDiskCache, BlkIf.Operation.writeBarrier])
  }

  @Test(arguments: seeds(1...50, of: BlkLifecycleTests.self))
  func restartedBackendIsFollowed(seed: Seed) throws {
    let disk = BlkFrontDevice()
    let store = MemoryStore(sectorCount: 64)
    let pair = try BlkPair(seed: seed, frontend: disk, store: store)
    try pair.connect()
    try disk.write(sector: 3, pattern(512, seed: 3).span, tag: 1)
    _ = pair.complete(disk)
    pair.scheduler.remove(pair.backBus)
    // Another process takes over: it finds Connected in the keys and must not believe it.
    let bus = try pair.addBackBus(BlkBackDriver { _ in store })
    #expect(pair.scheduler.run { bus.isConnected && pair.frontBus.isConnected }, "\(bus.report)")
    try disk.read(sector: 3, byteCount: 512, tag: 2)
    #expect(pair.complete(disk)[2]?.bytes == pattern(512, seed: 3))
  }

  /// As when an image's server hangs for longer than a disconnected backend waits for it: the guest's next lives do not get more and
  /// more memory of the same store's, and none gets what another one has asked for.
  @Test(arguments: [false, true]) func diskIsServedAgainWhenItsStoreHasLetGoOfTheLastLife(isPersistent: Bool) throws {
    let store = HoldingStore(MemoryStore(sectorCount: 64))
    let frontend = RawBlkFrontend(isPersistent: isPersistent)
    let pair = try BlkPair(frontend: frontend, store: store)
    try pair.connect()
    frontend.put(frontend.direct(BlkIf.Operation.read, [(0, 0, 0)], id: 1))
    frontend.push()
    #expect(pair.scheduler.run { store.heldCount == 1 })
    pair.scheduler.remove(pair.frontBus)
    let mapped = isPersistent ? 1 : 0
    for life in 0..<3 {
      let successor = BlkFrontDevice()
      let bus = try pair.addFrontBus(successor, at: pair.device.frontendPath)
      #expect(
        try pair.scheduler.run { try pair.backendError?.contains("not completed 1 requests") == true }, "life \(life)")
      _ = pair.scheduler.run(turns: 200) { false }
      #expect(!successor.isConnected && pair.loopback.grantCounts.mappedPages == mapped && store.submittedCount == 1)
      pair.scheduler.remove(bus)
    }
    store.letGo()
    let successor = BlkFrontDevice()
    let bus = try pair.addFrontBus(successor, at: pair.device.frontendPath)
    #expect(pair.scheduler.run { successor.isConnected && pair.backBus.isConnected }, "\(bus.report)")
    #expect(try pair.backendError == nil)
    try successor.write(sector: 1, pattern(512, seed: 1).span, tag: 2)
    #expect(pair.complete(successor)[2]?.result == .succeeded)
    try successor.read(sector: 1, byteCount: 512, tag: 3)
    #expect(pair.complete(successor)[3]?.bytes == pattern(512, seed: 1))
    #expect(pair.closed.list.map(\.readRequests) == [0])
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.loopback.grantCounts.mappedPages == 0 })
  }

  /// Of a queue's own, as one that encrypts: it has memory that the store beneath it still uses.
  private final class QueueStore: BlockStore {
    let inner: any BlockStore
    let whenMade: @Sendable (QueueStore) -> Void

    init(_ inner: any BlockStore, whenMade: @escaping @Sendable (QueueStore) -> Void) {
      (self.inner, self.whenMade) = (inner, whenMade)
    }

    var geometry: BlockGeometry { inner.geometry }
    var completionDescriptor: CInt? { inner.completionDescriptor }
    func makeQueue() throws(ResourceError) -> any BlockStore {
      let queue = QueueStore(inner, whenMade: whenMade)
      whenMade(queue)
      return queue
    }
    func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
      inner.submit(requests, to: &completions)
    }
    func reap(into completions: inout StoreCompletions) { inner.reap(into: &completions) }
    func abandon() { inner.abandon() }
  }

  /// Also where nobody asks for the disk again.
  @Test(arguments: [true, false]) func queuesStoreLivesUntilWhatItHadIsCompleted(isServedAgain: Bool) throws {
    struct Made { weak var queue: QueueStore? }
    let made = Mutex(Made())
    let store = HoldingStore(MemoryStore(sectorCount: 64))
    let disk = RawBlkFrontend(isPersistent: true)
    let pair = try BlkPair(
      frontend: disk,
      backend: BlkBackDriver { _ in QueueStore(store) { queue in made.withLock { $0.queue = queue } } })
    try pair.connect()
    disk.put(disk.direct(BlkIf.Operation.write, [(0, 0, 0)], id: 1))
    disk.push()
    #expect(pair.scheduler.run { store.heldCount == 1 })
    guard isServedAgain else {
      try pair.toolstack.unplug(pair.device)
      #expect(pair.scheduler.run { pair.backBus.isEmpty })
      #expect(made.withLock { $0.queue != nil } && pair.loopback.grantCounts.mappedPages == 1)
      store.letGo()
      // A thread waits for it, and gives up one after the other.
      func holdsNothing() -> Bool { made.withLock { $0.queue == nil } && pair.loopback.grantCounts.mappedPages == 0 }
      for _ in 0..<60_000 where !holdsNothing() { usleep(1000) }
      #expect(holdsNothing())
      return
    }
    pair.scheduler.remove(pair.frontBus)
    let bus = try pair.addFrontBus(BlkFrontDevice(), at: pair.device.frontendPath)
    #expect(try pair.scheduler.run { try pair.backendError?.contains("not completed") == true })
    let former = made.withLock { Made(queue: $0.queue) }
    #expect(former.queue != nil)
    store.letGo()
    #expect(pair.scheduler.run { bus.isConnected && pair.backBus.isConnected })
    // The thread may still sleep, and has nothing any more.
    #expect(former.queue == nil)
  }

  /// The store has an exclusive lock on its image, so the former one is let go of before the next is opened.
  @Test(arguments: [false, true]) func nextLifeOfAGuestIsServedFromTheSameImage(violating: Bool) throws {
    let image = try TemporaryFile(byteCount: 1 << 20)
    let first = RawBlkFrontend()
    let pair = try BlkPair(
      frontend: first,
      backend: BlkBackDriver { (_) throws(DeviceError) in
        do throws(FileStoreError) { return try FileStore(path: image.path, options: .atOnce) } catch {
          throw .resource("\(error)")
        }
      })
    try pair.connect()
    if violating {
      first.scribble(1000, at: 0)
      #expect(pair.scheduler.run { !pair.backBus.isConnected })
    }
    pair.scheduler.remove(pair.frontBus)
    let second = BlkFrontDevice()
    let bus = try pair.addFrontBus(second, at: pair.device.frontendPath)
    #expect(
      pair.scheduler.run { second.isConnected && pair.backBus.isConnected }, "\(pair.backBus.report) \(bus.report)")
    try second.write(sector: 0, pattern(512, seed: 1).span, tag: 1)
    #expect(pair.complete(second)[1]?.result == .succeeded)
    #expect(try image.bytes(0..<512) == pattern(512, seed: 1))
  }

  @Test func backendOnAThreadServesARealFile() throws {
    let image = try TemporaryFile(byteCount: 1 << 20)
    let rig = try Rig()
    let disk = BlkFrontDevice()
    let device = try rig.toolstack.addVbd(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: image.path.string)
    let pair = try ThreadedPair(
      rig, frontend: disk,
      backend: BlkBackDriver { (device) throws(DeviceError) in try FileStore(for: device) })
    #expect(pair.run { disk.isConnected && pair.backBus.isConnected })
    // The queue's own thread answers now; this one only waits.
    var results: [UInt64: [UInt8]] = [:]
    let written = pattern(BlkFrontDevice.maxDirectByteCount, seed: 9)
    for tag in 0..<UInt64(23) { try disk.write(sector: tag * 88, written.span, tag: tag) }
    try disk.flush(tag: 100)
    disk.push()
    while disk.inFlightCount > 0 {
      if let descriptor = disk.descriptor { Wakeup.wait(for: descriptor, timeout: 1000) }
      disk.poll { #expect($0.result == .succeeded) }
    }
    for tag in 0..<UInt64(23) { try disk.read(sector: tag * 88, byteCount: written.count, tag: tag) }
    disk.push()
    while disk.inFlightCount > 0 {
      if let descriptor = disk.descriptor { Wakeup.wait(for: descriptor, timeout: 1000) }
      disk.poll { results[$0.tag] = $0.copied() }
    }
    #expect(results.count == 23 && results.values.allSatisfy { $0 == written })
    try rig.toolstack.unplug(device)
    #expect(pair.run { pair.backBus.isEmpty })
    #expect(try image.bytes(0..<written.count) == written)
  }
}
