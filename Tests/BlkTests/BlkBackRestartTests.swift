import BlkBack
import BlkFront
import Glibc
import SystemPackage
import TestSupport
import Testing
import XenLoopback

/// B17: a backend that is killed and started again with its record, while its frontend stays connected.
struct BlkBackRestartTests {
  /// What a run is made of, drawn from its seed.
  private struct Shape {
    let layout: BlkProtocol
    let ringPageOrder: Int?
    let queueCount: Int
    let isPersistent: Bool
    let isLate: Bool
    let startsNearWrap: Bool
  }

  private static func shape(_ seed: Seed) -> Shape {
    Shape(
      layout: BlkProtocol.allCases[seed.modulo(2)], ringPageOrder: [nil, 2, 0][seed.modulo(3)],
      queueCount: [1, 3, 1, 2][seed.modulo(4)], isPersistent: seed.modulo(5) < 2, isLate: seed.modulo(7) < 5,
      startsNearWrap: seed.modulo(3) == 1)
  }

  /// At each step between taking a request and forgetting it, and wherever in a workload: each request gets one answer, each
  /// read what was written, and the disk is as the frontend knows it to be.
  @Test(arguments: seeds(1...20, of: BlkBackRestartTests.self), RecordStep.allCases)
  func killAtAnyStepLosesNothingAndAnswersNothingTwice(seed: Seed, step: RecordStep) throws {
    let shape = Self.shape(seed)
    let laneCount = 24
    let front = RawBlkFrontend(
      layout: shape.layout, ringPageOrder: shape.ringPageOrder, queueCount: shape.queueCount,
      isPersistent: shape.isPersistent, dataPageCount: laneCount * RawWorkload.pagesPerLane)
    let disk = ModelDisk(sectorCount: UInt64(laneCount * RawWorkload.sectorsPerLane))
    let rig = try RestartRig(seed: seed, frontend: front) {
      MortalStore(disk, of: $0, lateness: shape.isLate ? seed : nil)
    }
    let pair = rig.pair
    try pair.connect()
    if shape.startsNearWrap { try move(rig, front, to: RingIndex(rawValue: UInt32.max - 40)) }
    let work = RawWorkload(front, laneCount: laneCount, seed: seed)
    for _ in 0..<5 {
      rig.killer.arm(step, after: work.random(1...30))
      for _ in 0..<200 where !rig.killer.hasKilled {
        work.put(work.random(0...12))
        pair.scheduler.round()
        if work.random(0...2) > 0 { try work.takeAnswers() }
      }
      // What the guest asks for meanwhile, and what it has not looked at, waits.
      if work.random(0...1) == 1 { work.put(work.random(0...12)) }
      if work.random(0...1) == 1 { try work.takeAnswers() }
      try rig.restart()
      // Also in the middle of doing again what was in flight.
      if work.random(0...2) == 0 {
        rig.killer.arm(step, after: work.random(1...3))
        for _ in 0..<30 where !rig.killer.hasKilled { pair.scheduler.round() }
        if rig.killer.hasKilled { try rig.restart() }
      }
    }
    rig.killer.disarm()
    let isDone = try pair.scheduler.run {
      try work.takeAnswers()
      return work.outstandingCount == 0
    }
    #expect(isDone, "\(work.outstandingCount) have no answer; \(rig.bus.report)")
    #expect(rig.killer.killCount >= 3)
    #expect(work.agrees(with: disk))
    #expect(front.isConnected && pair.frontBus.isConnected && rig.bus.isConnected)
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { rig.bus.isEmpty && pair.holdsNothing })
    #expect(rig.records.files == [])
  }

  /// Has the idle rings begin anew at `index`, which takes a backend days.
  private func move(_ rig: RestartRig, _ front: RawBlkFrontend, to index: RingIndex) throws {
    rig.killer.kill()
    try rig.killer.layOut()
    for ring in front.rings { ring.begin(at: index) }
    let word = Array(repeating: "\(index)", count: front.rings.count).joined(separator: " ")
    try rig.pair.rig.directory(rig.pair.device.backendPath).write([StoreEntry("resume-from", word)])
    try rig.start()
    #expect(rig.pair.scheduler.run { rig.bus.isConnected }, "\(rig.bus.report)")
  }

  /// The same under our own frontend, which has no idea.
  @Test(arguments: seeds(1...20, of: BlkBackRestartTests.self))
  func frontendOfOursNoticesNothing(seed: Seed) throws {
    let disk = BlkFrontDevice(BlkFrontOptions(layout: BlkProtocol.allCases[seed.modulo(2)]))
    let memory = ModelDisk(sectorCount: 512)
    let rig = try RestartRig(seed: seed, frontend: disk) { MortalStore(memory, of: $0, lateness: seed) }
    let pair = rig.pair
    try pair.connect()
    var random = SeededGenerator(seed)
    var results: [UInt64: Int] = [:]
    func take() {
      disk.poll { completion in
        #expect(completion.result == .succeeded)
        results[completion.tag, default: 0] += 1
      }
    }
    for round in 0..<4 {
      for slot in 0..<16 {
        let tag = UInt64(round * 100 + slot)
        try disk.write(sector: UInt64(slot * 32), pattern(2048, seed: Int(tag)).span, tag: tag)
      }
      try disk.flush(tag: UInt64(round * 100 + 50))
      disk.push()
      rig.killer.arm(RecordStep.allCases.randomElement(using: &random)!, after: Int.random(in: 1...17, using: &random))
      for _ in 0..<100 where !rig.killer.hasKilled { pair.scheduler.round() }
      take()
      try rig.restart()
      #expect(
        pair.scheduler.run {
          take()
          return disk.inFlightCount == 0 && rig.bus.isConnected
        }, "\(rig.bus.report)")
      #expect(pair.frontBus.isConnected)
    }
    #expect(results.count == 4 * 17 && results.values.allSatisfy { $0 == 1 })
    for slot in 0..<16 {
      #expect(memory.bytes(sector: UInt64(slot * 32), sectorCount: 4) == pattern(2048, seed: 300 + slot))
    }
  }

  // MARK: Order

  /// What was in flight is done again before anything new, however long that takes.
  @Test func nothingNewIsTakenBeforeWhatWasInFlightHasItsAnswers() throws {
    let front = RawBlkFrontend()
    let memory = ModelDisk(sectorCount: 64)
    var stores: [HoldingStore] = []
    let rig = try RestartRig(frontend: front) { _ in
      stores.append(HoldingStore(memory))
      return stores.last!
    }
    try rig.pair.connect()
    for id in 0..<UInt64(4) { front.put(front.direct(BlkIf.Operation.write, sector: id * 8, [(0, 0, 7)], id: id)) }
    front.push()
    #expect(rig.pair.scheduler.run { stores.last!.heldCount == 4 })
    for id in 4..<UInt64(9) { front.put(front.direct(BlkIf.Operation.read, sector: 0, [(1, 0, 7)], id: id)) }
    front.push()
    rig.killer.kill()
    try rig.restartAndConnect()
    _ = rig.pair.scheduler.run(turns: 300) { false }
    #expect(stores.last!.submittedCount == 4)
    stores.last!.letGo()
    #expect(try rig.pair.statuses(front, 9).values.allSatisfy { $0 == 0 })
    #expect(stores.last!.submittedCount == 9)
  }

  /// A queue whose store completes at once does not wait for a timer or an event either, neither between the barriers of what
  /// it does again nor afterwards.
  @Test func replayGoesOnByItself() throws {
    let front = RawBlkFrontend()
    let memory = ModelDisk(sectorCount: 64)
    var isHeld = true
    let rig = try RestartRig(frontend: front) { _ in
      defer { isHeld = false }
      return isHeld ? HoldingStore(memory) : memory
    }
    try rig.pair.connect()
    for id in 0..<UInt64(8) {
      front.put(front.direct(BlkIf.Operation.writeBarrier, sector: id * 8, [(0, 0, 7)], id: id))
    }
    for id in 8..<UInt64(16) { front.put(front.direct(BlkIf.Operation.read, [(1, 0, 7)], id: id)) }
    front.push()
    for _ in 0..<20 { rig.pair.scheduler.round() }
    try rig.restartAndConnect()
    let before = rig.pair.scheduler.now.nanoseconds
    #expect(try rig.pair.statuses(front, 16).values.allSatisfy { $0 == 0 })
    #expect(rig.pair.scheduler.now.nanoseconds - before < 500_000_000)
  }

  /// Writes to one sector, each ordered after the one before by a barrier: whatever is done again, the last one is what stays.
  @Test(arguments: seeds(1...20, of: BlkBackRestartTests.self), RecordStep.allCases)
  func barriersKeepTheirOrder(seed: Seed, step: RecordStep) throws {
    let front = RawBlkFrontend(dataPageCount: 32)
    let memory = ModelDisk(sectorCount: 64)
    let rig = try RestartRig(seed: seed, frontend: front) {
      MortalStore(memory, of: $0, lateness: seed.modulo(3) == 0 ? nil : seed)
    }
    try rig.pair.connect()
    var random = SeededGenerator(seed)
    var answers: [UInt64: Int] = [:]
    for round in 0..<4 {
      for index in 0..<16 {
        let id = UInt64(round * 16 + index)
        front.bytes(page: index, sector: 0, count: 512).copy(from: pattern(512, seed: Int(id) + 1).span)
        let operation = index % 2 == 0 ? BlkIf.Operation.write : BlkIf.Operation.writeBarrier
        front.put(front.direct(operation, sector: 9, [(index, 0, 0)], id: id))
      }
      front.push()
      rig.killer.arm(step, after: Int.random(in: 1...16, using: &random))
      for _ in 0..<60 where !rig.killer.hasKilled { rig.pair.scheduler.round() }
      try rig.restart()
      _ = try rig.pair.scheduler.run {
        for response in try front.responses() {
          #expect(response.status == 0)
          answers[response.id, default: 0] += 1
        }
        return answers.count == (round + 1) * 16
      }
      try #require(memory.bytes(sector: 9, sectorCount: 1) == pattern(512, seed: round * 16 + 16))
    }
    #expect(answers.count == 64 && answers.values.allSatisfy { $0 == 1 })
  }

  /// One request that its store keeps, while ring after ring of others is answered.
  @Test func requestThatManyOvertookIsDoneAgain() throws {
    let front = RawBlkFrontend()
    let memory = ModelDisk(sectorCount: 64)
    var isFirst = true
    let rig = try RestartRig(frontend: front) { _ in
      defer { isFirst = false }
      return isFirst ? KeepingStore(memory, keeping: 48) : memory
    }
    try rig.pair.connect()
    front.bytes(page: 3, sector: 0, count: 512).copy(from: pattern(512, seed: 7).span)
    front.put(front.direct(BlkIf.Operation.write, sector: 48, [(3, 0, 0)], id: 1000))
    for round in 0..<UInt64(10) {
      for id in 0..<UInt64(20) { front.put(front.direct(BlkIf.Operation.read, [(0, 0, 0)], id: round * 20 + id)) }
      #expect(try rig.pair.statuses(front, 20).values.allSatisfy { $0 == 0 })
    }
    try rig.restartAndConnect()
    #expect(try rig.pair.statuses(front, 1) == [1000: 0])
    #expect(memory.bytes(sector: 48, sectorCount: 1) == pattern(512, seed: 7))
  }

  // MARK: The end of a process that is no kill

  /// A program that just returns leaves its disks as a killed one does.
  @Test func busThatEndsWithoutLeaveLeavesItsRecord() throws {
    let front = RawBlkFrontend()
    let memory = ModelDisk(sectorCount: 64)
    let stores = Stores(memory)
    let rig = try RestartRig(frontend: front) { _ in stores.next() }
    try rig.pair.connect()
    try rig.start()
    #expect(rig.pair.scheduler.run { !rig.bus.heldDevices.isEmpty }, "the first has it")
    // The first bus belongs to the pair; the second one is what goes on after it, and ends.
    rig.killer.kill()
    rig.pair.rig.driverDomain.kill()
    try rig.killer.layOut()
    try rig.start()
    #expect(rig.pair.scheduler.run { rig.bus.isConnected }, "\(rig.bus.report)")
    front.put(front.direct(BlkIf.Operation.write, sector: 8, [(0, 0, 7)], id: 1))
    front.push()
    #expect(rig.pair.scheduler.run { stores.last.heldCount == 1 })
    stores.last.letGo()
    rig.pair.scheduler.remove(rig.bus)
    try rig.start()
    rig.forgetOthers()
    #expect(rig.records.files == [Killer.recordName])
    #expect(rig.pair.scheduler.run { rig.bus.isConnected }, "\(rig.bus.report)")
    stores.last.letGo()
    #expect(try rig.pair.statuses(front, 1) == [1: 0])
  }

  @Test(arguments: BlkProtocol.allCases)
  func diskThatWasDetachedFromGoesOnWithItsRecord(layout: BlkProtocol) throws {
    let disk = BlkFrontDevice(BlkFrontOptions(layout: layout))
    let memory = ModelDisk(sectorCount: 64)
    let rig = try RestartRig(frontend: disk) { _ in ReorderingStore(memory) }
    let pair = rig.pair
    try pair.connect()
    for round in 1...3 {
      try disk.write(sector: 8, pattern(512, seed: round).span, tag: UInt64(round))
      disk.push()
      for _ in 0..<round { pair.scheduler.round() }
      pair.scheduler.remove(rig.bus)
      #expect(rig.bus.detach().isEmpty)
      #expect(rig.records.files == [Killer.recordName])
      try rig.start()
      #expect(pair.scheduler.run { rig.bus.isConnected }, "\(rig.bus.report)")
      #expect(pair.complete(disk)[UInt64(round)]?.result == .succeeded)
    }
    #expect(memory.bytes(sector: 8, sectorCount: 1) == pattern(512, seed: 3))
  }

  /// A stop is no worse than a kill: what the store takes too long for, the next process does again.
  @Test func diskIsDetachedFromAStoreThatHangsWhereThereIsARecord() throws {
    let front = RawBlkFrontend()
    let memory = ModelDisk(sectorCount: 64)
    let held = HoldingStore(memory)
    var stores: [any BlockStore] = [held, memory]
    let rig = try RestartRig(frontend: front) { _ in stores.removeFirst() }
    let pair = rig.pair
    try pair.connect()
    for id in 0..<UInt64(4) { front.put(front.direct(BlkIf.Operation.write, sector: id * 8, [(0, 0, 7)], id: id)) }
    front.push()
    #expect(pair.scheduler.run { held.heldCount == 4 })
    pair.scheduler.remove(rig.bus)
    #expect(rig.bus.detach().isEmpty)
    #expect(rig.records.files == [Killer.recordName])
    #expect(try pair.backendState == .connected && front.responses().isEmpty)
    try rig.start()
    #expect(pair.scheduler.run { rig.bus.isConnected }, "\(rig.bus.report)")
    #expect(try pair.statuses(front, 4) == [0: 0, 1: 0, 2: 0, 3: 0])
    #expect(pair.frontBus.isConnected)
    held.letGo()
  }

  @Test func deviceThatIsDestroyedTakesItsRecordAlong() throws {
    let rig = try RestartRig(frontend: RawBlkFrontend()) { _ in ModelDisk(sectorCount: 64) }
    try rig.pair.connect()
    #expect(rig.records.files == [Killer.recordName])
    try rig.pair.toolstack.destroy(rig.pair.device)
    #expect(rig.pair.scheduler.run { rig.records.files == [] })
  }

  // MARK: What is not resumed

  /// Runs until the process that was just started holds the device, and gives its reason.
  private func heldReason(_ rig: RestartRig, _ location: SourceLocation = #_sourceLocation) throws -> String {
    let isHeld = rig.pair.scheduler.run { !rig.bus.heldDevices.isEmpty }
    try #require(isHeld, "\(rig.bus.report)", sourceLocation: location)
    #expect(try rig.pair.backendState == .connected && rig.pair.frontBus.isConnected, sourceLocation: location)
    #expect(rig.pair.loopback.grantCounts.mappedPages == 0, sourceLocation: location)
    return "\(rig.bus.heldDevices.values.first!)"
  }

  /// A disk with four requests in flight whose backend has been killed.
  private func killed(_ front: RawBlkFrontend, _ memory: ModelDisk = ModelDisk(sectorCount: 64)) throws -> RestartRig {
    let stores = Stores(memory)
    let rig = try RestartRig(frontend: front) { _ in stores.next() }
    try rig.pair.connect()
    for id in 0..<UInt64(4) { front.put(front.direct(BlkIf.Operation.write, sector: id * 8, [(0, 0, 7)], id: id)) }
    front.push()
    #expect(rig.pair.scheduler.run { stores.last.heldCount == 4 })
    stores.holds = false
    rig.killer.kill()
    stores.last.giveUp()
    try rig.killer.layOut()
    return rig
  }

  @Test func recordOfALivingProcessIsNotTouched() throws {
    let front = RawBlkFrontend()
    let stores = Stores(ModelDisk(sectorCount: 64))
    let rig = try RestartRig(frontend: front) { _ in stores.next() }
    try rig.pair.connect()
    front.put(front.direct(BlkIf.Operation.write, [(0, 0, 7)], id: 1))
    front.push()
    #expect(rig.pair.scheduler.run { stores.last.heldCount == 1 })
    let first = stores.last
    try rig.start()
    #expect(rig.pair.scheduler.run { !rig.bus.heldDevices.isEmpty })
    #expect(
      "\(rig.bus.heldDevices.values.first!)"
        == "the record \(rig.records.path)/\(Killer.recordName) is in use: another process serves this disk")
    first.letGo()
    #expect(try rig.pair.statuses(front, 1) == [1: 0])
    #expect(rig.pair.backBus.isConnected)
  }

  /// A killed process may end some time after the next one has begun.
  @Test func recordThatIsInUseIsTakenUpWhenItIsNot() throws {
    let front = RawBlkFrontend()
    let rig = try killed(front)
    let file = try FileDescriptor.open(
      rig.records.path.appending(Killer.recordName), .readWrite, options: .closeOnExec)
    try file.closeAfter {
      // Also of the copy that a program has which another test begins at this moment.
      defer { _ = flock(file.rawValue, LOCK_UN) }
      #expect(flock(file.rawValue, LOCK_EX | LOCK_NB) == 0)
      try rig.start()
      #expect(try heldReason(rig).hasSuffix("is in use: another process serves this disk"))
      _ = rig.pair.scheduler.run(turns: 1000) { false }
      #expect(!rig.bus.isConnected && rig.bus.givenUpDevices.isEmpty)
      #expect(rig.bus.report[0].contains("what keeps it from being taken up to end"), "\(rig.bus.report)")
    }
    #expect(rig.pair.scheduler.run { rig.bus.isConnected && rig.bus.heldDevices.isEmpty })
    #expect(try rig.pair.statuses(front, 4) == [0: 0, 1: 0, 2: 0, 3: 0])
  }

  @Test func recordThatIsGoneOrCutOrAnothersIsNotGoneOnWith() throws {
    for (damage, reason) in [
      ({ _ in nil }, "cannot be opened: No such file or directory"),
      ({ Array($0.dropLast()) }, "bytes and not the 4224 of a disk with 1 queues of 32 slots"),
      ({ $0 + [0] }, "bytes and not the 4224"), ({ _ in [] }, "has 0 bytes and not the 4224"),
      ({ [0] + $0.dropFirst() }, "is not the one of this connection"),
      ({ $0[..<16] + pattern(32, seed: 3) + $0[48...] }, "is not the one of this connection"),
    ] as [(([UInt8]) -> [UInt8]?, String)] {
      let front = RawBlkFrontend()
      let rig = try killed(front)
      let bytes = try #require(try rig.records.bytes(of: Killer.recordName))
      try rig.records.replace(Killer.recordName, with: damage(bytes))
      try rig.start()
      let message = try heldReason(rig)
      #expect(message.hasPrefix("the record \(rig.records.path)/\(Killer.recordName)") && message.contains(reason))
      // As it was: the next start goes on.
      try rig.records.replace(Killer.recordName, with: bytes)
      try rig.restartAndConnect()
      #expect(try rig.pair.statuses(front, 4).values.allSatisfy { $0 == 0 })
    }
  }

  /// Whatever is in the file: nothing traps, and the device is served or stays for another one.
  @Test(arguments: seeds(1...60, of: BlkBackRestartTests.self))
  func recordWithOtherBytesTrapsNobody(seed: Seed) throws {
    let front = RawBlkFrontend()
    let rig = try killed(front)
    var random = SeededGenerator(seed)
    var bytes = try #require(try rig.records.bytes(of: Killer.recordName))
    for _ in 0..<[1, 1, 4, 400][seed.modulo(4)] {
      bytes[Int.random(in: 0..<(seed.modulo(2) == 0 ? 1024 : bytes.count), using: &random)] = UInt8.random(
        in: 0...255, using: &random)
    }
    try rig.records.replace(Killer.recordName, with: bytes)
    try rig.start()
    #expect(rig.pair.scheduler.run { rig.bus.isConnected || !rig.bus.heldDevices.isEmpty })
    _ = rig.pair.scheduler.run(turns: 50) { false }
    try rig.pair.toolstack.unplug(rig.pair.device)
    #expect(rig.pair.scheduler.run { rig.bus.isEmpty })
  }

  /// The guest has the page to itself while nobody serves.
  @Test(arguments: [1, 5, 33, 1 << 31, UInt32.max] as [UInt32])
  func answersThatTheGuestHasGivenItselfAreNotBelieved(produced: UInt32) throws {
    let front = RawBlkFrontend()
    let rig = try killed(front)
    front.scribble(produced, at: 8)
    try rig.start()
    let message = try heldReason(rig)
    #expect(
      message
        == (4 &- produced <= 32
          ? "its ring has \(4 &- produced) requests without an answer, and the record of what was in flight has 4"
          : "the ring of 32 slots has responses up to \(produced), which cannot be when requests were consumed up to 4")
    )
    #expect(rig.records.files == [Killer.recordName])
    // What it has done to itself it may undo.
    front.scribble(0, at: 8)
    try rig.restartAndConnect()
    #expect(try rig.pair.statuses(front, 4).values.allSatisfy { $0 == 0 })
  }

  /// What was taken is done as it was taken.
  @Test func slotsThatTheGuestRewritesMeanwhileChangeNothing() throws {
    let front = RawBlkFrontend()
    let memory = ModelDisk(sectorCount: 64)
    let rig = try killed(front, memory)
    front.bytes(page: 0, sector: 0, count: 4096).copy(from: pattern(4096, seed: 5).span)
    for slot in 0..<4 {
      for word in 0..<28 { front.rings[0].bytes.scribble(UInt32.max, at: 64 + slot * 112 + word * 4) }
    }
    try rig.restartAndConnect()
    #expect(try rig.pair.statuses(front, 4) == [0: 0, 1: 0, 2: 0, 3: 0])
    // The payload is the guest's until it has its answer.
    #expect(memory.bytes(sector: 8, sectorCount: 8) == pattern(4096, seed: 5))
  }

  @Test(arguments: [37, 1000, UInt32.max, 1 << 31] as [UInt32])
  func ringThatTheGuestBreaksMeanwhileIsClosed(producer: UInt32) throws {
    let front = RawBlkFrontend()
    let rig = try killed(front)
    front.scribble(producer, at: 0)
    try rig.start()
    #expect(try rig.pair.scheduler.run { try rig.pair.backendError?.contains("\(producer)") == true })
    #expect(!rig.bus.isConnected && rig.pair.loopback.grantCounts.mappedPages == 0)
  }

  @Test(arguments: [
    ("event-channel", "999"), ("ring-ref", "77777"), ("protocol", "vax-abi"), ("ring-page-order", "1"),
    ("multi-queue-num-queues", "2"),
  ])
  func keysThatTheGuestBreaksMeanwhileHoldNothing(key: String, value: String) throws {
    let front = RawBlkFrontend(ringPageOrder: 0)
    let rig = try killed(front)
    let frontend = rig.pair.rig.directory(rig.pair.device.frontendPath)
    let right = try frontend.optionalString(key)
    try frontend.write([StoreEntry(key, value)])
    try rig.start()
    _ = try heldReason(rig)
    try frontend.write([right.map { StoreEntry(key, $0) } ?? StoreEntry(absent: key)])
    try rig.restartAndConnect()
    #expect(try rig.pair.statuses(front, 4).values.allSatisfy { $0 == 0 })
  }

  /// What the guest was told counts, not what a new command line says.
  @Test func optionsThatWereNotNegotiatedDoNotMatter() throws {
    let front = RawBlkFrontend(ringPageOrder: 2, queueCount: 2, isPersistent: true, dataPageCount: 32)
    let memory = ModelDisk(sectorCount: 64)
    var isFirst = true
    let rig = try RestartRig(frontend: front) { _ in
      defer { isFirst = false }
      return isFirst ? KeepingStore(memory, keeping: 8) : memory
    }
    try rig.pair.connect()
    let segments: [RawSegment] = (0..<14).map { (page: 1 + $0, first: 0, last: 0) }
    front.put(front.indirect(BlkIf.Operation.write, sector: 8, segments, in: 0, id: 1), queue: 1)
    front.push()
    for _ in 0..<20 { rig.pair.scheduler.round() }
    front.put(front.direct(BlkIf.Operation.flushDiskCache, [], id: 2))
    front.push()
    rig.killer.kill()
    try rig.killer.layOut()
    var options = BlkBackOptions(offersFlush: false, offersPersistentGrants: false, maxIndirectSegmentCount: 0)
    (options.maxRingPageOrder, options.maxQueueCount, options.offersDiscard) = (0, 1, false)
    options.recordDirectory = rig.records.path
    try rig.start(options)
    #expect(rig.pair.scheduler.run { rig.bus.isConnected }, "\(rig.bus.report)")
    #expect(try rig.pair.statuses(front, 2) == [1: 0, 2: 0])
  }

  @Test func programWithoutADirectoryOfRecordsLeavesTheDeviceAlone() throws {
    let front = RawBlkFrontend()
    let rig = try killed(front)
    try rig.start(BlkBackOptions())
    #expect(
      try heldReason(rig)
        == "what was in flight is in a record, and no directory of records is given: give the one it was begun in")
  }

  /// The same numbers would name other sectors.
  @Test func otherSectorUnitsThanBeforeAreNotServed() throws {
    let geometry = BlockGeometry(sectorCount: 512, sectorByteCount: 4096)
    var options = BlkBackOptions()
    options.sectorUnits = .tapdisk
    let rig = try RestartRig(options: options, frontend: RawBlkFrontend()) { _ in ModelDisk(geometry) }
    try rig.pair.connect()
    rig.killer.kill()
    try rig.killer.layOut()
    var others = BlkBackOptions()
    others.recordDirectory = rig.records.path
    try rig.start(others)
    #expect(try heldReason(rig).contains("its guest goes by sector-units = bytes512,sectorSize,bytes512"))
    try rig.restartAndConnect()
  }

  /// Whoever asks for a record does not get a disk without one.
  @Test func diskWhoseRecordCannotBeMadeIsNotServed() throws {
    for directory in ["/nowhere/at-all", "/dev/null", "/proc"] as [FilePath] {
      var options = BlkBackOptions()
      options.recordDirectory = directory
      let pair = try BlkPair(options: options, frontend: RawBlkFrontend()) { _ in ModelDisk(sectorCount: 64) }
      #expect(try pair.scheduler.run { try pair.backendError != nil })
      #expect(
        try pair.backendError?.hasPrefix("22 the record \(directory)/\(Killer.recordName) cannot be opened: ") == true)
      #expect(try pair.backendState != .connected && pair.loopback.grantCounts.mappedPages == 0)
    }
  }
}

/// Keeps what concerns one sector for good.
private final class KeepingStore: BlockStore {
  private let store: any BlockStore
  private let sector: UInt64
  private let wakeup = try! Wakeup()

  init(_ store: any BlockStore, keeping sector: UInt64) { (self.store, self.sector) = (store, sector) }

  var geometry: BlockGeometry { store.geometry }
  var completionDescriptor: CInt? { wakeup.descriptor }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices where requests[index].sector != sector {
      store.submit(requests.extracting(index..<index + 1), to: &completions)
    }
  }
}

/// The stores of a disk's processes, all on one memory.
private final class Stores {
  private let memory: ModelDisk
  private var stores: [HoldingStore] = []
  /// Whether those to come hold what they get.
  var holds = true

  init(_ memory: ModelDisk) { self.memory = memory }

  func next() -> HoldingStore {
    stores.append(HoldingStore(memory))
    if !holds { stores.last!.letGo() }
    return stores.last!
  }

  var last: HoldingStore { stores.last! }
}
