import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// The disk for async programs, against a backend on a thread.
// For what hangs: many times what all tests together take, since a test waits for its turn among them.
@Suite(.timeLimit(.minutes(80)))
struct BlkFrontDiskTests {
  private let rig: Rig
  private let device: Toolstack.Device

  init() throws {
    rig = try Rig()
    device = try rig.toolstack.addVbd(to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: "test")
  }

  private func serve(_ store: any BlockStore, offersFlush: Bool = true) throws -> BusThread {
    try BusThread(on: rig.driverDomain, log: .silent) { (bus) throws(XenstoreError) in
      try bus.register(BlkBackDriver(options: BlkBackOptions(offersFlush: offersFlush)) { _ in store })
      return nil
    }
  }

  private func connect(_ change: (inout BlkFrontOptions) -> Void = { _ in }) async throws -> BlkFrontDisk {
    var options = BlkFrontOptions()
    change(&options)
    return try await .connect(to: device.frontendPath, on: rig.guest, options: options, log: .silent)
  }

  /// What an end that may take its time comes to.
  private func eventually(_ condition: () throws -> Bool) async throws -> Bool {
    for _ in 0..<100_000 {
      if try condition() { return true }
      try await Task.sleep(for: .milliseconds(1))
    }
    return false
  }

  @Test(arguments: [512, 45_056, 45_568, 1 << 20, 4 << 20])
  func whatWasWrittenIsRead(byteCount: Int) async throws {
    let backend = try serve(MemoryStore(sectorCount: 1 << 14))
    let disk = try await connect()
    let written = pattern(byteCount, seed: byteCount)
    try await disk.write(sector: 8, written)
    #expect(try await disk.read(sector: 8, byteCount: byteCount) == written)
    try await disk.flush()
    await disk.close()
    #expect(try await eventually { rig.holdsNothing })
    backend.end(within: 0)
    backend.join()
  }

  @Test func callsOfManyTasksAreInFlightTogether() async throws {
    let store = HoldingStore(MemoryStore(sectorCount: 1 << 12))
    let backend = try serve(store)
    let disk = try await connect()
    try await withThrowingTaskGroup { group in
      for number in 0..<100 {
        group.addTask {
          try await disk.write(sector: UInt64(number) * 8, pattern(4096, seed: number))
          let read = try await disk.read(sector: UInt64(number) * 8, byteCount: 4096)
          #expect(read == pattern(4096, seed: number))
        }
      }
      // None is completed before the ring is full.
      #expect(try await eventually { store.heldCount == 32 })
      store.letGo()
      try await group.waitForAll()
    }
    await disk.close()
    backend.end(within: 0)
    backend.join()
  }

  @Test func callsWaitForPagesOfASmallPoolInTheirOrder() async throws {
    let backend = try serve(MemoryStore(sectorCount: 1 << 14))
    let disk = try await BlkFrontDisk.connect(
      to: device.frontendPath, on: rig.guest, options: BlkFrontOptions(layout: .x86_32, poolPageCount: 11), log: .silent
    )
    #expect(disk.negotiation.lines.first { $0.feature == "pool pages" }?.agreed == "11")
    let written = pattern(1 << 20, seed: 3)
    try await disk.write(sector: 0, written)
    async let first = disk.read(sector: 0, byteCount: 1 << 20)
    async let second = disk.read(sector: 0, byteCount: 4096)
    #expect(try await first == written)
    #expect(try await second == Array(written[..<4096]))
    await disk.close()
    backend.end(within: 0)
    backend.join()
  }

  @Test func cancelledCallEndsWhenNothingOfItIsInFlight() async throws {
    let store = HoldingStore(MemoryStore(sectorCount: 1 << 14))
    let backend = try serve(store)
    let disk = try await connect { $0.maxIndirectSegmentCount = 0 }
    // Fifty parts: 32 in flight, the others wait.
    let ended = Ended()
    let call = Task {
      defer { ended.set() }
      return try await disk.read(sector: 0, byteCount: 50 * BlkFrontDevice.maxDirectByteCount)
    }
    #expect(try await eventually { store.heldCount == 32 })
    let next = Task { try await disk.read(sector: 0, byteCount: 512) }
    let withdrawn = Task { try await disk.read(sector: 0, byteCount: 512) }
    call.cancel()
    withdrawn.cancel()
    // When this one has ended, the cancellation before it has been seen, too.
    await #expect(throws: CancellationError.self) { try await withdrawn.value }
    for _ in 0..<100 { await Task.yield() }
    #expect(!ended.isSet)
    store.letGo()
    await #expect(throws: CancellationError.self) { try await call.value }
    #expect(try await next.value.count == 512)
    #expect(store.submittedCount == 33, "parts that were not in flight are withdrawn")
    await disk.close()
    backend.end(within: 0)
    backend.join()
  }

  @Test func callOfATaskThatIsCancelledAlreadyAsksTheBackendForNothing() async throws {
    let store = HoldingStore(MemoryStore(sectorCount: 64))
    let backend = try serve(store)
    let disk = try await connect()
    let call = Task {
      // Safe: the task is used while it runs.
      unsafe withUnsafeCurrentTask { unsafe $0?.cancel() }
      return try await disk.read(sector: 0, byteCount: 512)
    }
    await #expect(throws: CancellationError.self) { try await call.value }
    await disk.close()
    #expect(store.submittedCount == 0)
    backend.end(within: 0)
    backend.join()
  }

  @Test func failedPartFailsTheCallAndNoOther() async throws {
    let backend = try serve(BrokenStore())
    let disk = try await connect()
    await #expect(throws: BlkFrontError.failed) { try await disk.read(sector: 0, byteCount: 512) }
    try await disk.write(sector: 0, pattern(512, seed: 1))
    await disk.close()
    backend.end(within: 0)
    backend.join()
  }

  @Test func whatTheDiskCannotDoIsRefused() async throws {
    let backend = try serve(MemoryStore(sectorCount: 64), offersFlush: false)
    let disk = try await connect()
    #expect(disk.geometry.sectorCount == 64)
    await #expect(throws: BlkFrontError.length(byteCount: 513)) { try await disk.read(sector: 0, byteCount: 513) }
    await #expect(throws: BlkFrontError.length(byteCount: 0)) { try await disk.write(sector: 0, []) }
    await #expect(throws: BlkFrontError.outsideDisk(sector: 60, count: 8)) {
      try await disk.read(sector: 60, byteCount: 4096)
    }
    await #expect(throws: BlkFrontError.notSupported("feature-flush-cache")) { try await disk.flush() }
    await disk.close()
    await #expect(throws: BlkFrontError.notConnected) { try await disk.read(sector: 0, byteCount: 512) }
    backend.end(within: 0)
    backend.join()
  }

  @Test func diskThatDoesNotConnectSaysWhatItWaitsFor() async throws {
    await #expect(
      throws: BlkFrontError.notConnectedInTime(
        "\(device.frontendPath): waits for the backend to offer its features (InitWait); it is Initialising (1)")
    ) { try await BlkFrontDisk.connect(to: device.frontendPath, on: rig.guest, timeout: .zero, log: .silent) }
    await #expect(throws: BlkFrontError.notConnectedInTime("there is no such device")) {
      try await BlkFrontDisk.connect(to: "/local/domain/1/device/vbd/1", on: rig.guest, timeout: .zero, log: .silent)
    }
    #expect(rig.holdsNothing)
  }

  @Test func cancelledConnectionEndsAtOnceAndLeavesNothing() async throws {
    let connecting = Task { [path = device.frontendPath, guest = rig.guest] in
      try await BlkFrontDisk.connect(to: path, on: guest, timeout: .seconds(10_000), log: .silent)
    }
    // Its thread is there: a backend that offers, and then answers nobody, sees its rings.
    let bus = try Bus(on: rig.driverDomain, log: .silent)
    try bus.register(RawBlkBackend())
    bus.poll()
    #expect(try await eventually { try rig.state(device.frontendPath) == .initialised })
    connecting.cancel()
    await #expect(throws: CancellationError.self) { try await connecting.value }
    #expect(rig.holdsNothing)
  }

  @Test func backendThatRestartsIsAPauseToEveryCall() async throws {
    let store = HoldingStore(MemoryStore(sectorCount: 1 << 12))
    let first = try serve(store)
    let disk = try await connect()
    let inFlight = (0..<32).map { number in
      Task { try await disk.write(sector: UInt64(number), pattern(512, seed: number)) }
    }
    #expect(try await eventually { store.heldCount == 32 })
    let waiting = Task { try await disk.read(sector: 0, byteCount: 1024) }
    // It takes leave, and as its store does not complete what it has, without an answer to that.
    first.end(within: 10)
    first.join()
    let memory = MemoryStore(sectorCount: 1 << 12)
    let second = try serve(memory)
    for call in inFlight { try await call.value }
    #expect(try await waiting.value.count == 1024)
    for number in 0..<32 {
      #expect(try await disk.read(sector: UInt64(number), byteCount: 512) == pattern(512, seed: number))
    }
    await disk.close()
    second.end(within: 0)
    second.join()
  }

  @Test func whoDoesNotRequeueHearsThatTheBackendWentAway() async throws {
    let store = HoldingStore(MemoryStore(sectorCount: 1 << 12))
    let first = try serve(store)
    let disk = try await connect { $0.requeuesRequests = false }
    let inFlight = (0..<32).map { number in
      Task { try await disk.read(sector: UInt64(number), byteCount: 512) }
    }
    #expect(try await eventually { store.heldCount == 32 })
    let waiting = Task { try await disk.read(sector: 0, byteCount: 1024) }
    first.end(within: 10)
    first.join()
    for call in inFlight {
      let result = await call.result
      #expect(throws: BlkFrontError.disconnected) { try result.get() }
    }
    let second = try serve(MemoryStore(sectorCount: 1 << 12))
    #expect(try await waiting.value.count == 1024)
    await disk.close()
    second.end(within: 0)
    second.join()
  }

  @Test func callThatWaitsForABackendToComeBackCanBeCancelledAndADiskClosed() async throws {
    let store = HoldingStore(MemoryStore(sectorCount: 1 << 12))
    let backend = try serve(store)
    let disk = try await connect()
    let cancelled = Task { try await disk.read(sector: 0, byteCount: 512) }
    let given = Task { try await disk.write(sector: 0, pattern(512, seed: 1)) }
    #expect(try await eventually { store.heldCount == 2 })
    backend.end(within: 10)
    backend.join()
    #expect(try await eventually { try rig.state(device.frontendPath) == .closed })
    cancelled.cancel()
    await #expect(throws: CancellationError.self) { try await cancelled.value }
    await disk.close()
    await #expect(throws: BlkFrontError.disconnected) { try await given.value }
    store.letGo()
  }

  @Test func killedBackendIsAPauseOnceAnotherComes() async throws {
    let store = HoldingStore(MemoryStore(sectorCount: 64))
    let first = try serve(store)
    let disk = try await connect()
    let inFlight = Task { try await disk.write(sector: 0, pattern(512, seed: 1)) }
    #expect(try await eventually { store.heldCount == 1 })
    rig.driverDomain.kill()
    // Nothing that it does reaches anybody any more.
    store.letGo()
    first.end(within: 0)
    first.join()
    let successor = rig.loopback.addProcess(in: rig.driverDomain.domain)
    let memory = MemoryStore(sectorCount: 64)
    let second = try BusThread(on: successor, log: .silent) { (bus) throws(XenstoreError) in
      try bus.register(BlkBackDriver { _ in memory })
      return nil
    }
    try await inFlight.value
    #expect(try await disk.read(sector: 0, byteCount: 512) == pattern(512, seed: 1))
    await disk.close()
    second.end(within: 0)
    second.join()
  }

  @Test func removedDeviceFailsWhatWaits() async throws {
    let store = HoldingStore(MemoryStore(sectorCount: 64))
    let backend = try serve(store)
    let disk = try await connect()
    let inFlight = (0..<32).map { _ in Task { try await disk.read(sector: 0, byteCount: 512) } }
    #expect(try await eventually { store.heldCount == 32 })
    let waiting = Task { try await disk.read(sector: 0, byteCount: 1024) }
    // It waits by now, as good as always.
    try await Task.sleep(for: .milliseconds(20))
    try rig.toolstack.destroy(device)
    for call in inFlight { await #expect(throws: BlkFrontError.disconnected) { try await call.value } }
    await #expect(throws: BlkFrontError.notConnected) { try await waiting.value }
    await #expect(throws: BlkFrontError.notConnected) { try await disk.read(sector: 0, byteCount: 512) }
    store.letGo()
    await disk.close()
    backend.end(within: 0)
    backend.join()
  }

  @Test func lastReferenceThatGoesClosesTheDisk() async throws {
    let backend = try serve(MemoryStore(sectorCount: 64))
    var disk: BlkFrontDisk? = try await connect()
    #expect(try await disk?.read(sector: 0, byteCount: 512).count == 512)
    disk = nil
    #expect(try await eventually { rig.holdsNothing })
    backend.end(within: 0)
    backend.join()
  }

  @Test func backendThatNeverAnswersDelaysTheEndNoLongerThanAsked() async throws {
    let store = HoldingStore(MemoryStore(sectorCount: 64))
    let backend = try serve(store)
    let disk = try await connect()
    let call = Task { try await disk.read(sector: 0, byteCount: 512) }
    #expect(try await eventually { store.heldCount == 1 })
    await disk.close(within: .milliseconds(50))
    await #expect(throws: BlkFrontError.disconnected) { try await call.value }
    store.letGo()
    backend.end(within: 0)
    backend.join()
  }
}
