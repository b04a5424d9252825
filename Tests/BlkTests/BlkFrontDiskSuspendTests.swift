import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// X9: a disk of async programs whose domain is suspended and resumed.
// For what hangs: many times what all tests together take, since a test waits for its turn among them.
@Suite(.timeLimit(.minutes(80)))
struct BlkFrontDiskSuspendTests {
  @Test func callsUnderWayEndAfterTheSuspension() async throws {
    let rig = try Rig()
    let device = try rig.toolstack.addVbd(to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: "test")
    let store = HoldingStore(MemoryStore(sectorCount: 1 << 12))
    let backend = try BusThread(on: rig.driverDomain, log: .silent) { (bus) throws(XenstoreError) in
      try bus.register(BlkBackDriver { _ in store })
      return nil
    }
    defer { backend.end(within: 5) }
    let disk = try await BlkFrontDisk.connect(to: device.frontendPath, on: rig.guest, log: .silent)
    for round in 0..<5 {
      try await withThrowingTaskGroup { group in
        for number in 0..<60 {
          group.addTask {
            try await disk.write(sector: UInt64(number) * 32, pattern(16_384, seed: round * 100 + number))
          }
        }
        if round == 0 {
          for _ in 0..<100_000 where store.heldCount < 32 { try await Task.sleep(for: .milliseconds(1)) }
          #expect(store.heldCount == 32)
        }
        await disk.suspend()
        rig.guest.suspendAndResume()
        try rig.toolstack.remove(device)
        _ = try rig.toolstack.addVbd(to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: "moved")
        disk.resume()
        store.letGo()
        // No call fails: what was in flight is put again.
        try await group.waitForAll()
      }
      for number in 0..<60 {
        #expect(
          try await disk.read(sector: UInt64(number) * 32, byteCount: 16_384)
            == pattern(16_384, seed: round * 100 + number))
      }
    }
    await disk.close()
    #expect(rig.loopback.grantCounts.sharedPages == 0)
  }
}
