import XenPlatform

/// A request that has passed the gate: every number in it is one that the disk and the protocol allow.
///
/// What a grant reference names is for the hypervisor to judge.
public struct BlkRequest: BitwiseCopyable, Sendable {
  public enum Kind: BitwiseCopyable, Sendable {
    case read, write
    /// A write that all requests before it precede and all after it follow, on the medium when it is answered.
    case writeBarrier
    /// All writes that were answered before are on the medium when it is.
    case flush
  }

  public struct Segment: BitwiseCopyable, Sendable {
    public let reference: GrantReference
    /// Bytes from the start of the granted page, and how many: within the page, multiples of 512, not empty.
    public let offset: UInt16
    public let byteCount: UInt16
  }

  public let kind: Kind
  /// As the slot said, for the response.
  public let operation: UInt8
  public let id: UInt64
  /// In 512-byte sectors; zero for a flush.
  public let sector: UInt64
  /// The sum of the segments' bytes: at most 11 pages, zero for a flush.
  public let byteCount: Int
  public let segmentCount: Int
  private let storage: InlineArray<11, Segment>

  /// - Precondition: `index` is below ``segmentCount``.
  public func segment(_ index: Int) -> Segment {
    precondition(index < segmentCount, "segment out of range")
    return storage[index]
  }

  /// Checks a copied slot against the disk: the one gate for block requests (io/blkif.h, `blkif_request`).
  public init(parsing raw: BlkIfRequest, for disk: BlockGeometry) throws(BlkRequestFault) {
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
    guard raw.segmentCount <= BlkIf.maxSegmentCount else { throw .segmentCount(raw.segmentCount) }
    guard raw.segmentCount > 0 || kind == .flush || kind == .writeBarrier else { throw .segmentCount(0) }
    guard kind == .read || kind == .flush || !disk.isReadOnly else { throw .readOnlyDisk }
    segmentCount = Int(raw.segmentCount)
    var segments = InlineArray<11, Segment>(
      repeating: Segment(reference: GrantReference(rawValue: 0), offset: 0, byteCount: 0))
    var sectorCount = 0
    for index in 0..<segmentCount {
      let segment = raw.segments[index]
      guard segment.firstSector <= segment.lastSector, segment.lastSector < BlkIf.sectorsPerPage else {
        throw .segmentOutsidePage(index: index, first: segment.firstSector, last: segment.lastSector)
      }
      let count = UInt16(segment.lastSector - segment.firstSector) + 1
      segments[index] = Segment(
        reference: GrantReference(rawValue: segment.gref), offset: UInt16(segment.firstSector) * 512,
        byteCount: count * 512)
      sectorCount += Int(count)
    }
    storage = segments
    byteCount = sectorCount * BlkIf.sectorByteCount
    guard segmentCount > 0 else {
      sector = 0
      return
    }
    sector = raw.sectorNumber
    guard disk.contains(sector: raw.sectorNumber, count: UInt64(sectorCount)) else {
      throw .outsideDisk(sector: raw.sectorNumber, count: sectorCount, diskSectorCount: disk.sectorCount)
    }
    guard disk.isAligned(sector: raw.sectorNumber, count: UInt64(sectorCount)) else {
      throw .unaligned(sector: raw.sectorNumber, count: sectorCount, sectorByteCount: disk.sectorByteCount)
    }
  }
}

/// Why a request is answered with an error. It concerns that request and nothing else.
@nonexhaustive public enum BlkRequestFault: Error, Hashable, Sendable, CustomStringConvertible {
  case unknownOperation(UInt8)
  case segmentCount(UInt8)
  case segmentOutsidePage(index: Int, first: UInt8, last: UInt8)
  case outsideDisk(sector: UInt64, count: Int, diskSectorCount: UInt64)
  case unaligned(sector: UInt64, count: Int, sectorByteCount: UInt32)
  case readOnlyDisk

  /// `BLKIF_RSP_*`: what the response says.
  public var status: Int16 {
    if case .unknownOperation = self { BlkIf.Status.notSupported } else { BlkIf.Status.error }
  }

  public var description: String {
    switch self {
    case .unknownOperation(let operation): "operation \(operation) is none that we know"
    case .segmentCount(let count): "\(count) segments, where 1 to \(BlkIf.maxSegmentCount) are allowed"
    case .segmentOutsidePage(let index, let first, let last):
      "segment \(index) goes from sector \(first) to \(last) of its page, which has sectors 0 to 7"
    case .outsideDisk(let sector, let count, let diskSectorCount):
      "\(count) sectors from \(sector) on leave the disk, which has \(diskSectorCount)"
    case .unaligned(let sector, let count, let sectorByteCount):
      "\(count) sectors from \(sector) on are not whole sectors of \(sectorByteCount) bytes"
    case .readOnlyDisk: "the disk is read-only"
    }
  }
}
