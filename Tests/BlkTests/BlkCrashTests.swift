import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// A backend's process that is killed again and again, without a record of what it had in flight: BlkFront finds the next one through
/// the state machine. What the killed one had completed lies on the medium, as bytes in a page cache would.
struct BlkCrashTests {
  /// Fifty runs of five kills, each after a number of turns that is the seed's.
  @Test(arguments: seeds(1...50, of: BlkCrashTests.self))
  func killedBackendLosesNothingThatItAcknowledged(seed: Seed) throws {
    var random = SeededGenerator(seed)
    var options = BlkFrontOptions()
    options.maxQueueCount = 1 + seed.modulo(3)
    options.maxRingPageOrder = seed.modulo(2)
    let disk = BlkFrontDevice(options)
    let medium = MemoryStore(sectorCount: 16 * 128)
    let pair = try BlkPair(seed: seed, frontend: disk, store: ReorderingStore(medium))
    try pair.connect()
    var (bus, process) = (pair.backBus, pair.driverDomain)
    var workload = Workload(random)
    var kills = 0
    while kills < 5 {
      try workload.put(on: disk)
      for _ in 0..<Int.random(in: 1...24, using: &random) {
        pair.scheduler.round()
        workload.take(from: disk)
      }
      process.kill()
      kills += 1
      pair.scheduler.remove(bus)
      let next = pair.rig.loopback.addProcess(in: pair.driverDomain.domain)
      let nextBus = try Bus(on: next, queueHost: pair.scheduler.host(of: next), log: .silent)
      try nextBus.register(BlkBackDriver { _ in ReorderingStore(medium) })
      pair.scheduler.add(nextBus, of: next, name: "next backend's bus") { _ in nextBus.poll() }
      (bus, process) = (nextBus, next)
      // Now and then it is killed before it has come so far.
      if Bool.random(using: &random) { #expect(pair.scheduler.run { disk.isConnected }, "\(bus.report)") }
    }
    #expect(
      pair.scheduler.run {
        workload.take(from: disk)
        return disk.inFlightCount == 0 && disk.isConnected
      }, "\(bus.report)")
    // Everything that was ever acknowledged is what another reader finds.
    try workload.readAll(from: disk)
    #expect(
      pair.scheduler.run {
        workload.take(from: disk)
        return disk.inFlightCount == 0
      })
    #expect(workload.readCount > 16 && workload.writeCount > 5)
  }

  /// Writes and reads of sixteen areas, one at a time in each, and what they hold by what was acknowledged.
  private struct Workload {
    private var random: SeededGenerator
    private var contents = [[UInt8]](repeating: [UInt8](repeating: 0, count: 128 * 512), count: 16)
    /// In flight, by area: a write's bytes and their offset, or nil for a read.
    private var busy: [Int: (start: Int, bytes: [UInt8])?] = [:]
    private var reads: [Int: Range<Int>] = [:]
    private(set) var readCount = 0
    private(set) var writeCount = 0

    init(_ random: SeededGenerator) { self.random = random }

    mutating func put(on disk: BlkFrontDevice) throws {
      for area in (0..<16).shuffled(using: &random) where busy[area] == nil {
        let count = Int.random(in: 1...48, using: &random)
        let start = Int.random(in: 0...128 - count, using: &random)
        let sector = UInt64(area * 128 + start)
        let bytes = pattern(count * 512, seed: Int.random(in: 0..<1 << 20, using: &random))
        let writes = Bool.random(using: &random)
        let isTaken = disk.takes { (disk) throws(BlkFrontError) in
          if writes {
            try disk.write(sector: sector, bytes.span, tag: UInt64(area))
          } else {
            try disk.read(sector: sector, byteCount: bytes.count, tag: UInt64(area))
          }
        }
        guard isTaken else { continue }
        busy[area] = .some(writes ? (start * 512, bytes) : nil)
        if !writes { reads[area] = start * 512..<(start + count) * 512 }
      }
      disk.push()
    }

    mutating func readAll(from disk: BlkFrontDevice) throws {
      for area in 0..<16 {
        try disk.read(sector: UInt64(area * 128), byteCount: 8 * 4096, tag: UInt64(area))
        busy[area] = .some(nil)
        reads[area] = 0..<8 * 4096
      }
      disk.push()
    }

    mutating func take(from disk: BlkFrontDevice) {
      disk.poll { completion in
        let area = Int(completion.tag)
        #expect(completion.result == .succeeded)
        guard let request = busy.removeValue(forKey: area) else {
          Issue.record("a request of area \(area) has completed twice")
          return
        }
        if let write = request {
          contents[area].replaceSubrange(write.start..<write.start + write.bytes.count, with: write.bytes)
          writeCount += 1
        } else if let range = reads.removeValue(forKey: area) {
          #expect(completion.copied() == Array(contents[area][range]))
          readCount += 1
        }
      }
    }
  }
}
