import BlkIf

/// What is asked of a disk, whatever queue it goes to and whatever form it has there.
struct BlkFrontRequest: BitwiseCopyable {
  /// Never `BLKIF_OP_INDIRECT`, which is a form.
  var operation: UInt8
  /// Of a discard.
  var flag: UInt8 = 0
  /// In 512-byte sectors.
  var sector: UInt64 = 0
  /// The payload's.
  var byteCount = 0
  /// Of a discard, in 512-byte sectors.
  var sectorCount: UInt64 = 0
  var tag: UInt64
  /// The place in the order in which the user has asked.
  var sequence: UInt64 = 0
  /// Where these bytes begin in what the user asked for, when it is put again in parts; nil for what was never put before.
  var partOffset: UInt32?

  @inline(__always) var isRead: Bool { operation == BlkIf.Operation.read }

  var isWrite: Bool { operation == BlkIf.Operation.write || operation == BlkIf.Operation.writeBarrier }
}

/// What the requests of a connection are held to, and how its sectors are written down.
struct BlkFrontLimits {
  /// Pages of one request.
  var maxSegmentCount = BlkIf.maxSegmentCount
  /// Two to the power of these 512-byte sectors are the unit of a sector number, and of a sector in a page.
  var numberShift: UInt64 = 0
  var pageShift = 9
  /// Nothing of one request is to be in a page of another (`trusted`).
  var isUntrusted = false

  init() {}

  init(_ geometry: BlockGeometry, maxSegmentCount: Int, units: SectorUnits, isUntrusted: Bool) {
    self.maxSegmentCount = maxSegmentCount
    self.isUntrusted = isUntrusted
    numberShift = UInt64(geometry.sectorsPer(units.sectorNumber).trailingZeroBitCount)
    pageShift = 9 + geometry.sectorsPer(units.firstSector).trailingZeroBitCount
  }
}
