import BlkBack
import BlkFront
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
  @Test(arguments: seeds(1...30, of: BlkBackRestartTests.self), RecordStep.allCases)
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
    let disk = BlkFrontDevice(protocol: BlkProtocol.allCases[seed.modulo(2)])
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
}
