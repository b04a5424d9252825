import BlkBack
import Testing

/// The second gate for a disk, fault by fault, and what each is answered with.
struct BlkGateTests {
  private static let disk = BlkRules(for: BlockGeometry(sectorCount: 64), maxIndirectSegmentCount: 32)
  private static let read = BlkIf.Operation.read
  private static let write = BlkIf.Operation.write

  private static func request(
    _ operation: UInt8, sector: UInt64 = 0, count: UInt8 = 1, _ first: UInt8 = 0, _ last: UInt8 = 7
  ) -> BlkIfRequest {
    var request = BlkIfRequest(operation: operation, segmentCount: count, id: 7, sectorNumber: sector)
    for index in 0..<11 {
      request.segments[index] = BlkIfSegment(gref: GrantReference(rawValue: 9), firstSector: first, lastSector: last)
    }
    return request
  }

  private static func indirect(_ operation: UInt8, count: UInt16 = 1) -> BlkIfRequest {
    BlkIfRequest(
      BlkIfIndirectRequest(
        indirectOperation: operation, segmentCount: count, id: 7, sectorNumber: 0, references: InlineArray(repeating: 3)
      ))
  }

  private static func discard(flag: UInt8 = 0, sector: UInt64 = 0, count: UInt64 = 1) -> BlkIfRequest {
    BlkIfRequest(BlkIfDiscardRequest(flag: flag, id: 7, sectorNumber: sector, sectorCount: count))
  }

  private func fault(_ raw: BlkIfRequest, _ rules: BlkRules = disk) -> BlkRequestFault? {
    var table = [BlkRequest.Segment](repeating: .none, count: rules.maxSegmentCount)
    var span = table.mutableSpan
    do throws(BlkRequestFault) {
      _ = try BlkRequest(parsing: raw, by: rules, segments: &span, at: 0)
      return nil
    } catch { return error }
  }

  private func expect(_ fault: BlkRequestFault?, _ expected: BlkRequestFault, status: Int16 = BlkIf.Status.error) {
    #expect(fault == expected)
    #expect(fault?.status == status && "\(expected)" != "")
  }

  @Test(arguments: [4, 7, 255] as [UInt8]) func unknownOperation(operation: UInt8) {
    expect(fault(Self.request(operation)), .unknownOperation(operation), status: BlkIf.Status.notSupported)
    expect(fault(Self.indirect(operation)), .unknownOperation(operation), status: BlkIf.Status.notSupported)
  }

  /// What was not offered is as unknown as what nobody knows.
  @Test func unknownOperationWhereItIsNotOffered() {
    let plain = BlkRules(for: BlockGeometry(sectorCount: 64))
    expect(
      fault(Self.indirect(Self.read), plain), .unknownOperation(BlkIf.Operation.indirect),
      status: BlkIf.Status.notSupported)
    expect(fault(Self.discard()), .unknownOperation(BlkIf.Operation.discard), status: BlkIf.Status.notSupported)
    for operation in [BlkIf.Operation.writeBarrier, BlkIf.Operation.flushDiskCache, BlkIf.Operation.indirect] {
      expect(fault(Self.indirect(operation)), .unknownOperation(operation), status: BlkIf.Status.notSupported)
    }
  }

  @Test func segmentCount() {
    for count in [0, 12, 255] as [UInt8] {
      expect(fault(Self.request(Self.read, count: count)), .segmentCount(Int(count)))
    }
    expect(fault(Self.request(BlkIf.Operation.flushDiskCache, count: 12)), .segmentCount(12))
    for count in [0, 33, .max] as [UInt16] {
      expect(fault(Self.indirect(Self.read, count: count)), .segmentCount(Int(count)))
    }
    #expect(fault(Self.indirect(Self.read, count: 32)) == nil)
  }

  @Test(arguments: [(1, 0), (0, 8), (8, 8), (255, 255), (0, 255)] as [(UInt8, UInt8)])
  func segmentOutsidePage(first: UInt8, last: UInt8) {
    expect(
      fault(Self.request(Self.read, first, last)),
      .segmentOutsidePage(index: 0, first: first, last: last, unitCount: 8))
  }

  /// Its segments come out of pages that the frontend goes on writing: the copy passes the same gate.
  @Test func segmentOutsidePageInAnIndirectPage() throws {
    var table = [BlkRequest.Segment](repeating: .none, count: 32)
    var span = table.mutableSpan
    var request = try BlkRequest(parsing: Self.indirect(Self.write, count: 3), by: Self.disk, segments: &span, at: 0)
    let sound = BlkIfSegment(gref: GrantReference(rawValue: 1), firstSector: 0, lastSector: 7)
    let bad = BlkIfSegment(gref: GrantReference(rawValue: 1), firstSector: 5, lastSector: 4)
    let descriptors = [sound, sound, bad]
    var found: BlkRequestFault?
    do throws(BlkRequestFault) {
      try request.parse(descriptors: descriptors.span, by: Self.disk, segments: &span, at: 0)
    } catch { found = error }
    expect(found, .segmentOutsidePage(index: 2, first: 5, last: 4, unitCount: 8))
  }

  @Test(arguments: [64, 57, .max, .max - 7] as [UInt64]) func outsideDisk(sector: UInt64) {
    expect(
      fault(Self.request(Self.write, sector: sector)), .outsideDisk(sector: sector, count: 8, diskSectorCount: 64))
    let discards = BlkRules(
      for: BlockGeometry(sectorCount: 64, discard: DiscardLimits(granularity: 512)))
    expect(
      fault(Self.discard(sector: sector, count: 8), discards),
      .outsideDisk(sector: sector, count: 8, diskSectorCount: 64))
    expect(
      fault(Self.discard(sector: 1, count: .max), discards),
      .outsideDisk(sector: 1, count: .max, diskSectorCount: 64))
  }

  /// A sector number in units of 4096 bytes need not have a number in ours.
  @Test func outsideDiskSinceNoNumberSaysWhere() {
    let rules = BlkRules(
      for: BlockGeometry(sectorCount: 64, sectorByteCount: 4096), units: .tapdisk)
    let sector = UInt64.max / 8 + 1
    expect(
      fault(Self.request(Self.read, sector: sector), rules), .outsideDisk(sector: sector, count: 0, diskSectorCount: 64)
    )
  }

  @Test(arguments: [(1, 0, 7), (8, 0, 0), (4, 4, 7)] as [(UInt64, UInt8, UInt8)])
  func unaligned(sector: UInt64, first: UInt8, last: UInt8) {
    let rules = BlkRules(for: BlockGeometry(sectorCount: 64, sectorByteCount: 4096))
    expect(
      fault(Self.request(Self.read, sector: sector, first, last), rules),
      .unaligned(sector: sector, count: UInt64(last - first) + 1, sectorByteCount: 4096))
  }

  @Test func readOnlyDisk() {
    let rules = BlkRules(
      for: BlockGeometry(sectorCount: 64, isReadOnly: true, discard: DiscardLimits(granularity: 512)),
      maxIndirectSegmentCount: 32)
    for raw in [
      Self.request(Self.write), Self.request(BlkIf.Operation.writeBarrier),
      Self.request(BlkIf.Operation.flushDiskCache), Self.indirect(Self.write), Self.discard(),
    ] { expect(fault(raw, rules), .readOnlyDisk) }
    for raw in [
      Self.request(Self.read), Self.request(BlkIf.Operation.flushDiskCache, count: 0), Self.indirect(Self.read),
    ] { #expect(fault(raw, rules) == nil) }
  }

  @Test func emptyAndInsecureDiscard() {
    let rules = BlkRules(for: BlockGeometry(sectorCount: 64, discard: DiscardLimits(granularity: 512)))
    expect(fault(Self.discard(count: 0), rules), .emptyDiscard)
    expect(
      fault(Self.discard(flag: BlkIf.discardSecure), rules), .insecureDiscard, status: BlkIf.Status.notSupported)
    #expect(fault(Self.discard(), rules) == nil)
  }
}
