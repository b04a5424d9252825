import XenPlatform

/// A request that has passed the gate: every number in it is one that the disk and the protocol allow.
///
/// What a grant reference names is for the hypervisor to judge. An indirect request passes the gate in two steps, since its
/// segments lie in pages of the frontend's: ``init(parsing:by:segments:at:)``, and ``parse(descriptors:by:segments:at:)`` with these
/// pages' bytes.
public struct BlkRequest: BitwiseCopyable, Sendable {
  public enum Kind: BitwiseCopyable, Hashable, Sendable {
    case read, write
    /// A write that all requests before it precede and all after it follow, on the medium when it is answered.
    case writeBarrier
    /// All writes that were answered before are on the medium when it is.
    case flush
    /// The sectors are not needed any more; what they read as afterwards is anything.
    case discard
    /// And what they held must not be readable by anybody.
    case secureDiscard
  }

  public struct Segment: BitwiseCopyable, Sendable {
    public let reference: GrantReference
    /// Bytes from the start of the granted page, and how many: within the page, multiples of 512, not empty.
    public let offset: UInt16
    public let byteCount: UInt16

    /// What a table of segments holds where there is none.
    public static let none = Segment(reference: GrantReference(rawValue: 0), offset: 0, byteCount: 0)
  }

  public let kind: Kind
  /// For the response: as the slot said or, of an indirect request, what it asks for, as Linux's drivers have it.
  public let operation: UInt8
  public let id: UInt64
  /// In 512-byte sectors; zero for a flush.
  public let sector: UInt64
  /// In 512-byte sectors: the sum of the segments', or of what is to be discarded.
  public private(set) var sectorCount: UInt64 = 0
  public let segmentCount: Int
  /// The pages that describe the segments of an indirect request; as many of them count as ``indirectPageCount`` says.
  public let indirectReferences: InlineArray<8, UInt32>
  public let indirectPageCount: Int

  /// The payload's length: the sum of the segments' bytes.
  public var byteCount: Int { segmentCount > 0 ? Int(sectorCount) * BlkIf.sectorByteCount : 0 }

  /// Checks a copied slot: the one gate for block requests (io/blkif.h, `blkif_request`, `blkif_request_indirect`,
  /// `blkif_request_discard`).
  ///
  /// - Parameters:
  ///   - rules: what the request is held to.
  ///   - segments: takes the segments of a request that is not indirect.
  ///   - start: where in it they begin; there is room for as many as the rules allow.
  public init(
    parsing raw: BlkIfRequest, by rules: BlkRules, segments: inout MutableSpan<Segment>, at start: Int
  ) throws(BlkRequestFault) {
    switch raw.operation {
    case BlkIf.Operation.indirect: try self.init(indirect: raw.indirect, by: rules)
    case BlkIf.Operation.discard: try self.init(discard: raw.discard, by: rules)
    default: try self.init(direct: raw, by: rules, segments: &segments, at: start)
    }
  }

  @inline(__always) private init(
    direct raw: BlkIfRequest, by rules: BlkRules, segments: inout MutableSpan<Segment>, at start: Int
  ) throws(BlkRequestFault) {
    switch raw.operation {
    case BlkIf.Operation.read: kind = .read
    case BlkIf.Operation.write: kind = .write
    case BlkIf.Operation.writeBarrier: kind = .writeBarrier
    // A flush that carries data is written after what came before, as Linux and QEMU take it.
    case BlkIf.Operation.flushDiskCache: kind = raw.segmentCount == 0 ? .flush : .writeBarrier
    default: throw .unknownOperation(raw.operation)
    }
    operation = raw.operation
    id = raw.id
    guard raw.segmentCount <= BlkIf.maxSegmentCount else { throw .segmentCount(Int(raw.segmentCount)) }
    guard raw.segmentCount > 0 || kind == .flush || kind == .writeBarrier else { throw .segmentCount(0) }
    guard kind == .read || kind == .flush || !rules.disk.isReadOnly else { throw .readOnlyDisk }
    segmentCount = Int(raw.segmentCount)
    indirectReferences = InlineArray(repeating: 0)
    indirectPageCount = 0
    guard segmentCount > 0 else {
      sector = 0
      return
    }
    sector = try rules.sector(raw.sectorNumber)
    let descriptors = raw.segments.span.extracting(0..<segmentCount)
    try takeIn(descriptors, by: rules, segments: &segments, at: start)
  }

  private init(indirect raw: BlkIfIndirectRequest, by rules: BlkRules) throws(BlkRequestFault) {
    switch raw.indirectOperation {
    case BlkIf.Operation.read: kind = .read
    case BlkIf.Operation.write: kind = .write
    default: throw .unknownOperation(raw.indirectOperation)
    }
    operation = raw.indirectOperation
    id = raw.id
    guard rules.maxIndirectSegmentCount > 0 else { throw .unknownOperation(raw.operation) }
    guard raw.segmentCount > 0, raw.segmentCount <= rules.maxIndirectSegmentCount else {
      throw .segmentCount(Int(raw.segmentCount))
    }
    guard kind == .read || !rules.disk.isReadOnly else { throw .readOnlyDisk }
    segmentCount = Int(raw.segmentCount)
    sector = try rules.sector(raw.sectorNumber)
    indirectReferences = raw.references
    indirectPageCount = (segmentCount + BlkIf.segmentsPerIndirectPage - 1) / BlkIf.segmentsPerIndirectPage
  }

  private init(discard raw: BlkIfDiscardRequest, by rules: BlkRules) throws(BlkRequestFault) {
    guard let limits = rules.disk.discard else { throw .unknownOperation(raw.operation) }
    let isSecure = raw.flag & BlkIf.discardSecure != 0
    kind = isSecure ? .secureDiscard : .discard
    operation = raw.operation
    id = raw.id
    (segmentCount, indirectPageCount) = (0, 0)
    indirectReferences = InlineArray(repeating: 0)
    guard !rules.disk.isReadOnly else { throw .readOnlyDisk }
    // Said, and not done insecurely.
    guard !isSecure || limits.isSecure else { throw .insecureDiscard }
    sector = try rules.sector(raw.sectorNumber)
    sectorCount = try rules.sector(raw.sectorCount)
    guard sectorCount > 0 else { throw .emptyDiscard }
    try checkPlace(by: rules)
  }

  /// The second step for an indirect request: takes in what its indirect pages say, copied once.
  ///
  /// - Parameter descriptors: ``segmentCount`` of them.
  public mutating func parse(
    descriptors: Span<BlkIfSegment>, by rules: BlkRules, segments: inout MutableSpan<Segment>, at start: Int
  ) throws(BlkRequestFault) {
    precondition(descriptors.count == segmentCount, "as many descriptors as the request says")
    try takeIn(descriptors, by: rules, segments: &segments, at: start)
  }

  @inline(__always) private mutating func takeIn(
    _ descriptors: Span<BlkIfSegment>, by rules: BlkRules, segments: inout MutableSpan<Segment>, at start: Int
  ) throws(BlkRequestFault) {
    var total = 0
    for index in descriptors.indices {
      let segment = descriptors[index]
      guard segment.firstSector <= segment.lastSector, segment.lastSector < rules.segmentUnitsPerPage else {
        throw .segmentOutsidePage(
          index: index, first: segment.firstSector, last: segment.lastSector, unitCount: rules.segmentUnitsPerPage)
      }
      let count = (UInt16(segment.lastSector - segment.firstSector) + 1) * rules.segmentUnitByteCount
      segments[start + index] = Segment(
        reference: GrantReference(rawValue: segment.gref),
        offset: UInt16(segment.firstSector) * rules.segmentUnitByteCount, byteCount: count)
      total += Int(count)
    }
    sectorCount = UInt64(total / BlkIf.sectorByteCount)
    try checkPlace(by: rules)
  }

  private func checkPlace(by rules: BlkRules) throws(BlkRequestFault) {
    guard rules.disk.contains(sector: sector, count: sectorCount) else {
      throw .outsideDisk(sector: sector, count: sectorCount, diskSectorCount: rules.disk.sectorCount)
    }
    guard rules.disk.isAligned(sector: sector, count: sectorCount) else {
      throw .unaligned(sector: sector, count: sectorCount, sectorByteCount: rules.disk.sectorByteCount)
    }
  }
}

/// What requests of one disk are held to.
public struct BlkRules: Sendable {
  /// Its sector count may change while requests come (`sectors` rewritten).
  public var disk: BlockGeometry
  /// The most that an indirect request may have (`feature-max-indirect-segments`); zero where such requests are not offered.
  public let maxIndirectSegmentCount: Int
  let sectorsPerNumber: UInt64
  let segmentUnitByteCount: UInt16
  let segmentUnitsPerPage: UInt8

  /// - Parameter maxIndirectSegmentCount: up to ``BlkIf/maxIndirectSegmentCount``.
  public init(for disk: BlockGeometry, maxIndirectSegmentCount: Int = 0, units: SectorUnits = .standard) {
    precondition(
      maxIndirectSegmentCount >= 0 && maxIndirectSegmentCount <= BlkIf.maxIndirectSegmentCount,
      "as many segments as eight pages describe")
    self.disk = disk
    self.maxIndirectSegmentCount = maxIndirectSegmentCount
    sectorsPerNumber = disk.sectorsPer(units.sectorNumber)
    let unit = disk.sectorsPer(units.firstSector)
    segmentUnitByteCount = UInt16(unit) * UInt16(BlkIf.sectorByteCount)
    segmentUnitsPerPage = UInt8(BlkIf.sectorsPerPage) / UInt8(unit)
  }

  /// The most segments that any request may have.
  public var maxSegmentCount: Int { max(BlkIf.maxSegmentCount, maxIndirectSegmentCount) }

  /// A sector number or count of a request in 512-byte sectors.
  func sector(_ number: UInt64) throws(BlkRequestFault) -> UInt64 {
    let (sector, overflow) = number.multipliedReportingOverflow(by: sectorsPerNumber)
    guard !overflow else { throw .outsideDisk(sector: number, count: 0, diskSectorCount: disk.sectorCount) }
    return sector
  }
}

/// Why a request is answered with an error. It concerns that request and nothing else.
@nonexhaustive public enum BlkRequestFault: Error, Hashable, Sendable, CustomStringConvertible {
  /// None that we know, or none that was offered.
  case unknownOperation(UInt8)
  case segmentCount(Int)
  case segmentOutsidePage(index: Int, first: UInt8, last: UInt8, unitCount: UInt8)
  case outsideDisk(sector: UInt64, count: UInt64, diskSectorCount: UInt64)
  case unaligned(sector: UInt64, count: UInt64, sectorByteCount: UInt32)
  case readOnlyDisk
  case emptyDiscard
  /// A secure discard of a disk that cannot (`discard-secure`).
  case insecureDiscard

  /// `BLKIF_RSP_*`: what the response says.
  public var status: Int16 {
    switch self {
    case .unknownOperation, .insecureDiscard: BlkIf.Status.notSupported
    default: BlkIf.Status.error
    }
  }

  public var description: String {
    switch self {
    case .unknownOperation(let operation): "operation \(operation) is none that is offered"
    case .segmentCount(let count): "\(count) segments are none, or more than are allowed"
    case .segmentOutsidePage(let index, let first, let last, let unitCount):
      "segment \(index) goes from sector \(first) to \(last) of its page, which has \(unitCount)"
    case .outsideDisk(let sector, let count, let diskSectorCount):
      "\(count) sectors from \(sector) on leave the disk, which has \(diskSectorCount)"
    case .unaligned(let sector, let count, let sectorByteCount):
      "\(count) sectors from \(sector) on are not whole sectors of \(sectorByteCount) bytes"
    case .readOnlyDisk: "the disk is read-only"
    case .emptyDiscard: "nothing is to be discarded"
    case .insecureDiscard: "the disk cannot discard securely"
    }
  }
}

extension BlkIfRequest {
  /// What the response to a request says that did not pass the gate: as ``BlkRequest/operation``.
  public var answeredOperation: UInt8 {
    operation == BlkIf.Operation.indirect ? indirect.indirectOperation : operation
  }
}
