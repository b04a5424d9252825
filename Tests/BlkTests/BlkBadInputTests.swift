import BlkBack
import BlkFront
import BlockStores
import SystemPackage
import TestSupport
import Testing
import XenLoopback

/// What goes wrong around a disk that is in use: it costs what it must, and is said.
struct BlkBadInputTests {
  @Test func imageTruncatedWhileServedFailsWhatItLostAndServesTheRest() throws {
    let image = try TemporaryFile(pattern(64 * 512, seed: 1))
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: try FileStore(path: image.path, options: .atOnce))
    try pair.connect()
    try disk.read(sector: 32, byteCount: 16_384, tag: 1)
    #expect(pair.complete(disk)[1]?.result == .succeeded)
    let file = try FileDescriptor.open(image.path, .readWrite)
    try file.closeAfter { try file.resize(to: 32 * 512) }
    try disk.read(sector: 31, byteCount: 512, tag: 2)
    // Half of it is there.
    try disk.read(sector: 31, byteCount: 1024, tag: 3)
    try disk.read(sector: 40, byteCount: 512, tag: 4)
    let results = pair.complete(disk)
    #expect(results[2]?.bytes == Array(pattern(64 * 512, seed: 1)[31 * 512..<32 * 512]))
    #expect(results[3]?.result == .failed && results[4]?.result == .failed)
    // Once, and the disk goes on with what there is.
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    #expect(
      try pair.backendError?.hasPrefix("22 the image \(image.path) has become shorter than its disk: a read at ")
        == true)
    try disk.write(sector: 31, pattern(512, seed: 2).span, tag: 5)
    try disk.read(sector: 31, byteCount: 512, tag: 6)
    let others = pair.complete(disk)
    #expect(others[5]?.result == .succeeded && others[6]?.bytes == pattern(512, seed: 2))
    // Whoever looks at the image for that fault sees its size, and the guest hears of it.
    #expect(pair.scheduler.run { disk.geometry?.sectorCount == 32 })
    #expect(throws: BlkFrontError.outsideDisk(sector: 40, count: 1)) {
      try disk.write(sector: 40, pattern(512, seed: 2).span, tag: 7)
    }
    #expect(try image.bytes().count == 32 * 512)
    #expect(disk.isConnected && pair.backBus.isConnected)
  }

  @Test func storeThatFailsIsReportedOnceEachConnection() throws {
    let disk = BlkFrontDevice()
    let pair = try BlkPair(frontend: disk, store: BrokenStore())
    try pair.connect()
    try disk.read(sector: 5, byteCount: 512, tag: 1)
    _ = pair.complete(disk)
    try disk.read(sector: 6, byteCount: 512, tag: 2)
    #expect(pair.complete(disk)[2]?.result == .failed)
    _ = pair.scheduler.run(turns: 100) { false }
    #expect(try pair.backendError == "22 the store failed a read at sector 5")
  }

  @Test func frontendThatTakesNoResponsesStopsNobodyElse() throws {
    let frontend = RawBlkFrontend()
    let pair = try BlkPair(frontend: frontend, store: MemoryStore(sectorCount: 64))
    let other = BlkFrontDevice()
    let second = try pair.toolstack.addVbd(
      51728, to: pair.guest.domain, servedBy: pair.driverDomain.domain, params: "other")
    try pair.frontBus.register(other, at: second.frontendPath)
    try pair.connect()
    // A full ring of requests, and nobody ever looks at the responses.
    for id in 0..<UInt64(32) {
      var request = BlkIfRequest(operation: BlkIf.Operation.read, segmentCount: 1, id: id)
      request.segments[0] = BlkIfSegment(gref: frontend.references[0], firstSector: 0, lastSector: 0)
      frontend.put(request)
    }
    frontend.push()
    for tag in 0..<UInt64(100) {
      try other.read(sector: 0, byteCount: 512, tag: tag)
      #expect(pair.complete(other)[tag]?.result == .succeeded)
    }
    #expect(pair.backBus.isConnected)
    try pair.toolstack.unplug(pair.device)
    #expect(try pair.scheduler.run { try pair.toolstack.isClosed(pair.device) })
  }

  @Test func frontendThatNeverClosesIsWaitedForAloneAndTheReportSaysSo() throws {
    let frontend = RawBlkFrontend()
    let pair = try BlkPair(frontend: frontend, store: MemoryStore(sectorCount: 64))
    try pair.connect()
    // Its bus is never polled again.
    pair.scheduler.remove(pair.frontBus)
    let other = BlkFrontDevice()
    let second = try pair.toolstack.addVbd(
      51728, to: pair.guest.domain, servedBy: pair.driverDomain.domain, params: "other")
    let bus = try Bus(on: pair.guest, queueHost: pair.scheduler, log: .silent)
    try bus.register(other, at: second.frontendPath)
    pair.scheduler.add(bus, name: "other frontend's bus") { _ in bus.poll() }
    try pair.toolstack.unplug(pair.device)
    #expect(pair.scheduler.run { other.isConnected })
    try other.read(sector: 0, byteCount: 512, tag: 1)
    #expect(pair.complete(other)[1]?.result == .succeeded)
    let report = try #require(pair.backBus.report.first { $0.hasPrefix(pair.device.backendPath) })
    #expect(report == "\(pair.device.backendPath): waits for the frontend to close; it is Connected (4)")
  }
}
