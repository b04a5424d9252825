import BlkBack
import BlockStores
import SystemPackage
import TestSupport
import Testing
import XenLoopback

/// B11: who may only read changes nothing, whatever lies beneath and whoever says so.
struct BlkReadOnlyTests {
  enum Disk: CaseIterable { case memory, file, overlay, memoryByMode }

  /// Every operation that would change something, of every kind of request.
  private func writes(_ frontend: RawBlkFrontend) -> [BlkIfRequest] {
    [
      frontend.direct(BlkIf.Operation.write, [(1, 0, 7)], id: 1),
      frontend.direct(BlkIf.Operation.writeBarrier, [(1, 0, 7)], id: 2),
      frontend.indirect(BlkIf.Operation.write, [(1, 0, 7), (2, 0, 7)], in: 0, id: 3),
    ]
  }

  @Test(arguments: Disk.allCases) func nothingIsWritten(disk: Disk) throws {
    let content = pattern(64 * 512, seed: 9)
    let base = try TemporaryFile(content)
    let overlay = try TemporaryFile([])
    let geometry = BlockGeometry(sectorCount: 64, isReadOnly: true)
    let store: any BlockStore =
      switch disk {
      case .memory: MemoryStore(geometry: geometry)
      case .memoryByMode: MemoryStore(sectorCount: 64)
      case .file: try FileStore(path: base.path, isReadOnly: true, options: .atOnce)
      case .overlay: try OverlayStore(base: base.path, overlay: overlay.path)
      }
    let frontend = RawBlkFrontend()
    let isByMode = disk == .memoryByMode || disk == .overlay
    let pair = try BlkPair(isReadOnly: isByMode, frontend: frontend, store: store)
    try pair.connect()
    let keys = pair.rig.directory(pair.device.backendPath)
    // VDISK_READONLY.
    #expect(try keys.optionalNumber("info", as: Int.self) == 4)
    #expect(try keys.optionalString("mode") == (isByMode ? "r" : "w"))
    #expect(try keys.flag("feature-discard") == false)
    frontend.bytes(page: 1, sector: 0, count: 8192).copy(from: pattern(8192, seed: 1).span)
    for request in writes(frontend) { frontend.put(request) }
    let discard = BlkIfDiscardRequest(id: 4, sectorNumber: 0, sectorCount: 8)
    frontend.put(BlkIfRequest(discard))
    frontend.put(frontend.direct(BlkIf.Operation.read, [(5, 0, 7)], id: 5))
    #expect(
      try pair.statuses(frontend, 5) == [
        1: BlkIf.Status.error, 2: BlkIf.Status.error, 3: BlkIf.Status.error, 4: BlkIf.Status.notSupported, 5: 0,
      ])
    let isInMemory = disk == .memory || disk == .memoryByMode
    let expected = isInMemory ? [UInt8](repeating: 0, count: 4096) : Array(content[..<4096])
    #expect(frontend.bytes(page: 5, sector: 0, count: 4096).copied() == expected)
    #expect(try base.bytes() == content)
  }
}
