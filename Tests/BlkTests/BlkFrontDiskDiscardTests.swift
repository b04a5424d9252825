import BlkBack
import BlkFront
import TestSupport
import Testing

/// Discards of async programs.
struct BlkFrontDiskDiscardTests {
  @Test(arguments: [false, true]) func discardedSectorsReadAsZeros(isSecure: Bool) async throws {
    let rig = try Rig()
    let device = try rig.toolstack.addVbd(to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: "test")
    let store = RecordingStore(MemoryStore(sectorCount: 64))
    let backend = try BusThread(on: rig.driverDomain, log: .silent) { (bus) throws(XenstoreError) in
      try bus.register(BlkBackDriver { _ in store })
      return nil
    }
    let disk = try await BlkFrontDisk.connect(to: device.frontendPath, on: rig.guest, log: .silent)
    try await disk.write(sector: 0, pattern(4096, seed: 1))
    if isSecure {
      try await disk.discard(sector: 2, sectorCount: 3, isSecure: true)
    } else {
      try await disk.discard(sector: 2, sectorCount: 3)
    }
    #expect(store.record.last == (isSecure ? "secureDiscard 2" : "discard 2"))
    let bytes = try await disk.read(sector: 0, byteCount: 4096)
    let written = pattern(4096, seed: 1)
    #expect(bytes == written[..<1024] + [UInt8](repeating: 0, count: 1536) + written[2560...])
    await #expect(throws: BlkFrontError.outsideDisk(sector: 63, count: 2)) {
      try await disk.discard(sector: 63, sectorCount: 2, isSecure: isSecure)
    }
    await disk.close()
    backend.end(within: 0)
    backend.join()
  }
}
