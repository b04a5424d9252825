import BlkBack
import SystemPackage
import TestSupport
import Testing

@testable import BlockStores

/// An overlay whose process is killed, and whose power is cut, at any moment of a random workload.
struct OverlayCrashTests {
  /// What a sector may hold: numbers of writes, zero for what was discarded.
  private struct Sector {
    /// What was last acknowledged and, once a request has met the end, what that one would have left.
    var afterKill: Set<UInt32>
    /// As the last flush left it, and all that came since.
    var afterCut: Set<UInt32>
  }

  private static let sectorCount = 72
  private static let clusterSectorCount = 8

  private static func bytes(_ number: UInt32) -> [UInt8] {
    let low = UInt8(truncatingIfNeeded: number)
    return [low, UInt8(truncatingIfNeeded: number >> 8)] + [UInt8](repeating: low, count: 509)
      + [UInt8(truncatingIfNeeded: number >> 8)]
  }

  /// The number, below 65536, that a sector was filled with; nil when it is torn.
  private static func number(_ bytes: ArraySlice<UInt8>) -> UInt32? {
    let number = UInt32(bytes.first!) | UInt32(bytes.last!) << 8
    return Array(bytes) == Self.bytes(number) ? number : nil
  }

  @Test(arguments: seeds(1...12, of: OverlayCrashTests.self)) func crashesLoseNothingThatTheyMustNot(
    _ seed: Seed
  ) throws {
    var random = SeededGenerator(seed)
    // Writes of the base have the numbers from 1 on.
    let base = PoweredMedium((1...Self.sectorCount).flatMap { Self.bytes(UInt32($0)) })
    let identity = OverlayBase(byteCount: UInt64(Self.sectorCount * 512), changedSeconds: 1, changedNanoseconds: 2)
    var sectors = (1...Self.sectorCount).map { Sector(afterKill: [UInt32($0)], afterCut: [UInt32($0)]) }
    var (medium, boot, wasCut, lastNumber) = (PoweredMedium(), 1, false, UInt32(Self.sectorCount))
    var openedCount = 0
    for round in 0..<40 {
      // It may die while it is being opened, too.
      medium.die(after: Int.random(in: 0..<4, using: &random) == 0 ? Int.random(in: 0..<8, using: &random) : 1000)
      var store: OverlayStore?
      do {
        store = try OverlayStore(
          base: base, identity: identity, file: medium, boot: "boot \(boot)", clusterByteCount: 4096)
      } catch { try #require(medium.isDead, "round \(round), cut: \(wasCut), cannot be opened: \(error)") }
      if let store {
        openedCount += 1
        medium.die(after: 1000)
        let driver = StoreDriver(store, pageCount: (Self.sectorCount + 7) / 8)
        let whole = try #require(driver.read(sector: 0, byteCount: Self.sectorCount * 512))
        for index in 0..<Self.sectorCount {
          let number = try #require(Self.number(whole[index * 512..<(index + 1) * 512]), "sector \(index) is torn")
          let allowed = wasCut ? sectors[index].afterCut : sectors[index].afterKill
          try #require(allowed.contains(number), "round \(round), sector \(index), cut: \(wasCut)")
          sectors[index].afterKill = [number]
          if wasCut { sectors[index].afterCut = [number] }
        }
        medium.die(after: Int.random(in: 10..<150, using: &random))
        work(driver, on: medium, &sectors, &lastNumber, &random)
        wasCut = false
      }
      if Bool.random(using: &random) {
        medium = medium.killed()
      } else {
        medium = medium.cut { Bool.random(using: &random) }
        (boot, wasCut) = (boot + 1, true)
      }
    }
    // Three of four do not die while they are opened.
    #expect(openedCount > 20)
  }

  /// Until something fails, or for a while.
  private func work(
    _ driver: StoreDriver, on medium: PoweredMedium, _ sectors: inout [Sector], _ lastNumber: inout UInt32,
    _ random: inout SeededGenerator
  ) {
    for _ in 0..<Int.random(in: 1..<40, using: &random) {
      let first = Int.random(in: 0..<Self.sectorCount, using: &random)
      let count = Int.random(in: 1...min(20, Self.sectorCount - first), using: &random)
      let kind = Int.random(in: 0..<10, using: &random)
      var (touched, number, succeeded) = (first..<first + count, UInt32(0), false)
      switch kind {
      case 0..<6:
        lastNumber += 1
        number = lastNumber
        for index in touched { sectors[index].afterCut.insert(number) }
        succeeded = driver.write((0..<count).flatMap { _ in Self.bytes(number) }, sector: UInt64(first))
      case 6..<8:
        // Whole clusters.
        let start = (first + 7) / 8 * 8
        touched = start..<max(start, (first + count) / 8 * 8)
        for index in touched { sectors[index].afterCut.insert(0) }
        succeeded = driver.perform(.discard, sector: UInt64(first), sectorCount: UInt64(count))
      default:
        // Within the flush, when nothing else has ended it.
        if Int.random(in: 0..<4, using: &random) == 0 { medium.die(after: Int.random(in: 0..<4, using: &random)) }
        guard driver.perform(.flush, sector: 0) else { return }
        for index in sectors.indices { sectors[index].afterCut = sectors[index].afterKill }
        continue
      }
      for index in touched {
        if succeeded { sectors[index].afterKill = [number] } else { sectors[index].afterKill.insert(number) }
      }
      if !succeeded { return }
    }
  }

  @Test func flushThatFailsIsTheLastOfAll() throws {
    let medium = PoweredMedium()
    let store = try OverlayStore(
      base: PoweredMedium([UInt8](repeating: 1, count: 32_768)),
      identity: OverlayBase(byteCount: 32_768, changedSeconds: 0, changedNanoseconds: 0), file: medium, boot: "boot",
      clusterByteCount: 4096)
    let driver = StoreDriver(store)
    #expect(driver.write(pattern(512, seed: 1), sector: 0) && driver.perform(.flush, sector: 0))
    medium.failNextFlush()
    #expect(driver.write(pattern(512, seed: 2), sector: 0) && !driver.perform(.flush, sector: 0))
    driver.put(.flush, sector: 0)
    driver.put(.writeBarrier, sector: 1, [0..<512])
    driver.put(.read, sector: 0, [0..<512])
    #expect(driver.run() && driver.results == [0: false, 1: false, 2: true])
    #expect(
      driver.failure
        == "the image overlay has lost writes, so no flush of it can succeed any more: a flush at sector 0 failed")
  }

  /// Twice the medium, for a flush that has something new to say, and once for one that has not.
  @Test func flushWritesTheMapAfterTheData() throws {
    let medium = PoweredMedium()
    let store = try OverlayStore(
      base: PoweredMedium([UInt8](repeating: 1, count: 32_768)),
      identity: OverlayBase(byteCount: 32_768, changedSeconds: 0, changedNanoseconds: 0), file: medium, boot: "boot",
      clusterByteCount: 4096)
    let driver = StoreDriver(store)
    let former = medium.flushCount
    #expect(driver.write(pattern(512, seed: 1), sector: 0) && driver.perform(.flush, sector: 0))
    #expect(medium.flushCount == former + 2)
    #expect(driver.write(pattern(512, seed: 1), sector: 0) && driver.perform(.flush, sector: 0))
    #expect(medium.flushCount == former + 3)
  }
}
