import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// B10: a disk whose size changes while it is connected.
struct BlkFrontResizeTests {
  private let disk = BlkFrontDevice()
  private let backend = ManyRingsBackend()

  private func pair() throws -> BlkPair {
    let pair = try BlkPair(frontend: disk, backend: backend)
    #expect(pair.scheduler.run { disk.isConnected })
    return pair
  }

  /// Writes these keys and the state, as a backend that has another size does.
  private func rewrite(_ pair: BlkPair, _ entries: [StoreEntry]) throws {
    try backend.device!.write(entries + [StoreEntry("state", XenbusState.connected.rawValue)])
    for _ in 0..<10 { pair.scheduler.round() }
  }

  @Test func largerDiskIsUsedToItsNewEnd() throws {
    let pair = try pair()
    #expect(throws: BlkFrontError.outsideDisk(sector: 64, count: 1)) {
      try disk.read(sector: 64, byteCount: 512, tag: 1)
    }
    try rewrite(pair, [StoreEntry("sectors", 128)])
    #expect(disk.geometry == BlockGeometry(sectorCount: 128))
    try disk.read(sector: 127, byteCount: 512, tag: 1)
    #expect(disk.inFlightCount == 1)
  }

  @Test func smallerDiskRefusesWhatIsNewAndAnswersWhatIsInFlight() throws {
    let pair = try pair()
    try disk.read(sector: 63, byteCount: 512, tag: 1)
    disk.push()
    let request = try backend.requests()[0][0]
    try rewrite(pair, [StoreEntry("sectors", 32)])
    #expect(disk.geometry?.sectorCount == 32 && disk.inFlightCount == 1)
    #expect(throws: BlkFrontError.outsideDisk(sector: 63, count: 1)) {
      try disk.read(sector: 63, byteCount: 512, tag: 2)
    }
    backend.answer(BlkIfResponse(id: request.id, operation: request.operation, status: BlkIf.Status.error))
    #expect(pair.complete(disk)[1]?.result == .failed)
  }

  @Test(arguments: [
    StoreEntry("sectors", "many"), StoreEntry("sectors", "-1"), StoreEntry("sectors", "18446744073709551615"),
    StoreEntry("sectors", ""), StoreEntry("sector-size", 0), StoreEntry("sector-size", 4096),
    StoreEntry("physical-sector-size", 7), StoreEntry("info", "x"), StoreEntry(absent: "sectors"),
  ])
  func nonsenseIsRefusedAndTheOldSizeStays(entry: StoreEntry) throws {
    let pair = try pair()
    try rewrite(pair, [entry])
    #expect(disk.isConnected && disk.geometry == BlockGeometry(sectorCount: 64))
    #expect(try pair.frontendError?.contains(entry.key) == true)
    #expect(try pair.frontendState == .connected)
    try disk.read(sector: 63, byteCount: 512, tag: 1)
    disk.push()
    let request = try backend.requests()[0][0]
    backend.answer(BlkIfResponse(id: request.id, operation: request.operation, status: 0))
    #expect(pair.complete(disk)[1]?.result == .succeeded)
    // And what makes sense again is taken.
    try rewrite(pair, BlockGeometry(sectorCount: 96).entries)
    #expect(disk.geometry?.sectorCount == 96)
  }

  /// Sense by itself, but not for a disk that is in use.
  @Test func otherSectorsAreRefusedAndTheOldSizeStays() throws {
    let pair = try pair()
    try rewrite(pair, BlockGeometry(sectorCount: 128, sectorByteCount: 4096).entries)
    #expect(disk.isConnected && disk.geometry == BlockGeometry(sectorCount: 64))
    #expect(try pair.frontendError == "22 the backend has changed sector-size from 512 to 4096 while connected")
  }

  /// Our own backend, told by its store.
  @Test func bothEndsFollowAStoreThatGrows() throws {
    let disk = BlkFrontDevice()
    let store = GrowingStore(sectorCount: 64)
    let pair = try BlkPair(frontend: disk, backend: store.driver)
    try pair.connect()
    store.grow(to: 256)
    #expect(pair.scheduler.run { disk.geometry?.sectorCount == 256 })
    try disk.write(sector: 255, pattern(512, seed: 1).span, tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded)
  }

  @Test func asyncDiskShowsItsNewSize() async throws {
    let rig = try Rig()
    let device = try rig.toolstack.addVbd(to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: "test")
    let store = GrowingStore(sectorCount: 64)
    let backend = try BusThread(on: rig.driverDomain, log: .silent) { (bus) throws(XenstoreError) in
      try bus.register(store.driver)
      return nil
    }
    let disk = try await BlkFrontDisk.connect(to: device.frontendPath, on: rig.guest, log: .silent)
    #expect(disk.geometry.sectorCount == 64)
    store.grow(to: 256)
    for _ in 0..<5000 where disk.geometry.sectorCount != 256 { try await Task.sleep(for: .milliseconds(1)) }
    try await disk.write(sector: 255, pattern(512, seed: 1))
    await disk.close()
    backend.end(within: 0)
    backend.join()
  }
}
