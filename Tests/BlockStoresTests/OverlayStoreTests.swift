import BlkBack
import Glibc
import Synchronization
import SystemPackage
import TestSupport
import Testing

@testable import BlockStores

/// Copy on write, on real files.
struct OverlayStoreTests {
  private let basePattern = pattern(300 * 512, seed: 1)

  @Test func baseIsReadAndNeverWritten() throws {
    let base = try TemporaryFile(basePattern)
    let overlay = try TemporaryFile()
    let store = try OverlayStore(base: base.path, overlay: overlay.path, clusterByteCount: 4096)
    #expect(store.geometry.sectorCount == 300 && store.geometry.discard?.granularity == 4096)
    let driver = try StoreDriver(queueOf: store)
    #expect(driver.read(sector: 0, byteCount: basePattern.count) == basePattern)
    var expected = basePattern
    // Within one cluster; across several; all of some; the short one at the end.
    for (sector, count, seed) in [(3, 2, 2), (6, 30, 3), (64, 16, 4), (297, 3, 5)] {
      #expect(driver.write(pattern(count * 512, seed: seed), sector: UInt64(sector)))
      expected.replaceSubrange(sector * 512..<(sector + count) * 512, with: pattern(count * 512, seed: seed))
    }
    #expect(driver.read(sector: 0, byteCount: expected.count) == expected)
    #expect(try base.bytes() == basePattern)
    #expect(driver.perform(.flush, sector: 0))
    #expect(driver.perform(.writeBarrier, sector: 0))
  }

  /// As a guest's pages are: pieces and clusters end at different places.
  @Test(arguments: [BlkRequest.Kind.write, .writeBarrier]) func payloadOfManyPiecesCrossesClusters(
    kind: BlkRequest.Kind
  ) throws {
    let base = try TemporaryFile(basePattern)
    let overlay = try TemporaryFile()
    let driver = try StoreDriver(queueOf: OverlayStore(base: base.path, overlay: overlay.path, clusterByteCount: 4096))
    let ends = [0, 512, 3072, 3584, 8192, 9728, 17_920, 20_480]
    let places = zip(ends, ends.dropFirst()).map { $0..<$1 }
    var expected = basePattern
    // The second time some of the clusters are in the overlay.
    for (sector, seed) in [(5, 2), (21, 3)] {
      let written = pattern(20_480, seed: seed)
      driver.memory.slice(from: 0, count: written.count).copy(from: written.span)
      #expect(driver.perform(kind, sector: UInt64(sector), places))
      expected.replaceSubrange(sector * 512..<sector * 512 + 20_480, with: written)
      #expect(driver.read(sector: 0, byteCount: expected.count) == expected)
      driver.memory.slice(from: 0, count: 20_480).zero()
      #expect(driver.perform(.read, sector: UInt64(sector), places))
      #expect(driver.memory.slice(from: 0, count: 20_480).copied() == written)
    }
  }

  @Test func whatWasWrittenIsThereNextTime() throws {
    let base = try TemporaryFile(basePattern)
    let overlay = try TemporaryFile()
    do {
      let driver = try StoreDriver(queueOf: OverlayStore(base: base.path, overlay: overlay.path))
      #expect(driver.write(pattern(5120, seed: 6), sector: 100))
    }
    // Another cluster's size is for new ones.
    let driver = try StoreDriver(
      queueOf: OverlayStore(base: base.path, overlay: overlay.path, clusterByteCount: 1 << 20))
    var expected = basePattern
    expected.replaceSubrange(51_200..<56_320, with: pattern(5120, seed: 6))
    #expect(driver.read(sector: 0, byteCount: expected.count) == expected)
  }

  @Test func wholeClustersAreDiscarded() throws {
    let base = try TemporaryFile(basePattern)
    let overlay = try TemporaryFile()
    let driver = try StoreDriver(
      queueOf: OverlayStore(base: base.path, overlay: overlay.path, clusterByteCount: 4096))
    #expect(driver.write(pattern(8192, seed: 7), sector: 32))
    // Clusters 4 to 6 of sectors 30 to 57: of which 4 and 5 were written.
    #expect(driver.perform(.discard, sector: 30, sectorCount: 27))
    var expected = basePattern
    expected.replaceSubrange(32 * 512..<56 * 512, with: repeatElement(0, count: 24 * 512))
    #expect(driver.read(sector: 0, byteCount: expected.count) == expected)
    #expect(driver.write(pattern(512, seed: 8), sector: 41))
    expected.replaceSubrange(41 * 512..<42 * 512, with: pattern(512, seed: 8))
    #expect(driver.read(sector: 0, byteCount: expected.count) == expected)
    // The last cluster is short, and whole all the same.
    #expect(driver.perform(.discard, sector: 296, sectorCount: 4))
    expected.replaceSubrange(296 * 512..<300 * 512, with: repeatElement(0, count: 4 * 512))
    #expect(driver.read(sector: 0, byteCount: expected.count) == expected)
    #expect(driver.perform(.discard, sector: 1, sectorCount: 7))
    #expect(driver.read(sector: 0, byteCount: expected.count) == expected)
  }

  @Test func killedProcessLosesNothingThatItAcknowledged() async throws {
    let base = try TemporaryFile(basePattern)
    let overlay = try TemporaryFile()
    let paths = [base.path.string, overlay.path.string]
    await #expect(processExitsWith: .signal(SIGKILL)) { [paths = paths as [String]] in
      let driver = try StoreDriver(
        queueOf: OverlayStore(base: FilePath(paths[0]), overlay: FilePath(paths[1]), clusterByteCount: 4096))
      precondition(driver.write(pattern(20_480, seed: 9), sector: 50))
      precondition(driver.perform(.discard, sector: 56, sectorCount: 8))
      kill(getpid(), SIGKILL)
    }
    let driver = try StoreDriver(queueOf: OverlayStore(base: base.path, overlay: overlay.path))
    var expected = basePattern
    expected.replaceSubrange(25_600..<46_080, with: pattern(20_480, seed: 9))
    expected.replaceSubrange(56 * 512..<64 * 512, with: repeatElement(0, count: 4096))
    #expect(driver.read(sector: 0, byteCount: expected.count) == expected)
  }

  /// As images of some file systems do.
  @Test func fileThatBeginsWithZerosIsNotWrittenOver() throws {
    let base = try TemporaryFile(basePattern)
    let bytes = [UInt8](repeating: 0, count: 65_536) + pattern(65_536, seed: 12)
    let other = try TemporaryFile(bytes)
    #expect(throws: OverlayStoreError.notAnOverlay(other.path)) {
      try OverlayStore(base: base.path, overlay: other.path)
    }
    #expect(try other.bytes() == bytes)
    // One whose making was cut short is made anew.
    let unfinished = try TemporaryFile()
    try FileDescriptor.open(unfinished.path, .readWrite).closing { try $0.resize(to: 1 << 30) }
    let driver = try StoreDriver(queueOf: OverlayStore(base: base.path, overlay: unfinished.path))
    #expect(driver.read(sector: 0, byteCount: basePattern.count) == basePattern)
  }

  @Test func baseThatIsAnotherOrHasChangedIsRefused() throws {
    let base = try TemporaryFile(basePattern)
    let overlay = try TemporaryFile()
    do { _ = try OverlayStore(base: base.path, overlay: overlay.path) }
    let other = try TemporaryFile(pattern(300 * 512, seed: 10))
    #expect(throws: OverlayStoreError.otherBase(overlay.path, base: other.path)) {
      try OverlayStore(base: other.path, overlay: overlay.path)
    }
    try FileDescriptor.open(base.path, .readWrite).closing { base in
      _ = try base.writeAll(toAbsoluteOffset: 0, [1])
      // The clock that files are stamped by may stand still for long.
      #expect(unsafe futimens(base.rawValue, [timespec(tv_sec: 1, tv_nsec: 0), timespec(tv_sec: 1, tv_nsec: 0)]) == 0)
    }
    #expect(throws: OverlayStoreError.otherBase(overlay.path, base: base.path)) {
      try OverlayStore(base: base.path, overlay: overlay.path)
    }
  }

  @Test func bothFilesAreLocked() throws {
    let base = try TemporaryFile(basePattern)
    let overlay = try TemporaryFile()
    let second = try TemporaryFile()
    let store = try OverlayStore(base: base.path, overlay: overlay.path)
    #expect(throws: OverlayStoreError.file(.inUse(overlay.path))) {
      try OverlayStore(base: base.path, overlay: overlay.path, lockSeconds: 0)
    }
    var options = FileStoreOptions()
    options.lockSeconds = 0
    #expect(throws: FileStoreError.inUse(base.path)) { try FileStore(path: base.path, options: options) }
    // Many overlays of one base.
    _ = try OverlayStore(base: base.path, overlay: second.path, lockSeconds: 0)
    _ = store
  }

  /// A second time would close whatever another thread has opened meanwhile.
  @Test func fileThatIsRefusedIsClosedOnce() throws {
    let overlay = try TemporaryFile()
    let holder = try FileMedium(path: overlay.path, isBase: false, lockSeconds: 0)
    let (isOver, lostCount) = (Count(), Count())
    let other = onThread {
      while isOver.number.load(ordering: .relaxed) == 0 {
        let mine = dup(STDOUT_FILENO)
        for _ in 0..<20 { _ = fcntl(mine, F_GETFD) }
        if close(mine) != 0 { lostCount.number.wrappingAdd(1, ordering: .relaxed) }
      }
    }
    for _ in 0..<2000 {
      #expect(throws: FileStoreError.inUse(overlay.path)) {
        try FileMedium(path: overlay.path, isBase: false, lockSeconds: 0)
      }
    }
    isOver.number.store(1, ordering: .relaxed)
    other.join()
    #expect(lostCount.number.load(ordering: .relaxed) == 0)
    _ = holder
  }

  private final class Count: Sendable {
    let number = Atomic(0)
  }

  @Test func baseThatShrinksFailsWhatItLost() throws {
    let base = try TemporaryFile(basePattern)
    let overlay = try TemporaryFile()
    let driver = try StoreDriver(
      queueOf: OverlayStore(base: base.path, overlay: overlay.path, clusterByteCount: 4096))
    try FileDescriptor.open(base.path, .readWrite).closing { try $0.resize(to: 4096) }
    driver.put(.read, sector: 8, [0..<512])
    driver.put(.write, sector: 9, [0..<512])
    // Nothing of the base is needed.
    driver.put(.write, sector: 16, [0..<4096])
    #expect(driver.run())
    #expect(driver.results == [0: false, 1: false, 2: true])
    #expect(driver.failure == "the image \(base.path) has become shorter than its disk: a read at sector 8 failed")
  }

  // MARK: What is no overlay

  private static let identity = OverlayBase(byteCount: 64 * 512, changedSeconds: 12, changedNanoseconds: 34)

  private static func open(_ medium: PoweredMedium, boot: String = "boot") throws -> OverlayStore {
    try OverlayStore(
      base: PoweredMedium(pattern(64 * 512, seed: 1)), identity: identity, file: medium, boot: boot,
      clusterByteCount: 4096)
  }

  /// One with a written, a discarded and an untouched cluster.
  private static func used() throws -> [UInt8] {
    let medium = PoweredMedium()
    let driver = StoreDriver(try open(medium))
    #expect(driver.write(pattern(4096, seed: 2), sector: 8))
    #expect(driver.perform(.discard, sector: 16, sectorCount: 8) && driver.perform(.flush, sector: 0))
    return medium.bytes
  }

  @Test func damagedOverlaysAreRefusedWithASentence() throws {
    let good = try Self.used()
    func refusal(_ change: (inout [UInt8]) -> Void, boot: String = "boot") -> String {
      var bytes = good
      change(&bytes)
      do {
        _ = try Self.open(PoweredMedium(bytes), boot: boot)
        return ""
      } catch { return "\(error)" }
    }
    func header(_ change: (inout OverlayHeader) -> Void) -> String {
      refusal {
        var header = OverlayHeader(clusterShift: 12, base: Self.identity)
        change(&header)
        $0.replaceSubrange(0..<4096, with: header.bytes)
      }
    }
    let damaged = "the overlay overlay is damaged: "
    #expect(refusal { _ in } == "")
    #expect(header { _ in } == "")
    #expect(refusal { $0[0] = 0 }.hasPrefix("the file overlay is no overlay"))
    #expect(refusal { $0 = Array($0[..<100]) }.hasPrefix("the file overlay is no overlay"))
    #expect(refusal { $0 = pattern(8192, seed: 3) }.hasPrefix("the file overlay is no overlay"))
    #expect(refusal { $0[8] = 2 } == "the overlay overlay is of version 2, which this program does not know")
    for place in [12, 16, 31, 1000, 4090] {
      #expect(refusal { $0[place] ^= 0x40 } == damaged + "the checksum of its header is wrong")
    }
    for shift: UInt32 in [0, 11, 22, 31, 63, 64, .max] {
      #expect(
        header { $0.clusterShift = shift } == damaged + "its clusters would have two to the power of \(shift) bytes")
    }
    for byteCount: UInt64 in [0, 512, 65 * 512, 1 << 62, .max] {
      #expect(header { $0.base.byteCount = byteCount }.contains("was not made for"))
    }
    #expect(header { $0.base.changedSeconds = .min }.contains("was not made for"))
    #expect(header { $0.base.changedNanoseconds = .max }.contains("was not made for"))
    // Larger clusters begin further behind than the file reaches.
    #expect(header { $0.clusterShift = 21 } == damaged + "it has been cut short")
    for byteCount in [4096, 8192, 12_288, good.count - 1] {
      #expect(refusal { $0 = Array($0[..<byteCount]) } == damaged + "it has been cut short")
    }
    // The live map of this boot, the durable one of another.
    #expect(refusal { $0[8192] = 3 } == damaged + "its map has clusters of an unknown kind")
    #expect(refusal({ $0[8192] = 3 }, boot: "another") == "")
    #expect(refusal({ $0[12_288 + 1] = 0xC0 }, boot: "another") == damaged + "its map has clusters of an unknown kind")
  }

  @Test(arguments: seeds(1...4, of: OverlayStoreTests.self)) func randomDamageIsRefusedOrServed(_ seed: Seed) throws {
    let good = try Self.used()
    var random = SeededGenerator(seed)
    for _ in 0..<100 {
      var bytes = good
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        bytes[Int.random(in: 0..<16_384, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      guard let store = try? Self.open(PoweredMedium(bytes), boot: Bool.random(using: &random) ? "boot" : "x") else {
        continue
      }
      let driver = StoreDriver(store, pageCount: 8)
      #expect(driver.read(sector: 0, byteCount: 64 * 512) != nil)
      #expect(driver.write(pattern(8192, seed: 3), sector: 20))
    }
  }
}
