import BlkBack
import XenPlatform

/// Raw slots of a block ring to validated requests.
func fuzzBlkRequest(_ input: inout FuzzInput) {
  let sectorByteCount: UInt32 = input.pick([512, 1024, 2048, 4096])
  // Whole sectors, up to the largest disk that there can be.
  let unit = UInt64(sectorByteCount / 512)
  let sectorCount = (input.flag() ? UInt64(input.next(UInt16.self)) : input.next(UInt64.self) >> 9) / unit * unit
  let disk = BlockGeometry(
    sectorCount: min(sectorCount, UInt64.max / 512 / unit * unit), sectorByteCount: sectorByteCount,
    isReadOnly: input.next(UInt8.self) % 8 == 0,
    discard: input.flag() ? DiscardLimits(granularity: sectorByteCount, isSecure: input.flag()) : nil)
  let units: SectorUnits = input.pick([.standard, .freeBSD, .miniOS, .tapdisk, .sectorSize])
  let rules = BlkRules(for: disk, maxIndirectSegmentCount: input.pick([0, 32, 256, 4096]), units: units)
  var segments = [BlkRequest.Segment](repeating: .none, count: rules.maxSegmentCount)

  while !input.isEmpty {
    let raw = input.slot()
    do throws(BlkRequestFault) {
      var span = segments.mutableSpan
      var request = try BlkRequest(parsing: raw, by: rules, segments: &span, at: 0)
      if request.indirectPageCount > 0 {
        require(request.segmentCount <= rules.maxIndirectSegmentCount, "no more segments than were offered")
        require(request.indirectPageCount == (request.segmentCount + 511) / 512, "as many pages as they need")
        let descriptors = input.descriptors(request.segmentCount)
        try request.parse(descriptors: descriptors.span, by: rules, segments: &span, at: 0)
      }
      check(request, segments, disk)
    } catch {
      require(error.status < 0 && !error.description.isEmpty, "a fault is answered with an error")
    }
  }
}

private func check(_ request: BlkRequest, _ segments: [BlkRequest.Segment], _ disk: BlockGeometry) {
  let unit = UInt64(disk.sectorByteCount / 512)
  require(request.sector <= disk.sectorCount, "within the disk")
  require(request.sectorCount <= disk.sectorCount - request.sector, "within the disk to its end")
  require(request.sector % unit == 0 && request.sectorCount % unit == 0, "whole sectors of the disk")
  require(request.kind == .read || request.kind == .flush || !disk.isReadOnly, "nothing changes a read-only disk")
  var total = 0
  for segment in segments.prefix(request.segmentCount) {
    require(segment.byteCount > 0 && segment.offset % 512 == 0 && segment.byteCount % 512 == 0, "whole sectors")
    require(Int(segment.offset) + Int(segment.byteCount) <= xenPageSize, "within the page")
    total += Int(segment.byteCount)
  }
  switch request.kind {
  case .discard, .secureDiscard:
    require(disk.discard != nil && request.sectorCount > 0 && request.segmentCount == 0, "a discard of something")
    require(request.kind == .discard || disk.discard!.isSecure, "a secure one only where the disk can")
  case .flush: require(request.segmentCount == 0, "a flush carries nothing")
  default: require(total == request.byteCount, "the sum of its segments")
  }
}

extension FuzzInput {
  /// A slot: its few fields at once and, where the next byte says so, with any bytes in all of it. One of the three layouts
  /// (io/protocols.h): native, x86-64, which is the same here, and x86-32, through its own type.
  fileprivate mutating func slot() -> BlkIfRequest {
    let kind = next(UInt8.self)
    var raw = BlkIfRequest(
      operation: kind & 0x80 == 0 ? UInt8(below(8)) : next(), segmentCount: UInt8(below(14)), id: UInt64(kind),
      sectorNumber: 0)
    if raw.operation == BlkIf.Operation.indirect, kind & 0x40 == 0 {
      raw = BlkIfRequest(
        BlkIfIndirectRequest(
          indirectOperation: UInt8(below(4)), segmentCount: next(), id: next(), sectorNumber: sectorNumber(),
          references: InlineArray { _ in 7 }))
    } else if raw.operation == BlkIf.Operation.discard {
      raw = BlkIfRequest(
        BlkIfDiscardRequest(flag: next(), id: next(), sectorNumber: sectorNumber(), sectorCount: sectorNumber()))
    } else {
      raw.sectorNumber = sectorNumber()
      for index in 0..<min(Int(raw.segmentCount), 11) { raw.segments[index] = descriptor() }
      if kind & 0x20 != 0 { raw.segmentCount = next() }
    }
    return kind & 0x10 == 0 ? raw : BlkIfX86_32Request(raw).native
  }

  private mutating func sectorNumber() -> UInt64 { flag() ? UInt64(next(UInt8.self)) : next() }

  private mutating func descriptor() -> BlkIfSegment {
    let (kind, ends) = (next(UInt8.self), next(UInt8.self))
    let reference = GrantReference(rawValue: UInt32(kind))
    return kind & 3 == 3
      ? BlkIfSegment(gref: reference, firstSector: ends, lastSector: next())
      : BlkIfSegment(gref: reference, firstSector: ends & 7, lastSector: (ends >> 4) & 7)
  }

  /// One for each segment, the last that the input has for all that are left.
  fileprivate mutating func descriptors(_ count: Int) -> [BlkIfSegment] {
    var descriptors: [BlkIfSegment] = []
    while descriptors.count < count {
      let next = descriptor()
      descriptors.append(next)
      if isEmpty || flag() { descriptors += Array(repeating: next, count: count - descriptors.count) }
    }
    return descriptors
  }
}
