@_exported import XenBus
@_exported import XenPlatform

/// The numbers of io/blkif.h.
public enum BlkIf {
  /// The unit of every sector number on the wire and in the store, whatever the disk's own sector size (`sectors`).
  public static let sectorByteCount = 512
  public static let sectorsPerPage = xenPageSize / sectorByteCount
  /// `BLKIF_MAX_SEGMENTS_PER_REQUEST`.
  public static let maxSegmentCount = 11
  /// `BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST`.
  public static let maxIndirectPageCount = 8
  /// How many segments one indirect page describes.
  public static let segmentsPerIndirectPage = xenPageSize / MemoryLayout<BlkIfSegment>.stride
  /// The most segments that an indirect request can have.
  public static let maxIndirectSegmentCount = maxIndirectPageCount * segmentsPerIndirectPage

  /// `BLKIF_OP_*`.
  public enum Operation {
    public static let read: UInt8 = 0
    public static let write: UInt8 = 1
    public static let writeBarrier: UInt8 = 2
    public static let flushDiskCache: UInt8 = 3
    public static let discard: UInt8 = 5
    public static let indirect: UInt8 = 6
  }

  /// `BLKIF_DISCARD_SECURE`, a bit of a discard's flag.
  public static let discardSecure: UInt8 = 1

  /// `BLKIF_RSP_*`.
  public enum Status {
    public static let okay: Int16 = 0
    public static let error: Int16 = -1
    public static let notSupported: Int16 = -2
  }

  /// `VDISK_*`, the bits of the key `info`.
  public enum Info {
    public static let cdrom: UInt32 = 1
    public static let removable: UInt32 = 2
    public static let readOnly: UInt32 = 4
  }
}

/// One segment as it lies in a request slot (`blkif_request_segment`): 8 bytes.
public struct BlkIfSegment: BitwiseCopyable, Sendable {
  public var gref: UInt32 = 0
  public var firstSector: UInt8 = 0
  public var lastSector: UInt8 = 0
  var padding: UInt16 = 0

  public init() {}

  /// - Parameters:
  ///   - firstSector: in the unit that both ends use (``SectorUnits``), from the page's start.
  ///   - lastSector: the last one that belongs to it.
  public init(gref: GrantReference, firstSector: UInt8, lastSector: UInt8) {
    self.gref = gref.rawValue
    self.firstSector = firstSector
    self.lastSector = lastSector
  }
}

/// A request slot of the native and x86-64 layouts (`blkif_request`): 112 bytes. Raw: nothing in it is checked.
public struct BlkIfRequest: BitwiseCopyable, Sendable {
  public var operation: UInt8
  public var segmentCount: UInt8
  public var handle: UInt16
  var padding: UInt32 = 0
  public var id: UInt64
  public var sectorNumber: UInt64
  public var segments: InlineArray<11, BlkIfSegment>

  public init(
    operation: UInt8, segmentCount: UInt8 = 0, handle: UInt16 = 0, id: UInt64, sectorNumber: UInt64 = 0,
    segments: InlineArray<11, BlkIfSegment> = InlineArray(repeating: BlkIfSegment())
  ) {
    self.operation = operation
    self.segmentCount = segmentCount
    self.handle = handle
    self.id = id
    self.sectorNumber = sectorNumber
    self.segments = segments
  }
}

/// A request slot read as an indirect request (`blkif_request_indirect`): 112 bytes, as ``BlkIfRequest``. Raw: nothing in it
/// is checked.
public struct BlkIfIndirectRequest: BitwiseCopyable, Sendable {
  public var operation: UInt8 = BlkIf.Operation.indirect
  /// Read or write.
  public var indirectOperation: UInt8
  public var segmentCount: UInt16
  var padding: UInt32 = 0
  public var id: UInt64
  public var sectorNumber: UInt64
  public var handle: UInt16
  var secondPadding: UInt16 = 0
  /// Of the pages with the segments, as many as are needed for these.
  public var references: InlineArray<8, UInt32>
  var tail = InlineArray<13, UInt32>(repeating: 0)

  public init(
    indirectOperation: UInt8, segmentCount: UInt16, handle: UInt16 = 0, id: UInt64, sectorNumber: UInt64,
    references: InlineArray<8, UInt32>
  ) {
    (self.indirectOperation, self.segmentCount, self.handle) = (indirectOperation, segmentCount, handle)
    (self.id, self.sectorNumber, self.references) = (id, sectorNumber, references)
  }
}

/// A request slot read as a discard (`blkif_request_discard`): 112 bytes, as ``BlkIfRequest``. Raw: nothing in it is checked.
public struct BlkIfDiscardRequest: BitwiseCopyable, Sendable {
  public var operation: UInt8 = BlkIf.Operation.discard
  /// `BLKIF_DISCARD_SECURE` or zero.
  public var flag: UInt8
  public var handle: UInt16
  var padding: UInt32 = 0
  public var id: UInt64
  public var sectorNumber: UInt64
  public var sectorCount: UInt64
  var tail = InlineArray<10, UInt64>(repeating: 0)

  public init(flag: UInt8 = 0, handle: UInt16 = 0, id: UInt64, sectorNumber: UInt64, sectorCount: UInt64) {
    (self.flag, self.handle, self.id) = (flag, handle, id)
    (self.sectorNumber, self.sectorCount) = (sectorNumber, sectorCount)
  }
}

// The three are one slot in three readings: each has the same bytes at the same places in the x86-32 layout, too.
// Safe: all are 112 bytes of plain numbers, with their padding spelt out.
extension BlkIfRequest {
  /// The slot read as an indirect request.
  public var indirect: BlkIfIndirectRequest { unsafe unsafeBitCast(self, to: BlkIfIndirectRequest.self) }
  /// The slot read as a discard.
  public var discard: BlkIfDiscardRequest { unsafe unsafeBitCast(self, to: BlkIfDiscardRequest.self) }

  public init(_ request: BlkIfIndirectRequest) { self = unsafe unsafeBitCast(request, to: BlkIfRequest.self) }
  public init(_ request: BlkIfDiscardRequest) { self = unsafe unsafeBitCast(request, to: BlkIfRequest.self) }
}

/// A response slot of the native and x86-64 layouts (`blkif_response`): 16 bytes. Raw: nothing in it is checked.
public struct BlkIfResponse: BitwiseCopyable, Sendable {
  public var id: UInt64
  public var operation: UInt8
  var padding: UInt8 = 0
  public var status: Int16
  var tailPadding: UInt32 = 0

  public init(id: UInt64, operation: UInt8, status: Int16) {
    self.id = id
    self.operation = operation
    self.status = status
  }
}
