import BlkBack
import BlkFront
import TestSupport
import Testing
import XenLoopback

/// B19: a backend that the toolstack does not trust sees nothing but what each request is about.
struct BlkFrontTrustTests {
  private let disk: BlkFrontDevice
  private let backend = ManyRingsBackend()

  init() {
    var options = BlkFrontOptions(poolPageCount: 40)
    options.maxIndirectSegmentCount = 16
    disk = BlkFrontDevice(options)
  }

  private func pair(trusted: String?) throws -> BlkPair {
    backend.geometry = BlockGeometry(sectorCount: 4096)
    backend.keys = [StoreEntry("feature-max-indirect-segments", 16)]
    let pair = try BlkPair(frontend: disk, backend: backend)
    if let trusted { try pair.rig.directory(pair.device.frontendPath).write([StoreEntry("trusted", trusted)]) }
    #expect(pair.scheduler.run { disk.isConnected })
    return pair
  }

  /// Every page that the one request which is there names, descriptors first, with what its segment says of it; answers it.
  private func look(_ pair: BlkPair) throws -> [(bytes: [UInt8], lastSector: UInt8?)] {
    disk.push()
    let request = try #require(try backend.requests()[0].first)
    var pages: [(bytes: [UInt8], lastSector: UInt8?)] = []
    if request.operation == BlkIf.Operation.indirect {
      let descriptors = try backend.bytes(of: request.indirect.references[0])
      pages.append((descriptors, nil))
      for index in 0..<Int(request.indirect.segmentCount) {
        let entry = descriptors[index * 8..<index * 8 + 8]
        let reference = entry.prefix(4).reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        pages.append((try backend.bytes(of: reference), entry[entry.startIndex + 5]))
      }
    } else {
      for index in 0..<Int(request.segmentCount) {
        pages.append((try backend.bytes(of: request.segments[index].gref), request.segments[index].lastSector))
      }
    }
    backend.answer(BlkIfResponse(id: request.id, operation: request.answeredOperation, status: 0))
    disk.poll { #expect($0.result == .succeeded) }
    return pages
  }

  private func isZero(_ bytes: some Sequence<UInt8>) -> Bool { bytes.allSatisfy { $0 == 0 } }

  /// Fills every page of the pool, at different places, with what nobody is to see again.
  private func useAllPages(_ pair: BlkPair) throws {
    let secret = [UInt8](repeating: 0x5E, count: 8 * 4096)
    for tag in 0..<5 as Range<UInt64> { try disk.write(sector: 0, secret.span, tag: tag) }
    disk.push()
    for request in try backend.requests()[0] {
      backend.answer(BlkIfResponse(id: request.id, operation: request.operation, status: 0))
    }
    disk.poll { _ in }
    #expect(disk.inFlightCount == 0)
  }

  @Test func noByteOfAnEarlierRequestIsInAPageOfALaterOne() throws {
    let pair = try pair(trusted: "0")
    #expect(disk.negotiation.lines.first { $0.feature == "trusted" }?.agreed == "0")
    try useAllPages(pair)
    // A read: nothing at all.
    try disk.read(sector: 0, byteCount: 4096 + 512, tag: 1)
    let read = try look(pair)
    #expect(read.count == 2 && read.allSatisfy { isZero($0.bytes) })
    // A write: its payload, and nothing behind it.
    try useAllPages(pair)
    try disk.write(sector: 0, pattern(4096 + 1024, seed: 1).span, tag: 2)
    var pages = try look(pair)
    #expect(pages.flatMap(\.bytes).prefix(5120) == pattern(5120, seed: 1)[...] && isZero(pages[1].bytes[1024...]))
    // The same in place, of which only the start is filled in.
    try useAllPages(pair)
    try disk.write(sector: 0, byteCount: 8192, tag: 3) { $0.copy(from: pattern(16, seed: 1).span) }
    pages = try look(pair)
    #expect(isZero(pages[0].bytes[16...]) && isZero(pages[1].bytes))
    // And the pages that describe segments.
    try useAllPages(pair)
    try disk.read(sector: 0, byteCount: 12 * 4096, tag: 4)
    pages = try look(pair)
    #expect(pages.count == 13 && isZero(pages[0].bytes[96...]))
    #expect(pages.dropFirst().allSatisfy { isZero($0.bytes) })
    try useAllPages(pair)
    try disk.write(sector: 0, pattern(13 * 4096 - 512, seed: 2).span, tag: 5)
    pages = try look(pair)
    #expect(isZero(pages[0].bytes[104...]) && isZero(pages[13].bytes[3584...]))
    #expect(pages[13].lastSector == 6)
  }

  /// So that the test above can fail.
  @Test(arguments: [nil, "1"] as [String?])
  func whoIsTrustedSeesWhatPagesHeldBefore(trusted: String?) throws {
    let pair = try pair(trusted: trusted)
    #expect(disk.negotiation.lines.first { $0.feature == "trusted" }?.agreed == "1")
    try useAllPages(pair)
    try disk.read(sector: 0, byteCount: 4096, tag: 1)
    #expect(try look(pair)[0].bytes == [UInt8](repeating: 0x5E, count: 4096))
  }

  @Test(arguments: ["", "no", "-1"])
  func wordThatIsNoNumberClosesTheDevice(trusted: String) throws {
    let pair = try BlkPair(frontend: disk, backend: backend)
    try pair.rig.directory(pair.device.frontendPath).write([StoreEntry("trusted", trusted)])
    #expect(try pair.scheduler.run { try pair.frontendError?.contains("trusted") == true })
    #expect(!disk.isConnected && pair.loopback.grantCounts.sharedPages == 0)
  }

  @Test func diskOfAnUntrustedBackendIsADisk() throws {
    let pair = try BlkPair(frontend: disk, store: ReorderingStore(MemoryStore(sectorCount: 1024)))
    try pair.rig.directory(pair.device.frontendPath).write([StoreEntry("trusted", 0)])
    try pair.connect()
    for (tag, byteCount) in [512, 4096, 45056, 61_440, 65_536].enumerated() {
      let written = pattern(byteCount, seed: tag)
      try disk.write(sector: 8, written.span, tag: UInt64(tag))
      #expect(pair.complete(disk)[UInt64(tag)]?.result == .succeeded)
      try disk.read(sector: 8, byteCount: byteCount, tag: 100)
      #expect(pair.complete(disk)[100]?.bytes == written)
    }
  }
}
