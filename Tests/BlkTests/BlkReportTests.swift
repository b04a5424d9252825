import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// What a disk says of itself to whoever looks for the reason of something.
struct BlkReportTests {
  @Test(arguments: BlkProtocol.allCases) func ringsAreLoggedWhenADiskCloses(layout: BlkProtocol) throws {
    let disk = BlkFrontDevice(BlkFrontOptions(layout: layout))
    let log = CollectedLog()
    let pair = try BlkPair(
      frontend: disk, backend: BlkBackDriver { _ in MemoryStore(sectorCount: 64) }, log: log.logger)
    try pair.connect()
    try disk.flush(tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded)
    let counted = try #require(disk.statistics)
    #expect(counted.notificationsSent == 1 && counted.notificationsSuppressed == 0)
    pair.backBus.close()
    #expect(pair.scheduler.run { !pair.backBus.isConnected && pair.holdsNothing })
    let line = try #require(log.lines.first { $0.contains("disconnected") })
    #expect(line.contains("produced 1 consumed 1 in flight 0"), "\(line)")
    #expect(disk.statistics == nil)
  }

  /// The deprecated key means another thing to each who has it: the frontend says so when a backend offers it.
  @Test func largeSectorSizeOfABackendIsReported() throws {
    let back = RawBlkBackend()
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, backend: back)
    try pair.rig.directory(pair.device.backendPath).write([StoreEntry("feature-large-sector-size", 1)])
    try pair.connect()
    let line = try #require(disk.negotiation.lines.first { $0.feature == "feature-large-sector-size" })
    #expect(line.frontend == "no" && line.backend == "yes" && line.agreed == "off")
  }

  @Test func histogramsAreEqualByTheirBuckets() {
    var (one, other) = (LatencyHistogram(), LatencyHistogram())
    #expect(one == other && Set([one, other]).count == 1)
    one.add(nanoseconds: 5_000)
    #expect(one != other && Set([one, other]).count == 2)
    other.add(nanoseconds: 5_000)
    #expect(one == other)
  }
}
