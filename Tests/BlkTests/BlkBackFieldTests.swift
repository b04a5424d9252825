import BlkBack
import TestSupport
import Testing
import XenLoopback

/// B11: what the fields of a slot mean in both layouts, and that what means nothing is not looked at.
struct BlkBackFieldTests {
  /// The table of ``BlkBackRequestTableTests`` once more, on one ring after another: no answer depends on what came before.
  @Test(arguments: BlkProtocol.allCases, [false, true])
  func eachRequestHasItsAnswerAfterAllOthers(layout: BlkProtocol, isPersistent: Bool) throws {
    let frontend = RawBlkFrontend(layout: layout, isPersistent: isPersistent)
    let pair = try BlkPair(frontend: frontend, store: ModelDisk(sectorCount: 64))
    try pair.connect()
    for line in BlkBackRequestTableTests.table + BlkBackRequestTableTests.operations {
      var slot = line.slot
      if slot.operation != BlkIf.Operation.discard, slot.operation != BlkIf.Operation.indirect {
        for index in 0..<11 where slot.segmentCount > 0 {
          slot.segments[index].gref = frontend.references[index].rawValue
        }
      }
      frontend.put(slot)
      let answer = try pair.answers(frontend, 1)[1]
      #expect(answer?.status == line.status && answer?.operation == line.operation, "\(line.name)")
    }
    #expect(pair.backBus.isConnected)
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { pair.backBus.isEmpty && pair.holdsNothing })
  }

  /// The handle, segments and indirect pages past those that count, and whatever follows a discard.
  @Test(arguments: BlkProtocol.allCases) func whatMeansNothingIsNotLookedAt(layout: BlkProtocol) throws {
    let frontend = RawBlkFrontend(layout: layout)
    let disk = ModelDisk(sectorCount: 64)
    let pair = try BlkPair(frontend: frontend, store: disk)
    try pair.connect()
    let rubbish = BlkIfSegment(gref: GrantReference(rawValue: .max), firstSector: 255, lastSector: 0)
    for (round, handle) in [UInt16(0), 0xCA00, .max].enumerated() {
      let bytes = pattern(4096, seed: round + 1)
      frontend.bytes(page: 0, sector: 0, count: 4096).copy(from: bytes.span)
      var write = frontend.direct(BlkIf.Operation.write, sector: 8, [(0, 0, 7)], id: 1)
      for index in 1..<11 { write.segments[index] = rubbish }
      write.handle = handle
      var flush = frontend.direct(BlkIf.Operation.flushDiskCache, [], id: 2)
      for index in 0..<11 { flush.segments[index] = rubbish }
      flush.handle = handle
      var read = frontend.indirect(BlkIf.Operation.read, sector: 8, [(1, 0, 7)], in: 2, id: 3).indirect
      for page in 1..<8 { read.references[page] = .max }
      read.handle = handle
      for index in 1..<512 { frontend.describe(rubbish, at: index, in: 2) }
      var discard = BlkIfRequest(
        BlkIfDiscardRequest(handle: handle, id: 4, sectorNumber: 40, sectorCount: 8))
      // Behind its last field.
      for index in 2..<11 { discard.segments[index] = rubbish }
      for request in [write, flush, BlkIfRequest(read), discard] {
        frontend.put(request)
        #expect(try pair.statuses(frontend, 1).values.allSatisfy { $0 == 0 })
      }
      #expect(disk.bytes(sector: 8, sectorCount: 8) == bytes)
      #expect(frontend.bytes(page: 1, sector: 0, count: 4096).copied() == bytes)
    }
  }

  /// On a disk of larger sectors, in each kind of request, both where it begins and how much it is.
  @Test(arguments: BlkProtocol.allCases) func partsOfSectorsFailInEachKindOfRequest(layout: BlkProtocol) throws {
    let frontend = RawBlkFrontend(layout: layout)
    let geometry = BlockGeometry(
      sectorCount: 64, sectorByteCount: 4096, discard: DiscardLimits(granularity: 4096, isSecure: true))
    let recording = RecordingStore(geometry)
    let pair = try BlkPair(frontend: frontend, store: recording)
    try pair.connect()
    func discard(_ sector: UInt64, _ count: UInt64, _ flag: UInt8 = 0) -> BlkIfRequest {
      BlkIfRequest(BlkIfDiscardRequest(flag: flag, id: 1, sectorNumber: sector, sectorCount: count))
    }
    let (read, write, barrier) = (BlkIf.Operation.read, BlkIf.Operation.write, BlkIf.Operation.writeBarrier)
    let half: [RawSegment] = [(1, 0, 3)]
    let halves: [RawSegment] = [(1, 0, 3), (2, 4, 7)]
    for (request, isWhole) in [
      (frontend.direct(read, sector: 1, halves), false), (frontend.direct(read, sector: 8, half), false),
      (frontend.direct(read, sector: 8, halves), true), (frontend.direct(write, sector: 60, halves), false),
      (frontend.direct(barrier, sector: 4, halves), false), (frontend.direct(barrier, sector: 8, half), false),
      (frontend.indirect(read, sector: 9, halves, in: 4), false),
      (frontend.indirect(write, sector: 8, half, in: 4), false),
      (frontend.indirect(write, sector: 8, halves, in: 4), true), (discard(8, 8), true), (discard(8, 7), false),
      (discard(8, 9), false), (discard(7, 8), false), (discard(8, 8, BlkIf.discardSecure), true),
      (discard(8, 1, BlkIf.discardSecure), false), (discard(56, 16), false),
    ] {
      let before = recording.record.count
      frontend.put(request)
      #expect(try pair.statuses(frontend, 1) == [1: isWhole ? BlkIf.Status.okay : BlkIf.Status.error])
      #expect(recording.record.count == before + (isWhole ? 1 : 0))
    }
  }
}
