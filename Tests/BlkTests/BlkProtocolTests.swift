import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// B1: both layouts of the ring through both our ends.
struct BlkProtocolTests {
  @Test(arguments: BlkProtocol.allCases)
  func frontendSaysWhichLayoutItSpeaksAndBothEndsReportIt(layout: BlkProtocol) throws {
    let disk = BlkFrontDevice(BlkFrontOptions(layout: layout))
    let pair = try BlkPair(frontend: disk, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    #expect(try pair.rig.directory(pair.device.frontendPath).string("protocol") == layout.rawValue)
    for negotiation in [disk.negotiation, pair.backNegotiation] {
      #expect(negotiation.lines.first { $0.feature == "protocol" }?.agreed == layout.rawValue)
    }
  }

  @Test func absentProtocolMeansTheNativeLayout() throws {
    let frontend = RawBlkFrontend()
    frontend.withheldKeys = ["protocol"]
    let pair = try BlkPair(frontend: frontend, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    #expect(pair.backNegotiation.lines.first { $0.feature == "protocol" }?.agreed == "x86_64-abi")
    frontend.put(BlkIfRequest(operation: BlkIf.Operation.writeBarrier, id: 0x1_0000_0002))
    #expect(try pair.statuses(frontend, 1) == [0x1_0000_0002: 0])
  }

  /// Ids and sectors above 32 bits, so that a field in the wrong place would show.
  @Test func thirtyTwoBitFrontendsNumbersArriveWhole() throws {
    let frontend = RawBlkFrontend(layout: .x86_32)
    let store = RecordingStore(sectorCount: 64)
    let pair = try BlkPair(frontend: frontend, store: store)
    try pair.connect()
    var write = BlkIfRequest(
      operation: BlkIf.Operation.write, segmentCount: 1, id: 0xDEAD_BEEF_0000_0001, sectorNumber: 9)
    write.segments[0] = BlkIfSegment(gref: frontend.references[3], firstSector: 2, lastSector: 4)
    frontend.put(write)
    var outside = write
    (outside.id, outside.sectorNumber) = (7, 0x1_0000_0009)
    frontend.put(outside)
    #expect(try pair.statuses(frontend, 2) == [0xDEAD_BEEF_0000_0001: 0, 7: BlkIf.Status.error])
    #expect(store.record == ["write 9"])
  }

  @Test func thirtyTwoBitProducerOutOfRangeClosesTheDevice() throws {
    let frontend = RawBlkFrontend(layout: .x86_32)
    let pair = try BlkPair(frontend: frontend, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    frontend.scribble(33, at: 0)
    #expect(try pair.scheduler.run { try pair.backendError?.contains("request producer to 33") == true })
  }
}
