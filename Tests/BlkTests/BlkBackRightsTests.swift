import BlkBack
import TestSupport
import Testing
import XenLoopback

/// B6: a frontend that changes what it has granted, under the references that its requests name again and again.
struct BlkBackRightsTests {
  private static let second: UInt64 = 1_000_000_000

  private func disk(_ memory: ModelDisk, isPersistent: Bool = true) throws -> HandPolledDisk {
    try HandPolledDisk(RawBlkFrontend(isPersistent: isPersistent), BlkBackOptions()) { _ in memory }
  }

  /// The answers to a read into page 3 and a write from it, each between two others.
  private func statuses(_ disk: HandPolledDisk, at seconds: UInt64) throws -> [UInt64: Int16] {
    let frontend = disk.frontend
    frontend.put(frontend.direct(BlkIf.Operation.read, sector: 8, [(1, 0, 7)], id: 10))
    frontend.put(frontend.direct(BlkIf.Operation.read, sector: 8, [(3, 0, 7)], id: 1))
    frontend.put(frontend.direct(BlkIf.Operation.write, sector: 16, [(3, 0, 7)], id: 2))
    frontend.put(frontend.direct(BlkIf.Operation.read, sector: 8, [(2, 0, 7)], id: 11))
    frontend.push()
    disk.poll(at: seconds * Self.second)
    let answers = try frontend.responses()
    #expect(answers.count == 4)
    return Dictionary(uniqueKeysWithValues: answers.map { ($0.id, $0.status) })
  }

  private static let allSucceed: [UInt64: Int16] = [10: 0, 1: 0, 2: 0, 11: 0]

  /// A mapping outlives the rights that it was made with, as on Xen: nothing faults, and what is written goes to the same page.
  /// When it has ended, the rights count that there are.
  @Test func pageThatBecomesReadOnlyIsUsedAsLongAsItIsMapped() throws {
    let memory = ModelDisk(sectorCount: 64)
    let disk = try disk(memory)
    #expect(try statuses(disk, at: 1) == Self.allSucceed)
    #expect(disk.mappedCount == 3)
    disk.rig.guest.setWritable(false, disk.frontend.references[3])
    disk.frontend.bytes(page: 3, sector: 0, count: 4096).copy(from: pattern(4096, seed: 4).span)
    disk.frontend.put(disk.frontend.direct(BlkIf.Operation.write, sector: 24, [(3, 0, 7)], id: 5))
    disk.frontend.push()
    disk.poll(at: 2 * Self.second)
    #expect(try disk.frontend.responses().map(\.status) == [0])
    #expect(memory.bytes(sector: 24, sectorCount: 8) == pattern(4096, seed: 4))
    #expect(try statuses(disk, at: 3) == Self.allSucceed)
    // Nobody uses them for a minute.
    for seconds in UInt64(4)..<140 { disk.poll(at: seconds * Self.second) }
    #expect(disk.mappedCount == 0)
    let refused: [UInt64: Int16] = [10: 0, 1: BlkIf.Status.error, 2: BlkIf.Status.error, 11: 0]
    #expect(try statuses(disk, at: 141) == refused)
    #expect(disk.mappedCount == 2, "nothing of what was refused is kept")
    disk.rig.guest.setWritable(true, disk.frontend.references[3])
    #expect(try statuses(disk, at: 142) == Self.allSucceed)
    #expect(disk.mappedCount == 3)
  }

  /// Where pages are copied, each copy asks for what it needs: a write to the disk only reads the page.
  @Test func copiedPageIsJudgedEachTime() throws {
    let disk = try disk(ModelDisk(sectorCount: 64), isPersistent: false)
    #expect(try statuses(disk, at: 1) == Self.allSucceed)
    disk.rig.guest.setWritable(false, disk.frontend.references[3])
    #expect(try statuses(disk, at: 2) == [10: 0, 1: BlkIf.Status.error, 2: 0, 11: 0])
    disk.rig.guest.setWritable(true, disk.frontend.references[3])
    #expect(try statuses(disk, at: 3) == Self.allSucceed)
    #expect(disk.mappedCount == 0)
  }

  /// A page of descriptors is as any other.
  @Test func descriptorPageThatBecomesReadOnlyIsUsedAsLongAsItIsMapped() throws {
    let disk = try disk(ModelDisk(sectorCount: 64))
    let frontend = disk.frontend
    let segments: [RawSegment] = [(4, 0, 7), (5, 0, 7)]
    func status(_ id: UInt64, at seconds: UInt64) throws -> [Int16] {
      frontend.put(frontend.indirect(BlkIf.Operation.read, segments, in: 0, id: id))
      frontend.push()
      disk.poll(at: seconds * Self.second)
      return try frontend.responses().map(\.status)
    }
    #expect(try status(1, at: 1) == [0])
    disk.rig.guest.setWritable(false, frontend.references[0])
    #expect(try status(2, at: 2) == [0])
    for seconds in UInt64(3)..<140 { disk.poll(at: seconds * Self.second) }
    #expect(try status(3, at: 141) == [BlkIf.Status.error])
    disk.rig.guest.setWritable(true, frontend.references[0])
    #expect(try status(4, at: 142) == [0])
  }
}
