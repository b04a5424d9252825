import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// B2, B3, B9 and B13 through both our ends.
struct BlkTransferTests {
  @Test func readBringsWhatWasWritten() throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    let written = pattern(8192, seed: 7)
    try disk.write(sector: 5, written.span, tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded)
    try disk.read(sector: 5, byteCount: 8192, tag: 2)
    let read = pair.complete(disk)[2]
    #expect(read?.result == .succeeded)
    #expect(read?.bytes == written)
  }

  @Test(arguments: [512, 4096, 4608, BlkFrontDevice.maxDirectByteCount])
  func everyLengthOfARequestArrivesWhole(byteCount: Int) throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 256))
    try pair.connect()
    let written = pattern(byteCount, seed: byteCount)
    try disk.write(sector: 256 - UInt64(byteCount / 512), written.span, tag: 1)
    _ = pair.complete(disk)
    try disk.read(sector: 256 - UInt64(byteCount / 512), byteCount: byteCount, tag: 2)
    #expect(pair.complete(disk)[2]?.bytes == written)
  }

  @Test(arguments: seeds(1...20, of: BlkTransferTests.self), BlkProtocol.allCases)
  func randomWorkloadAgreesWithAModel(seed: Seed, layout: BlkProtocol) throws {
    // From a pool for one request to one for all.
    let disk = BlkFrontDevice(
      BlkFrontOptions(layout: layout, poolPageCount: [11, 40, 352][seed.modulo(3)]))
    let sectorCount = 512
    let pair = try BlkPair(
      seed: seed, frontend: disk, store: ReorderingStore(MemoryStore(sectorCount: UInt64(sectorCount))))
    try pair.connect()
    var random = SeededGenerator(seed)
    var model = [UInt8](repeating: 0, count: sectorCount * 512)
    for round in 0..<8 {
      // Requests in flight together must not overlap: their order is anybody's.
      var free = Array(0..<(sectorCount / 32))
      free.shuffle(using: &random)
      var expected: [UInt64: Range<Int>] = [:]
      var results: [UInt64: (result: BlkFrontCompletion.Result, bytes: [UInt8])] = [:]
      func whenFree(_ put: () throws(BlkFrontError) -> Void) throws {
        do throws(BlkFrontError) { try put() } catch {
          guard error == .busy else { throw error }
          results.merge(pair.complete(disk)) { $1 }
          try put()
        }
      }
      for tag in 0..<UInt64(free.count) {
        let count = Int.random(in: 1...32, using: &random)
        let start = free.removeLast() * 32 + Int.random(in: 0...(32 - count), using: &random)
        let range = start * 512..<(start + count) * 512
        if Bool.random(using: &random) {
          let bytes = pattern(count * 512, seed: round * 1000 + Int(tag))
          model.replaceSubrange(range, with: bytes)
          try whenFree { () throws(BlkFrontError) in try disk.write(sector: UInt64(start), bytes.span, tag: tag) }
        } else {
          expected[tag] = range
          try whenFree { () throws(BlkFrontError) in
            try disk.read(sector: UInt64(start), byteCount: count * 512, tag: tag)
          }
        }
        if Bool.random(using: &random) { disk.push() }
      }
      results.merge(pair.complete(disk)) { $1 }
      #expect(results.count == sectorCount / 32)
      for (tag, range) in expected {
        try #require(results[tag]?.bytes == Array(model[range]), "round \(round), sectors \(range)")
      }
    }
  }

  @Test func everySlotCanBeInFlightAndThenTheRingIsBusy() throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    for tag in 0..<UInt64(32) { try disk.read(sector: tag, byteCount: 512, tag: tag) }
    #expect(throws: BlkFrontError.busy) { try disk.read(sector: 0, byteCount: 512, tag: 32) }
    #expect(pair.complete(disk).count == 32)
    try disk.read(sector: 0, byteCount: 512, tag: 32)
    #expect(pair.complete(disk).count == 1)
  }

  @Test func flushAndBarrierReachTheStoreInOrder() throws {
    let disk = BlkFrontDevice()
    let store = RecordingStore(sectorCount: 64)
    let pair = try BlkPair(frontend: disk, store: store)
    try pair.connect()
    let sector = pattern(512, seed: 1)
    try disk.write(sector: 1, sector.span, tag: 1)
    try disk.flush(tag: 2)
    try disk.writeBarrier(sector: 2, sector.span, tag: 3)
    try disk.write(sector: 3, sector.span, tag: 4)
    let results = pair.complete(disk)
    #expect(results.values.allSatisfy { $0.result == .succeeded })
    #expect(store.record == ["write 1", "flush 0", "writeBarrier 2", "write 3"])
  }

  @Test(arguments: seeds(1...20, of: BlkTransferTests.self))
  func barrierKeepsItsPlaceWhateverOrderTheStoreCompletesIn(seed: Seed) throws {
    let disk = BlkFrontDevice()
    let record = RecordingStore(sectorCount: 64)
    let pair = try BlkPair(seed: seed, frontend: disk, store: ReorderingStore(record))
    try pair.connect()
    // All to one sector, so that the last write in the right order is what stays.
    for tag in 1...10 {
      let bytes = pattern(512, seed: tag)
      if tag % 5 == 0 {
        try disk.writeBarrier(sector: 0, bytes.span, tag: UInt64(tag))
      } else {
        try disk.write(sector: UInt64(tag), bytes.span, tag: UInt64(tag))
      }
    }
    #expect(pair.complete(disk).values.allSatisfy { $0.result == .succeeded })
    #expect(record.record.firstIndex(of: "writeBarrier 0") == 4)
    #expect(record.record.lastIndex(of: "writeBarrier 0") == 9)
    #expect(Set(record.record[0..<4]) == ["write 1", "write 2", "write 3", "write 4"])
    try disk.read(sector: 0, byteCount: 512, tag: 11)
    #expect(pair.complete(disk)[11]?.bytes == pattern(512, seed: 10))
  }

  @Test func barrierWaitsForWhatTheStoreStillHas() throws {
    let disk = BlkFrontDevice()
    let store = HoldingStore(MemoryStore(sectorCount: 64))
    let pair = try BlkPair(frontend: disk, store: store)
    try pair.connect()
    let sector = pattern(512, seed: 1)
    try disk.write(sector: 1, sector.span, tag: 1)
    try disk.writeBarrier(sector: 2, sector.span, tag: 2)
    try disk.write(sector: 3, sector.span, tag: 3)
    disk.push()
    #expect(pair.scheduler.run { store.heldCount > 0 })
    _ = pair.scheduler.run(turns: 100) { false }
    #expect(store.submittedCount == 1)
    store.letGo()
    #expect(pair.complete(disk).count == 3)
  }

  @Test func barriersAloneAreOffered() throws {
    let disk = BlkFrontDevice()
    let store = RecordingStore(sectorCount: 64)
    let pair = try BlkPair(
      frontend: disk, backend: BlkBackDriver(options: BlkBackOptions(offersFlush: false)) { _ in store })
    try pair.connect()
    #expect(throws: BlkFrontError.notSupported("feature-flush-cache")) { try disk.flush(tag: 1) }
    try disk.writeBarrier(sector: 3, pattern(512, seed: 1).span, tag: 2)
    #expect(pair.complete(disk)[2]?.result == .succeeded)
    #expect(store.record == ["writeBarrier 3"])
  }

  @Test func requestMayBeMadeWhileACompletionIsHandedOver() throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    var tags: [UInt64] = []
    try disk.read(sector: 0, byteCount: 512, tag: 1)
    disk.push()
    #expect(
      try pair.scheduler.run {
        var failure: BlkFrontError?
        disk.poll { completion in
          tags.append(completion.tag)
          guard completion.tag < 100 else { return }
          do throws(BlkFrontError) {
            try disk.read(sector: completion.tag % 64, byteCount: 512, tag: completion.tag + 1)
          } catch { failure = error }
          disk.push()
        }
        if let failure { throw failure }
        return tags.count == 100
      })
    #expect(tags == Array(1...100))
  }

  @Test func keysDescribeTheDisk() throws {
    let disk = BlkFrontDevice()
    let geometry = BlockGeometry(
      sectorCount: 800, sectorByteCount: 4096, physicalSectorByteCount: 4096, isRemovable: true)
    let pair = try BlkPair(isReadOnly: true, frontend: disk, store: MemoryStore(geometry: geometry))
    try pair.connect()
    let keys = pair.rig.directory(pair.device.backendPath)
    #expect(try keys.string("sectors") == "800")
    #expect(try keys.string("sector-size") == "4096")
    #expect(try keys.string("physical-sector-size") == "4096")
    #expect(try keys.string("info") == "6")
    #expect(try keys.string("feature-flush-cache") == "1")
    #expect(disk.geometry?.isReadOnly == true && disk.geometry?.isRemovable == true)
    #expect(throws: BlkFrontError.readOnlyDisk) { try disk.write(sector: 0, pattern(4096, seed: 1).span, tag: 1) }
    #expect(throws: BlkFrontError.length(byteCount: 512)) { try disk.read(sector: 0, byteCount: 512, tag: 1) }
    #expect(throws: BlkFrontError.outsideDisk(sector: 1, count: 8)) {
      try disk.read(sector: 1, byteCount: 4096, tag: 1)
    }
  }
}
