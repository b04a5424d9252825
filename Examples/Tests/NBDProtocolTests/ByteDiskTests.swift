import NBDProtocol
import Synchronization
import Testing

/// A disk in memory that refuses part sectors, and lets everybody else go first before each access takes effect.
private final class YieldingDisk: SectorDisk {
  let sectorByteCount = 512
  private let bytes: Mutex<[UInt8]>
  /// In the order in which they took effect.
  let log = Mutex<[String]>([])
  let afterFirstRead = Mutex<(@Sendable () async -> Void)?>(nil)

  init(_ bytes: [UInt8]) { self.bytes = Mutex(bytes) }

  var contents: [UInt8] { bytes.withLock(\.self) }

  func read(at offset: UInt64, byteCount: Int) async throws -> [UInt8] {
    let range = try await range(offset, byteCount)
    log.withLock { $0.append("read \(range)") }
    let result = bytes.withLock { Array($0[range]) }
    await afterFirstRead.withLock { $0.take() }?()
    return result
  }

  func write(at offset: UInt64, _ new: [UInt8]) async throws {
    let range = try await range(offset, new.count)
    log.withLock { $0.append("write \(range)") }
    bytes.withLock { $0.replaceSubrange(range, with: new) }
  }

  func flush() async throws { log.withLock { $0.append("flush") } }

  private func range(_ offset: UInt64, _ byteCount: Int) async throws -> Range<Int> {
    try #require(offset % 512 == 0 && byteCount % 512 == 0 && byteCount > 0)
    for _ in 0..<3 { await Task.yield() }
    return Int(offset)..<Int(offset) + byteCount
  }
}

struct ByteDiskTests {
  private let before = (0..<4096).map { UInt8(truncatingIfNeeded: $0 &* 7 ^ $0 >> 8) }
  private let disk: YieldingDisk
  private let bytes: ByteDisk<YieldingDisk>

  init() {
    disk = YieldingDisk(before)
    bytes = ByteDisk(disk)
  }

  private static let places = [
    (0, 1), (1, 1), (511, 1), (511, 2), (5, 507), (100, 3000), (512, 513), (1023, 513), (4095, 1),
  ]

  @Test(arguments: places) func readOfAnyRangeIsThatRange(offset: Int, count: Int) async throws {
    #expect(try await bytes.read(at: UInt64(offset), byteCount: count) == Array(before[offset..<offset + count]))
  }

  @Test(arguments: places) func writeOfAnyRangeChangesNothingBesideIt(offset: Int, count: Int) async throws {
    let new = [UInt8](repeating: 0xEE, count: count)
    try await bytes.write(at: UInt64(offset), new, isDurable: false)
    var expected = before
    expected.replaceSubrange(offset..<offset + count, with: new)
    #expect(disk.contents == expected)
  }

  @Test func wholeSectorsAreWrittenWithoutBeingRead() async throws {
    try await bytes.write(at: 512, [UInt8](repeating: 1, count: 1024), isDurable: false)
    #expect(disk.log.withLock(\.self) == ["write 512..<1536"])
  }

  @Test func durableWriteReturnsAfterAFlush() async throws {
    try await bytes.write(at: 512, [UInt8](repeating: 1, count: 512), isDurable: true)
    #expect(disk.log.withLock(\.self) == ["write 512..<1024", "flush"])
  }

  @Test func manyWritersOfOneSectorLoseNothing() async throws {
    await withTaskGroup(of: Void.self) { group in
      for offset in 500..<1100 {
        group.addTask { try? await bytes.write(at: UInt64(offset), [UInt8(offset % 251)], isDurable: false) }
      }
    }
    var expected = before
    for offset in 500..<1100 { expected[offset] = UInt8(offset % 251) }
    #expect(disk.contents == expected)
  }

  /// It comes between the reading of the sector and the writing back, and has to wait.
  @Test func wholeSectorWrittenMeanwhileIsNotUndone() async throws {
    let whole = [UInt8](repeating: 0x11, count: 512)
    let (written, done) = AsyncStream.makeStream(of: Void.self)
    disk.afterFirstRead.withLock {
      $0 = { [bytes] in
        Task {
          try? await bytes.write(at: 512, whole, isDurable: false)
          done.finish()
        }
        // Long enough for a write that does not wait.
        for _ in 0..<100 { await Task.yield() }
      }
    }
    try await bytes.write(at: 515, [0x22, 0x22], isDurable: false)
    for await _ in written {}
    #expect(Array(disk.contents[512..<1024]) == whole)
  }

  @Test func writesToOtherSectorsDoNotWait() async throws {
    let (started, go) = AsyncStream.makeStream(of: Void.self)
    let (reached, atGate) = AsyncStream.makeStream(of: Void.self)
    let slow = ByteDisk(GatedDisk(gate: started, atGate: atGate))
    async let held: Void = slow.write(at: 1, [1], isDurable: false)
    for await _ in reached { break }
    try await slow.write(at: 512, [UInt8](repeating: 2, count: 512), isDurable: false)
    go.finish()
    try await held
  }
}

/// A disk whose first sector is not to be had before its gate opens.
private struct GatedDisk: SectorDisk {
  let sectorByteCount = 512
  let gate: AsyncStream<Void>
  let atGate: AsyncStream<Void>.Continuation

  func read(at offset: UInt64, byteCount: Int) async throws -> [UInt8] {
    if offset == 0 {
      atGate.yield()
      for await _ in gate {}
    }
    return [UInt8](repeating: 0, count: byteCount)
  }

  func write(at offset: UInt64, _ bytes: [UInt8]) async throws {}
  func flush() async throws {}
}
