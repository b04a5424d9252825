import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// B4, B5, B6: requests of more segments than a slot has room for, discards, pages that stay mapped, and payload written and
/// read in place.
struct BlkFrontIndirectTests {
  private func disk(
    _ segments: Int, pool: Int = 352, persistent: Bool = true, _ layout: BlkProtocol = .native
  ) -> BlkFrontDevice {
    var options = BlkFrontOptions(layout: layout, poolPageCount: pool)
    (options.maxIndirectSegmentCount, options.usesPersistentGrants) = (segments, persistent)
    return BlkFrontDevice(options)
  }

  private func line(_ disk: BlkFrontDevice, _ feature: String) -> [String]? {
    disk.negotiation.lines.first { $0.feature == feature }.map { [$0.frontend, $0.backend, $0.agreed, $0.reason] }
  }

  private func pair(
    _ disk: BlkFrontDevice, seed: Seed = 1, offered: Int = 256, store: any BlockStore
  ) throws -> BlkPair {
    try BlkPair(
      seed: seed, frontend: disk,
      backend: BlkBackDriver(options: BlkBackOptions(maxIndirectSegmentCount: offered)) { _ in store })
  }

  @Test(arguments: [12, 32, 512, 513], BlkProtocol.allCases)
  func largestRequestArrivesWhole(segments: Int, layout: BlkProtocol) throws {
    let disk = disk(segments, pool: 2100, layout)
    let pair = try pair(disk, offered: 4096, store: MemoryStore(sectorCount: 16384))
    pair.guest.sharedPageLimit = 4096
    try pair.connect()
    #expect(disk.maxByteCount == segments * 4096)
    let written = pattern(disk.maxByteCount - 512, seed: segments)
    try disk.write(sector: 3, written.span, tag: 1)
    try disk.write(sector: 0, pattern(1536, seed: 1).span, tag: 2)
    let results = pair.complete(disk)
    #expect(results[1]?.result == .succeeded && results[2]?.result == .succeeded)
    try disk.read(sector: 3, byteCount: written.count, tag: 3)
    #expect(pair.complete(disk)[3]?.bytes == written)
    #expect(throws: BlkFrontError.length(byteCount: disk.maxByteCount + 512)) {
      try disk.read(sector: 0, byteCount: disk.maxByteCount + 512, tag: 4)
    }
  }

  @Test(arguments: [
    (0, 256, 352, "off", "the frontend does not use it"), (11, 256, 352, "off", "the frontend does not use it"),
    (32, 0, 352, "off", "the backend does not offer it"),
    (32, 5, 352, "off", "the backend offers no more than a direct request carries"),
    (32, 256, 352, "32", "the frontend asks for no more"), (256, 64, 352, "64", "the backend offers no more"),
    (256, 256, 352, "256", ""), (256, 256, 100, "99", "the pool has pages for no more"),
    (256, 64, 20, "19", "the pool has pages for no more"), (32, 256, 12, "off", "the pool has pages for no more"),
    (4096, 1 << 32, 1000, "998", "the pool has pages for no more"),
  ])
  func reportSaysHowManySegmentsAndWhyNotMore(
    asked: Int, offered: Int, pool: Int, agreed: String, reason: String
  ) throws {
    let disk = disk(asked, pool: pool)
    let backend = ManyRingsBackend()
    backend.keys = [StoreEntry("feature-max-indirect-segments", offered)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    #expect(line(disk, "feature-max-indirect-segments") == ["\(asked)", "\(min(offered, 4096))", agreed, reason])
    #expect(disk.maxByteCount == max(11, Int(agreed) ?? 0) * 4096)
  }

  @Test(arguments: ["-1", "", "18446744073709551616"])
  func offerOfSegmentsThatIsNoNumberClosesTheDevice(value: String) throws {
    let disk = disk(32)
    let backend = ManyRingsBackend()
    backend.keys = [StoreEntry("feature-max-indirect-segments", value)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(try pair.scheduler.run { try pair.frontendError?.contains("feature-max-indirect-segments") == true })
    #expect(!disk.isConnected)
  }

  @Test func descriptorsArePagesOfThePoolAndAreGivenBack() throws {
    let disk = disk(32, pool: 66)
    let pair = try pair(disk, store: MemoryStore(sectorCount: 1024))
    try pair.connect()
    #expect(pair.loopback.grantCounts.sharedPages == 67)
    for round in 0..<20 as Range<UInt64> {
      // Twice 32 pages with their descriptors are all there are.
      try disk.read(sector: 0, byteCount: 32 * 4096, tag: round * 10)
      try disk.read(sector: 0, byteCount: 32 * 4096, tag: round * 10 + 1)
      #expect(throws: BlkFrontError.busy) { try disk.read(sector: 0, byteCount: 512, tag: round * 10 + 2) }
      #expect(pair.complete(disk).values.count { $0.result == .succeeded } == 2)
    }
  }

  @Test(arguments: seeds(1...6, of: BlkFrontIndirectTests.self), BlkProtocol.allCases)
  func requestsOfEveryLengthAgreeWithAModel(seed: Seed, layout: BlkProtocol) throws {
    let disk = disk(64, pool: [66, 200, 700][seed.modulo(3)], persistent: seed.modulo(2) == 0, layout)
    let pair = try pair(disk, seed: seed, store: ReorderingStore(MemoryStore(sectorCount: 4096)))
    try pair.connect()
    var random = SeededGenerator(seed)
    var model = [UInt8](repeating: 0, count: 4096 * 512)
    for round in 0..<6 {
      var expected: [UInt64: Range<Int>] = [:]
      for tag in 0..<UInt64(8) {
        let count = Int.random(in: 1...512, using: &random)
        let start = Int(tag) * 512 + Int.random(in: 0...(512 - count), using: &random)
        let range = start * 512..<(start + count) * 512
        if Bool.random(using: &random) {
          let bytes = pattern(range.count, seed: round * 100 + Int(tag))
          guard
            disk.takes({ (disk) throws(BlkFrontError) in try disk.write(sector: UInt64(start), bytes.span, tag: tag) })
          else { continue }
          model.replaceSubrange(range, with: bytes)
        } else {
          guard
            disk.takes({ (disk) throws(BlkFrontError) in
              try disk.read(sector: UInt64(start), byteCount: range.count, tag: tag)
            })
          else { continue }
          expected[tag] = range
        }
      }
      let results = pair.complete(disk)
      #expect(results.values.allSatisfy { $0.result == .succeeded })
      for (tag, range) in expected { try #require(results[tag]?.bytes == Array(model[range]), "\(range)") }
    }
  }

  @Test(arguments: [BlkIf.Operation.read, BlkIf.Operation.indirect])
  func responseMaySayTheFormOrWhatItDoes(operation: UInt8) throws {
    let disk = disk(32)
    let backend = ManyRingsBackend()
    backend.geometry = BlockGeometry(sectorCount: 4096)
    backend.keys = [StoreEntry("feature-max-indirect-segments", 32)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    try disk.read(sector: 0, byteCount: 12 * 4096, tag: 1)
    disk.push()
    let request = try backend.requests()[0][0]
    #expect(request.operation == BlkIf.Operation.indirect && request.indirect.indirectOperation == BlkIf.Operation.read)
    backend.answer(BlkIfResponse(id: request.id, operation: operation, status: 0))
    var byteCount = 0
    disk.poll { byteCount = $0.byteCount }
    #expect(byteCount == 12 * 4096)
    // A direct one is never answered as indirect.
    try disk.read(sector: 0, byteCount: 4096, tag: 2)
    disk.push()
    backend.answer(BlkIfResponse(id: try backend.requests()[0][0].id, operation: 6, status: 0))
    disk.poll { _ in Issue.record("nothing has completed") }
    #expect(!disk.isConnected)
  }

  // MARK: Persistent grants

  @Test func pagesThatWereUsedLastAreUsedFirstAndStayMapped() throws {
    let disk = disk(32)
    let pair = try pair(disk, store: MemoryStore(sectorCount: 1024))
    try pair.connect()
    #expect(try pair.rig.directory(pair.device.frontendPath).string("feature-persistent") == "1")
    for tag in 0..<20 as Range<UInt64> {
      try disk.write(sector: tag * 8, pattern(8192, seed: Int(tag)).span, tag: tag)
      #expect(pair.complete(disk)[tag]?.result == .succeeded)
    }
    #expect(pair.loopback.grantCounts.mappedPages == 3, "the ring, and the same two pages each time")
    #expect(pair.loopback.grantCounts.mapTotal == 3 && pair.loopback.grantCounts.copyTotal == 0)
  }

  @Test func whoDoesNotWantItSaysSo() throws {
    let disk = disk(32, persistent: false)
    let pair = try pair(disk, store: MemoryStore(sectorCount: 1024))
    try pair.connect()
    #expect(try pair.rig.directory(pair.device.frontendPath).string("feature-persistent") == "0")
    try disk.read(sector: 0, byteCount: 4096, tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded)
    #expect(pair.loopback.grantCounts.mappedPages == 1 && pair.loopback.grantCounts.copyTotal == 1)
    #expect(line(disk, "feature-persistent") == ["no", "yes", "off", "the frontend does not use it"])
  }

  // MARK: In place

  @Test(arguments: [512, 45_056, 45_568, 131_072])
  func payloadIsWrittenAndReadInPlace(byteCount: Int) throws {
    let disk = disk(32)
    let pair = try pair(disk, store: MemoryStore(sectorCount: 1024))
    try pair.connect()
    let written = pattern(byteCount, seed: byteCount)
    try disk.write(sector: 8, byteCount: byteCount, tag: 1) { pieces in
      #expect(pieces.byteCount == byteCount)
      pieces.copy(from: written.span)
    }
    #expect(pair.complete(disk)[1]?.result == .succeeded)
    try disk.read(sector: 8, byteCount: byteCount, tag: 2)
    disk.push()
    var read: [UInt8] = []
    #expect(
      pair.scheduler.run {
        disk.poll { completion in
          for index in 0..<completion.payload.count { read += completion.payload[index].copied() }
        }
        return !read.isEmpty
      })
    #expect(read == written)
  }

  @Test func barrierIsWrittenInPlaceAndIsADirectRequest() throws {
    let disk = disk(32)
    let store = RecordingStore(sectorCount: 1024)
    let pair = try pair(disk, store: store)
    try pair.connect()
    try disk.writeBarrier(sector: 8, byteCount: 4096, tag: 1) { $0.copy(from: pattern(4096, seed: 1).span) }
    #expect(pair.complete(disk)[1]?.result == .succeeded)
    #expect(store.record == ["writeBarrier 8"])
    #expect(throws: BlkFrontError.length(byteCount: 45_568)) {
      try disk.writeBarrier(sector: 8, byteCount: 45_568, tag: 1) { _ in Issue.record("not taken") }
    }
    #expect(disk.inFlightCount == 0)
  }

  /// A request made while a completion is handed over must not disturb what that brings.
  @Test func fillingInDisturbsNoCompletion() throws {
    let disk = disk(32)
    let pair = try pair(disk, store: MemoryStore(sectorCount: 1024))
    try pair.connect()
    let written = pattern(131_072, seed: 7)
    try disk.write(sector: 0, written.span, tag: 1)
    _ = pair.complete(disk)
    try disk.read(sector: 0, byteCount: 131_072, tag: 2)
    disk.push()
    var copies: [[UInt8]] = []
    var failure: BlkFrontError?
    #expect(
      pair.scheduler.run {
        disk.poll { completion in
          guard completion.tag == 2 else { return }
          do throws(BlkFrontError) {
            try disk.write(sector: 512, byteCount: 131_072, tag: 3) { $0.copy(from: pattern(131_072, seed: 9).span) }
          } catch { failure = error }
          copies.append(completion.copied())
        }
        disk.push()
        return disk.inFlightCount == 0
      })
    #expect(failure == nil && copies == [written])
    try disk.read(sector: 512, byteCount: 131_072, tag: 4)
    #expect(pair.complete(disk)[4]?.bytes == pattern(131_072, seed: 9))
  }

  // MARK: Discards

  private func discardPair(_ disk: BlkFrontDevice, _ geometry: BlockGeometry) throws -> (BlkPair, ManyRingsBackend) {
    let backend = ManyRingsBackend()
    backend.geometry = geometry
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    return (pair, backend)
  }

  @Test(arguments: BlkProtocol.allCases)
  func discardReachesTheStore(layout: BlkProtocol) throws {
    let disk = disk(32, layout)
    let geometry = BlockGeometry(sectorCount: 1024, discard: DiscardLimits(granularity: 4096, isSecure: true))
    let store = RecordingStore(geometry, on: MemoryStore(geometry: geometry))
    let pair = try pair(disk, store: store)
    try pair.connect()
    try disk.discard(sector: 8, sectorCount: 1000, tag: 1)
    try disk.discard(sector: 16, sectorCount: 8, isSecure: true, tag: 2)
    let results = pair.complete(disk)
    #expect(results[1]?.result == .succeeded && results[2]?.result == .succeeded)
    #expect(store.record == ["discard 8", "secureDiscard 16"])
    #expect(line(disk, "feature-discard") == ["yes", "yes", "on", ""])
    #expect(line(disk, "discard-secure") == ["yes", "yes", "on", ""])
  }

  /// Its count has 64 bits, and its slot no pages.
  @Test func largeDiscardGoesAsItIs() throws {
    let disk = disk(32)
    let sectorCount: UInt64 = 1 << 50
    let (pair, backend) = try discardPair(
      disk, BlockGeometry(sectorCount: sectorCount, discard: DiscardLimits(granularity: 512)))
    try disk.discard(sector: 1, sectorCount: sectorCount - 1, tag: 1)
    disk.push()
    let discard = try backend.requests()[0][0].discard
    #expect(discard.operation == BlkIf.Operation.discard && discard.flag == 0)
    #expect(discard.sectorNumber == 1 && discard.sectorCount == sectorCount - 1)
    backend.answer(BlkIfResponse(id: discard.id, operation: BlkIf.Operation.discard, status: BlkIf.Status.notSupported))
    #expect(pair.complete(disk)[1]?.result == .notSupported)
  }

  @Test func discardThatTheDiskCannotDoIsRefused() throws {
    let plain = disk(32)
    let (first, _) = try discardPair(plain, BlockGeometry(sectorCount: 64))
    #expect(throws: BlkFrontError.notSupported("feature-discard")) {
      try plain.discard(sector: 0, sectorCount: 8, tag: 1)
    }
    let insecure = disk(32)
    let (second, _) = try discardPair(
      insecure,
      BlockGeometry(sectorCount: 64, sectorByteCount: 4096, discard: DiscardLimits(granularity: 4096)))
    #expect(throws: BlkFrontError.notSupported("discard-secure")) {
      try insecure.discard(sector: 0, sectorCount: 8, isSecure: true, tag: 1)
    }
    for (sector, count) in [(0, 0), (0, 65), (64, 8), (4, 8), (0, 4), (8, UInt64.max)] as [(UInt64, UInt64)] {
      #expect(throws: BlkFrontError.outsideDisk(sector: sector, count: Int(clamping: count))) {
        try insecure.discard(sector: sector, sectorCount: count, tag: 1)
      }
    }
    let readOnly = disk(32)
    let (third, _) = try discardPair(
      readOnly, BlockGeometry(sectorCount: 64, isReadOnly: true, discard: DiscardLimits(granularity: 512)))
    #expect(throws: BlkFrontError.readOnlyDisk) { try readOnly.discard(sector: 0, sectorCount: 8, tag: 1) }
    withExtendedLifetime((first, second, third)) {}
  }
}
