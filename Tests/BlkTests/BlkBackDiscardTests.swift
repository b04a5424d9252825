import BlkBack
import TestSupport
import Testing
import XenLoopback

/// B4: what is offered, what the toolstack has to say about it, and what is done.
struct BlkBackDiscardTests {
  private func keys(_ pair: BlkPair) throws -> [String: String] {
    let own = pair.rig.directory(pair.device.backendPath)
    var keys: [String: String] = [:]
    for key in ["feature-discard", "discard-granularity", "discard-alignment", "discard-secure"] {
      keys[key] = try own.optionalString(key)
    }
    return keys
  }

  private func discard(_ sector: UInt64, _ count: UInt64, flag: UInt8 = 0, id: UInt64 = 1) -> BlkIfRequest {
    BlkIfRequest(BlkIfDiscardRequest(flag: flag, id: id, sectorNumber: sector, sectorCount: count))
  }

  @Test(arguments: BlkProtocol.allCases)
  func sectorsAreDiscardedAndOthersAreNot(layout: BlkProtocol) throws {
    let frontend = RawBlkFrontend(layout: layout)
    let disk = ModelDisk(
      BlockGeometry(sectorCount: 64, discard: DiscardLimits(granularity: 8192, alignment: 512, isSecure: true)))
    let pair = try BlkPair(options: BlkBackOptions(), frontend: frontend) { _ in disk }
    try pair.connect()
    #expect(
      try keys(pair) == [
        "feature-discard": "1", "discard-granularity": "8192", "discard-alignment": "512", "discard-secure": "1",
      ])
    let written = pattern(11 * 4096, seed: 1)
    for page in 0..<11 {
      frontend.bytes(page: page, sector: 0, count: 4096).copy(
        from: written.span.extracting(page * 4096..<page * 4096 + 4096))
    }
    frontend.put(frontend.direct(BlkIf.Operation.write, (0..<8).map { (page: $0, first: 0, last: 7) }))
    #expect(try pair.statuses(frontend, 1) == [1: 0])
    // Neither has to keep to the granularity.
    frontend.put(discard(3, 5, id: 2))
    frontend.put(discard(20, 1, flag: BlkIf.discardSecure, id: 3))
    #expect(try pair.statuses(frontend, 2) == [2: 0, 3: 0])
    var expected = Array(written[..<(64 * 512)])
    for sector in [3, 4, 5, 6, 7, 20] {
      expected.replaceSubrange(sector * 512..<sector * 512 + 512, with: [UInt8](repeating: 0, count: 512))
    }
    #expect(disk.bytes(sector: 0, sectorCount: 64) == expected)
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.backBus.isEmpty })
    #expect(pair.closed.list.map(\.discardRequests) == [2])
  }

  /// Of any size: what has to be split is the store's to split.
  @Test func diskIsDiscardedWhole() throws {
    let frontend = RawBlkFrontend()
    let store = RecordingStore(
      BlockGeometry(sectorCount: 1 << 40, discard: DiscardLimits(granularity: 4096)))
    let pair = try BlkPair(options: BlkBackOptions(), frontend: frontend) { _ in store }
    try pair.connect()
    frontend.put(discard(0, 1 << 40))
    frontend.put(discard((1 << 40) - 1, 1, id: 2))
    #expect(try pair.statuses(frontend, 2) == [1: 0, 2: 0])
    #expect(store.record == ["discard 0", "discard \((1 << 40) - 1)"])
    #expect(store.sectorCounts == [1 << 40, 1])
  }

  private enum Objection: CaseIterable { case toolstack, options, readOnly }

  @Test func whoeverObjectsIsHeard() throws {
    for objection in Objection.allCases {
      var options = BlkBackOptions()
      options.offersDiscard = objection != .options
      let frontend = RawBlkFrontend()
      let disk = ModelDisk(sectorCount: 64)
      let pair = try BlkPair(isReadOnly: objection == .readOnly, options: options, frontend: frontend) { _ in disk }
      if objection == .toolstack {
        try pair.rig.directory(pair.device.backendPath).write([StoreEntry("discard-enable", "0")])
      }
      try pair.connect()
      #expect(try keys(pair) == ["feature-discard": "0"])
      let reason =
        switch objection {
        case .toolstack: "the toolstack forbids it (discard-enable)"
        case .options: "the backend does not offer it"
        case .readOnly: "the disk is read-only"
        }
      for feature in ["feature-discard", "discard-secure"] {
        #expect(pair.backNegotiation.lines.first { $0.feature == feature }?.reason == reason)
      }
      frontend.put(discard(0, 8))
      #expect(try pair.statuses(frontend, 1) == [1: BlkIf.Status.notSupported])
    }
  }

  @Test func toolstackMayAgreeInSoManyWords() throws {
    let frontend = RawBlkFrontend()
    let pair = try BlkPair(options: BlkBackOptions(), frontend: frontend) { _ in ModelDisk(sectorCount: 64) }
    try pair.rig.directory(pair.device.backendPath).write([StoreEntry("discard-enable", "1")])
    try pair.connect()
    frontend.put(discard(0, 8))
    #expect(try pair.statuses(frontend, 1) == [1: 0])
  }

  @Test func discardWaitsForABarrierBeforeIt() throws {
    let frontend = RawBlkFrontend()
    let store = RecordingStore(
      BlockGeometry(sectorCount: 64, discard: DiscardLimits(granularity: 512)), on: MemoryStore(sectorCount: 64))
    let pair = try BlkPair(options: BlkBackOptions(), frontend: frontend) { _ in ReorderingStore(store) }
    try pair.connect()
    frontend.put(frontend.direct(BlkIf.Operation.write, sector: 8, [(0, 0, 7)], id: 1))
    frontend.put(frontend.direct(BlkIf.Operation.writeBarrier, sector: 0, [(0, 0, 7)], id: 2))
    frontend.put(discard(0, 8, id: 3))
    #expect(try pair.statuses(frontend, 3) == [1: 0, 2: 0, 3: 0])
    #expect(store.record == ["write 8", "writeBarrier 0", "discard 0"])
  }
}
