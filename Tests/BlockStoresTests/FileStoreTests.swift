import BlkBack
import Glibc
import Synchronization
import SystemPackage
import TestSupport
import Testing

@testable import BlockStores

/// Each way in which a file's bytes are moved.
enum FileWay: String, CaseIterable, CustomTestStringConvertible {
  case ringDirect, ringCached, callsDirect, callsCached

  var options: FileStoreOptions {
    var options = FileStoreOptions(direct: self == .ringDirect || self == .callsDirect ? .automatic : .off)
    options.usesIOUring = self == .ringDirect || self == .ringCached
    options.lockSeconds = 60
    return options
  }

  /// Whatever file system the file is on.
  func driver(_ store: FileStore, pageCount: Int = 512) throws -> StoreDriver {
    StoreDriver(options.usesIOUring ? try store.makeRing() : store, pageCount: pageCount)
  }

  func driver(_ file: TemporaryFile, pageCount: Int = 512) throws -> StoreDriver {
    try driver(FileStore(path: file.path, options: options), pageCount: pageCount)
  }

  var testDescription: String { rawValue }
}

/// Images in files, through io_uring and through system calls, past the page cache and not.
struct FileStoreTests {
  @Test(arguments: FileWay.allCases) func writesAreReadAgainAndLieWhereTheyBelong(_ way: FileWay) throws {
    let file = try TemporaryFile(byteCount: 1 << 20)
    let store = try FileStore(path: file.path, options: way.options)
    #expect(store.fallbackReason == nil && store.geometry.sectorCount == 2048)
    let driver = try way.driver(store)
    let bytes = pattern(40_960, seed: 3)
    #expect(driver.write(bytes, sector: 100))
    #expect(driver.read(sector: 100, byteCount: bytes.count) == bytes)
    #expect(driver.perform(.flush, sector: 0))
    #expect(try file.bytes(51_200..<51_200 + bytes.count) == bytes)
    #expect(try file.bytes(0..<51_200).allSatisfy { $0 == 0 })
  }

  @Test(arguments: FileWay.allCases) func piecesGoToTheirPlacesAndNowhereElse(_ way: FileWay) throws {
    let content = pattern(1 << 20, seed: 4)
    let file = try TemporaryFile(content)
    let driver = try way.driver(file)
    driver.memory.copy(from: [UInt8](repeating: 0xEE, count: driver.memory.count).span)
    // As segments lie: any sectors of any pages.
    let places = [4096..<8192, 512..<1024, 12_800..<13_312, 16_384..<20_480, 9216..<9728]
    #expect(driver.perform(.read, sector: 7, places))
    var expected = [UInt8](repeating: 0xEE, count: driver.memory.count)
    var offset = 7 * 512
    for place in places {
      expected.replaceSubrange(place, with: content[offset..<offset + place.count])
      offset += place.count
    }
    #expect(driver.memory.copied() == expected)
    #expect(driver.perform(.write, sector: 1000, places))
    #expect(try file.bytes(512_000..<512_000 + offset - 3584) == Array(content[3584..<offset]))
  }

  /// What no request of a guest's has, and a store above this one may.
  @Test(arguments: FileWay.allCases) func payloadAtAnyAddressIsMoved(_ way: FileWay) throws {
    let file = try TemporaryFile(byteCount: 1 << 20)
    let driver = try way.driver(file)
    let bytes = pattern(8192, seed: 5)
    driver.memory.slice(from: 24, count: bytes.count).copy(from: bytes.span)
    #expect(driver.perform(.write, sector: 3, [24..<1000, 1000..<8216]))
    #expect(try file.bytes(1536..<1536 + 8192) == bytes)
    #expect(driver.perform(.read, sector: 3, [20_001..<20_100, 30_003..<38_096]))
    #expect(driver.memory.slice(from: 20_001, count: 99).copied() == Array(bytes[..<99]))
    #expect(driver.memory.slice(from: 30_003, count: 8093).copied() == Array(bytes[99...]))
  }

  @Test(arguments: FileWay.allCases) func whatTheKernelStopsHalfWayIsDoneToItsEnd(_ way: FileWay) throws {
    var options = way.options
    options.stopsHalfWay = true
    let content = pattern(1 << 20, seed: 13)
    let file = try TemporaryFile(content)
    let driver = try way.driver(FileStore(path: file.path, options: options))
    // In the middle of the file, in one piece and in seven; the last three are merged where there is a ring.
    let pieces = (0..<7).map { 65_536 + $0 * 12_288..<65_536 + $0 * 12_288 + 4096 }
    driver.put(.read, sector: 64, [0..<65_536])
    driver.put(.read, sector: 512, pieces)
    let merged = (0..<3).map { 262_144 + $0 * 8192..<266_240 + $0 * 8192 }
    for (index, piece) in merged.enumerated() { driver.put(.read, sector: UInt64(1024 + 8 * index), [piece]) }
    #expect(driver.run() && driver.results.values.allSatisfy { $0 })
    if let queue = driver.queue as? FileQueue { #expect(queue.operationCount > 10) }
    #expect(driver.memory.slice(from: 0, count: 65_536).copied() == Array(content[32_768..<98_304]))
    for (index, piece) in (pieces + merged).enumerated() {
      let offset = (index < 7 ? 262_144 : 495_616) + index * 4096
      let bytes = driver.memory.slice(from: piece.lowerBound, count: 4096).copied()
      #expect(bytes == Array(content[offset..<offset + 4096]))
    }
    driver.put(.write, sector: 128, pieces)
    driver.put(.writeBarrier, sector: 1280, [0..<65_536])
    #expect(driver.run() && driver.results.values.allSatisfy { $0 })
    #expect(try file.bytes(65_536..<94_208) == Array(content[262_144..<290_816]))
    #expect(try file.bytes(655_360..<720_896) == Array(content[32_768..<98_304]))
  }

  @Test(arguments: FileWay.allCases) func barrierWritesBetweenFlushes(_ way: FileWay) throws {
    let file = try TemporaryFile(byteCount: 1 << 16)
    let driver = try way.driver(file)
    let bytes = pattern(4096, seed: 6)
    driver.memory.slice(from: 0, count: 4096).copy(from: bytes.span)
    #expect(driver.perform(.writeBarrier, sector: 8, [0..<4096]))
    #expect(try file.bytes(4096..<8192) == bytes)
    #expect(driver.perform(.writeBarrier, sector: 0))
    if let queue = driver.queue as? FileQueue { #expect(queue.operationCount == 4) }
  }

  @Test(arguments: FileWay.allCases) func manyMoreRequestsThanTheRingHoldsAreAllDone(_ way: FileWay) throws {
    let file = try TemporaryFile(byteCount: 4 << 20)
    let store = try FileStore(path: file.path, options: way.options)
    let driver = try way.driver(store, pageCount: 256)
    let bytes = pattern(2000 * 512, seed: 7)
    driver.memory.slice(from: 0, count: bytes.count).copy(from: bytes.span)
    // Backwards, so that none continues another.
    for sector in (0..<2000).reversed() {
      driver.put(.write, sector: UInt64(sector), [sector * 512..<sector * 512 + 512])
    }
    #expect(driver.run())
    #expect(driver.results.count == 2000 && driver.results.values.allSatisfy { $0 })
    #expect(try file.bytes(0..<2000 * 512) == bytes)
  }

  @Test(arguments: FileWay.allCases) func discardsMakeHoles(_ way: FileWay) throws {
    let file = try TemporaryFile(pattern(1 << 20, seed: 8))
    let store = try FileStore(path: file.path, options: way.options)
    let limits = try #require(store.geometry.discard, "the file system of /tmp makes no holes")
    #expect(limits.granularity >= 512 && !limits.isSecure)
    let driver = try way.driver(store)
    #expect(driver.perform(.flush, sector: 0))
    let before = try blockCount(file.path)
    #expect(driver.perform(.discard, sector: 512, sectorCount: 1024))
    #expect(try blockCount(file.path) <= before - 1024)
    #expect(driver.read(sector: 511, byteCount: 512) == Array(pattern(1 << 20, seed: 8)[511 * 512..<512 * 512]))
    #expect(driver.read(sector: 512, byteCount: 1 << 19) == [UInt8](repeating: 0, count: 1 << 19))
    #expect(try file.bytes(0..<2 << 20).count == 1 << 20)
  }

  /// In pieces of 1 GiB.
  @Test func hugeDiscardIsSplit() throws {
    let file = try TemporaryFile(byteCount: 5 << 30)
    let store = try FileStore(path: file.path, options: FileWay.ringCached.options)
    let driver = try FileWay.ringCached.driver(store)
    let last = store.geometry.sectorCount - 8
    #expect(driver.write(pattern(4096, seed: 9), sector: last))
    #expect(driver.perform(.flush, sector: 0))
    let former = (driver.queue as? FileQueue)?.operationCount ?? 0
    #expect(driver.perform(.discard, sector: 0, sectorCount: store.geometry.sectorCount))
    #expect(driver.read(sector: last, byteCount: 4096) == [UInt8](repeating: 0, count: 4096))
    #expect((driver.queue as? FileQueue)?.operationCount == former + 6)
  }

  @Test func readOnlyImageOffersNoDiscard() throws {
    let file = try TemporaryFile(byteCount: 4096)
    let store = try FileStore(path: file.path, isReadOnly: true)
    #expect(store.geometry.isReadOnly && store.geometry.discard == nil)
    let driver = try StoreDriver(queueOf: store)
    #expect(!driver.perform(.write, sector: 0, [0..<512]))
    #expect(driver.read(sector: 0, byteCount: 512) == [UInt8](repeating: 0, count: 512))
  }

  // MARK: Merging

  @Test(arguments: [FileWay.ringDirect, .ringCached]) func neighboursAreDoneAsOne(_ way: FileWay) throws {
    let file = try TemporaryFile(byteCount: 4 << 20)
    let driver = try way.driver(file)
    let queue = try #require(driver.queue as? FileQueue)
    let bytes = pattern(64 * 4096, seed: 10)
    driver.memory.slice(from: 4096, count: bytes.count).copy(from: bytes.span)
    // Two runs, with another kind and a gap between them.
    for index in 0..<32 { driver.put(.write, sector: UInt64(index * 8), [4096 + index * 4096..<8192 + index * 4096]) }
    driver.put(.flush, sector: 0)
    for index in 32..<64 {
      driver.put(.write, sector: UInt64(8 + index * 8), [4096 + index * 4096..<8192 + index * 4096])
    }
    #expect(driver.run() && driver.results.values.allSatisfy { $0 })
    #expect(queue.operationCount == 3)
    #expect(try file.bytes(0..<32 * 4096) == Array(bytes[..<(32 * 4096)]))
    #expect(try file.bytes(33 * 4096..<65 * 4096) == Array(bytes[(32 * 4096)...]))
  }

  /// Each request's bytes lie alone in their page, with others' all around.
  // swift-format-ignore: AlwaysUseLowerCamelCase
  @Test(arguments: [FileWay.ringDirect, .ringCached]) func XSA229_mergedReadsStayWithinWhatEachWasGranted(
    _ way: FileWay
  ) throws {
    let content = pattern(1 << 20, seed: 11)
    let file = try TemporaryFile(content)
    let driver = try way.driver(file)
    let queue = try #require(driver.queue as? FileQueue)
    let guardByte: UInt8 = 0xEE
    driver.memory.copy(from: [UInt8](repeating: guardByte, count: driver.memory.count).span)
    var expected = [UInt8](repeating: guardByte, count: driver.memory.count)
    var sector = 5
    for index in 0..<40 {
      let places = [
        index * 12_288 + 512..<index * 12_288 + 1536, index * 12_288 + 8192 - 512..<index * 12_288 + 8192 + 1024,
      ]
      driver.put(.read, sector: UInt64(sector), places)
      for place in places {
        expected.replaceSubrange(place, with: content[sector * 512..<sector * 512 + place.count])
        sector += place.count / 512
      }
    }
    #expect(driver.run() && driver.results.values.allSatisfy { $0 })
    #expect(queue.operationCount == 1)
    #expect(driver.memory.copied() == expected)
  }

  @Test(arguments: [FileWay.ringDirect, .ringCached]) func oneOfManyMergedFailsAlone(_ way: FileWay) throws {
    let content = pattern(64 * 512, seed: 12)
    let file = try TemporaryFile(content)
    let driver = try way.driver(file)
    try FileDescriptor.open(file.path, .readWrite).closing { try $0.resize(to: 24 * 512) }
    for index in 0..<4 { driver.put(.read, sector: UInt64(index * 8), [index * 4096..<index * 4096 + 4096]) }
    #expect(driver.run())
    #expect(driver.results == [0: true, 1: true, 2: true, 3: false])
    #expect(driver.failure == "the image \(file.path) has become shorter than its disk: a read at sector 24 failed")
    #expect(driver.memory.slice(from: 0, count: 12_288).copied() == Array(content[..<12_288]))
  }

  /// A disk is given the first requests while the others are put; the page cache all of them with one system call, as soon as
  /// it has been seen to need no time. (On some file systems the kernel leaves each read to a thread, and then it does.)
  @Test func whatThePageCacheHasIsBegunAllAtOnce() throws {
    let file = try TemporaryFile(pattern(1 << 20, seed: 13))
    let driver = try FileWay.ringCached.driver(file)
    let queue = try #require(driver.queue as? FileQueue)
    var (expected, needsTime) = (UInt64(0), true)
    for _ in 0..<3 {
      driver.forget()
      // Backwards, so that none is merged.
      for index in 0..<32 { driver.put(.read, sector: UInt64(8 * (31 - index)), [index * 4096..<index * 4096 + 4096]) }
      driver.submit()
      expected += needsTime ? 4 : 1
      needsTime = driver.results.count < 32
      #expect(driver.run() && driver.results.values.allSatisfy { $0 } && driver.results.count == 32)
      #expect(queue.submissionCount == expected)
    }
  }

  @Test func nothingIsMergedBeyondTheBoundsOrWhenNotWanted() throws {
    let file = try TemporaryFile(byteCount: 8 << 20)
    var options = FileWay.ringCached.options
    let driver = try FileWay.ringCached.driver(file, pageCount: 1024)
    // 1 MiB each: two do not fit into one. 129 slices: one too many.
    driver.put(.read, sector: 0, [0..<1 << 20])
    driver.put(.read, sector: 2048, [1 << 20..<2 << 20])
    #expect(driver.run())
    #expect((driver.queue as? FileQueue)?.operationCount == 2)
    driver.forget()
    for index in 0..<129 { driver.put(.read, sector: UInt64(index), [index * 4096..<index * 4096 + 512]) }
    #expect(driver.run())
    #expect((driver.queue as? FileQueue)?.operationCount == 4)
    options.mergesRequests = false
    let other = try TemporaryFile(byteCount: 1 << 20)
    let plain = StoreDriver(try FileStore(path: other.path, options: options).makeRing())
    for index in 0..<16 { plain.put(.read, sector: UInt64(index), [index * 512..<index * 512 + 512]) }
    #expect(plain.run())
    #expect((plain.queue as? FileQueue)?.operationCount == 16)
  }

  // MARK: Size

  @Test(arguments: FileWay.allCases) func sizeIsThatOfTheFileNow(_ way: FileWay) throws {
    let file = try TemporaryFile(byteCount: 1 << 20)
    let store = try FileStore(path: file.path, options: way.options)
    let driver = try way.driver(store)
    func resize(to byteCount: Int64) throws {
      try FileDescriptor.open(file.path, .readWrite).closing { try $0.resize(to: byteCount) }
    }
    try resize(to: 2 << 20)
    #expect(!driver.write(pattern(512, seed: 1), sector: 3000))
    #expect(store.geometry.sectorCount == 4096)
    #expect(driver.write(pattern(512, seed: 1), sector: 3000))
    try resize(to: 4096 + 700)
    // Nobody has asked: what reads there finds the end, and the others are served.
    #expect(driver.read(sector: 8, byteCount: 1024) == nil)
    #expect(driver.read(sector: 8, byteCount: 512) == [UInt8](repeating: 0, count: 512))
    #expect(store.geometry.sectorCount == 9)
    // Now a write behind the end is refused and does not put the end back.
    #expect(!driver.write(pattern(512, seed: 1), sector: 9))
    #expect(!driver.perform(.discard, sector: 0, sectorCount: 2048))
    #expect(try file.bytes().count == 4796)
    try resize(to: 0)
    #expect(store.geometry.sectorCount == 0)
    #expect(driver.read(sector: 0, byteCount: 512) == nil)
  }

  // MARK: Threads

  /// A queue's thread ends, and the bus's goes on with what is left (as a detach does it).
  @Test(arguments: [FileWay.ringDirect, .ringCached]) func whatAThreadBeganAnotherEnds(_ way: FileWay) throws {
    let file = try TemporaryFile(byteCount: 16 << 20)
    let store = try FileStore(path: file.path, options: way.options)
    let driver = try way.driver(store, pageCount: 16)
    let bytes = pattern(driver.memory.count, seed: 13)
    driver.memory.copy(from: bytes.span)
    // Backwards, so that nothing is merged.
    for index in (0..<200).reversed() {
      driver.put(.write, sector: UInt64(index * 128), [0..<65_536])
      if index % 20 == 0 { driver.put(.flush, sector: 0) }
    }
    onThread { driver.submit() }.join()
    #expect(driver.run())
    #expect(driver.results.count == 210 && driver.results.values.allSatisfy { $0 }, "\(driver.failure ?? "")")
    for index in [0, 1, 98, 199] { #expect(try file.bytes(index * 65_536..<(index + 1) * 65_536) == bytes) }
  }

  // MARK: The lock

  @Test func fileIsServedOnceAtATime() throws {
    let file = try TemporaryFile(byteCount: 4096)
    var options = FileStoreOptions()
    options.lockSeconds = 0.05
    do {
      let store = try FileStore(path: file.path)
      let queue = try store.makeQueue()
      #expect(throws: FileStoreError.inUse(file.path)) { try FileStore(path: file.path, options: options) }
      _ = queue
    }
    // At once, though the kernel takes its time to let go of a ring.
    options.lockSeconds = 0
    let reader = try FileStore(path: file.path, isReadOnly: true, options: options)
    let second = try FileStore(path: file.path, isReadOnly: true, options: options)
    #expect(throws: FileStoreError.inUse(file.path)) { try FileStore(path: file.path, options: options) }
    _ = (reader, second)
  }

  @Test func lockIsWaitedFor() throws {
    let file = try TemporaryFile(byteCount: 4096)
    let holder = try FileDescriptor.open(file.path, .readWrite, options: .closeOnExec)
    #expect(flock(holder.rawValue, LOCK_EX | LOCK_NB) == 0)
    let isReleased = Atomic(false)
    let thread = onThread {
      usleep(200_000)
      isReleased.store(true, ordering: .releasing)
      try? holder.close()
    }
    var options = FileStoreOptions()
    options.lockSeconds = 60
    let store = try FileStore(path: file.path, options: options)
    #expect(isReleased.load(ordering: .acquiring) && store.geometry.sectorCount == 8)
    thread.join()
  }

  @Test func fileInMemoryIsServedByCalls() throws {
    let path = FilePath("/dev/shm/swift-xen-\(getpid())")
    let file = try FileDescriptor.open(path, .readWrite, options: .create, permissions: .ownerReadWrite)
    defer { _ = unsafe path.withPlatformString { unsafe unlink($0) } }
    try file.closing { try $0.resize(to: 1 << 16) }
    let store = try FileStore(path: path)
    let driver = try StoreDriver(queueOf: store)
    #expect(driver.queue === store && store.fallbackReason == nil)
    #expect(driver.write(pattern(4096, seed: 2), sector: 8))
    #expect(driver.read(sector: 8, byteCount: 4096) == pattern(4096, seed: 2))
  }

  // MARK: What cannot be served

  @Test func whatIsNoImageIsRefusedWithItsName() throws {
    let empty = try TemporaryFile()
    let odd = try TemporaryFile(byteCount: 513)
    #expect(throws: FileStoreError.empty(empty.path)) { try FileStore(path: empty.path) }
    #expect(throws: FileStoreError.notWholeSectors(odd.path, byteCount: 513)) { try FileStore(path: odd.path) }
    #expect(throws: FileStoreError.notAFile("/dev/null")) { try FileStore(path: "/dev/null") }
    #expect(throws: FileStoreError.cannotOpen("/nowhere/image", .noSuchFileOrDirectory)) {
      try FileStore(path: "/nowhere/image")
    }
  }

  @Test func directIsAsTold() throws {
    let file = try TemporaryFile(byteCount: 4096)
    #expect(try FileStore(path: file.path, options: FileStoreOptions(direct: .off)).isDirect == false)
    #expect(try FileStore(path: file.path, options: FileStoreOptions(direct: .on)).isDirect)
    // sysfs has files of a page, and no direct I/O.
    let path: FilePath = "/sys/kernel/uevent_seqnum"
    #expect(throws: FileStoreError.cannotBeDirect(path)) {
      try FileStore(path: path, isReadOnly: true, options: FileStoreOptions(direct: .on))
    }
  }

  private func blockCount(_ path: FilePath) throws -> Int {
    var status = stat()
    try #require(unsafe path.withPlatformString { unsafe stat($0, &status) } == 0)
    return Int(status.st_blocks)
  }
}

extension FileDescriptor {
  func closing(_ body: (FileDescriptor) throws -> Void) throws { try closeAfter { try body(self) } }
}
