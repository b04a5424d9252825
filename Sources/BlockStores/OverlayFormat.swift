/// What an overlay file looks like. All numbers are little-endian.
///
/// | where | what |
/// | --- | --- |
/// | 0 | the header, which never changes: ``OverlayHeader`` |
/// | 4096 | the boot during which the live map was written: 36 characters of /proc/sys/kernel/random/boot_id, zeros, checksum |
/// | 8192 | the live map: two bits a cluster, the lowest of a byte first |
/// | then | the durable map, the same |
/// | then | the clusters: that of number n at n times their size, holes where there is nothing |
///
/// A map begins at a multiple of 4096, the clusters at a multiple of their size. The live map is written before a write is
/// acknowledged and outlives the process, in the page cache; after a power cut nobody knows what of it, and of the data that it
/// speaks of, has reached the medium. The durable map is written when the data is known to be there.
struct OverlayLayout: Equatable {
  static let headerByteCount = 4096
  static let bootOffset: UInt64 = 4096
  static let liveMapOffset: UInt64 = 8192
  /// The unit in which a map is written: a medium writes one of its sectors or does not.
  static let mapBlockByteCount = 512

  let diskByteCount: UInt64
  let clusterByteCount: Int
  let clusterCount: Int
  /// Of one map.
  let mapByteCount: Int
  let durableMapOffset: UInt64
  let dataOffset: UInt64

  /// Nil when a file cannot be that large.
  init?(diskByteCount: UInt64, clusterByteCount: Int) {
    // So that nothing below overflows: 4 EiB.
    guard diskByteCount > 0, diskByteCount < 1 << 62 else { return nil }
    let cluster = UInt64(clusterByteCount)
    self.diskByteCount = diskByteCount
    self.clusterByteCount = clusterByteCount
    clusterCount = Int((diskByteCount + cluster - 1) / cluster)
    mapByteCount = ((clusterCount + 3) / 4 + 4095) / 4096 * 4096
    durableMapOffset = Self.liveMapOffset + UInt64(mapByteCount)
    dataOffset = (durableMapOffset + UInt64(mapByteCount) + cluster - 1) / cluster * cluster
  }

  var fileByteCount: UInt64 { dataOffset + diskByteCount }

  /// Where a block of a map begins and ends in it.
  static func mapBlock(_ block: Int) -> Range<Int> { block * mapBlockByteCount..<(block + 1) * mapBlockByteCount }
}

/// The first page of an overlay file.
struct OverlayHeader: Equatable {
  static let magic = Array("xenovly\n".utf8)
  static let version: UInt32 = 1
  static let clusterShifts: ClosedRange<UInt32> = 12...21

  /// A cluster has two to the power of this many bytes.
  var clusterShift: UInt32
  var base: OverlayBase

  /// Magic (8), version (4), cluster shift (4), the base's size in bytes (8), its last change in seconds (8) and nanoseconds
  /// (8), zeros, and in the last eight bytes the checksum of all before.
  var bytes: [UInt8] {
    var bytes = Self.magic
    for part in [Self.version, clusterShift] { bytes.append(contentsOf: part.littleEndianBytes) }
    for part in [base.byteCount, UInt64(bitPattern: base.changedSeconds), base.changedNanoseconds] {
      bytes.append(contentsOf: part.littleEndianBytes)
    }
    return checksummed(bytes, byteCount: OverlayLayout.headerByteCount)
  }

  /// The gate for a header.
  init(from bytes: [UInt8]) throws(Fault) {
    guard bytes.count == OverlayLayout.headerByteCount, bytes.starts(with: Self.magic) else { throw .notAnOverlay }
    let version = UInt32(truncatingIfNeeded: number(bytes, at: 8, byteCount: 4))
    guard version == Self.version else { throw .version(version) }
    guard hasChecksum(bytes) else { throw .damaged("the checksum of its header is wrong") }
    clusterShift = UInt32(truncatingIfNeeded: number(bytes, at: 12, byteCount: 4))
    base = OverlayBase(
      byteCount: number(bytes, at: 16, byteCount: 8),
      changedSeconds: Int64(bitPattern: number(bytes, at: 24, byteCount: 8)),
      changedNanoseconds: number(bytes, at: 32, byteCount: 8))
    guard Self.clusterShifts.contains(clusterShift) else {
      throw .damaged("its clusters would have two to the power of \(clusterShift) bytes")
    }
  }

  init(clusterShift: UInt32, base: OverlayBase) { (self.clusterShift, self.base) = (clusterShift, base) }

  enum Fault: Error, Equatable {
    case notAnOverlay
    case version(UInt32)
    case damaged(String)
  }
}

/// What tells that a base is the one that an overlay was made for.
struct OverlayBase: Equatable {
  var byteCount: UInt64
  /// Of a block device, zero: its node's changes say nothing.
  var changedSeconds: Int64
  var changedNanoseconds: UInt64
}

/// What a cluster holds.
enum ClusterState: UInt8 {
  /// What the base holds there.
  case base = 0
  /// What the overlay holds.
  case data = 1
  case zero = 2
}

/// The states of all clusters.
struct OverlayMap {
  private(set) var bytes: [UInt8]

  /// Nil when a cluster has a state that is none.
  init?(_ bytes: [UInt8]) {
    for byte in bytes where byte & (byte >> 1) & 0x55 != 0 { return nil }
    self.bytes = bytes
  }

  subscript(cluster: Int) -> ClusterState {
    get { ClusterState(rawValue: (bytes[cluster / 4] >> UInt8(cluster % 4 * 2)) & 3)! }
    set {
      let shift = UInt8(cluster % 4 * 2)
      bytes[cluster / 4] = bytes[cluster / 4] & ~(3 << shift) | newValue.rawValue << shift
    }
  }

  mutating func replace(_ range: Range<Int>, with former: [UInt8]) { bytes.replaceSubrange(range, with: former) }
}

/// The record of the boot during which the live map is valid.
func bootRecord(_ boot: String) -> [UInt8] { checksummed(Array(boot.utf8.prefix(64)), byteCount: 4096) }

// MARK: Bytes

private func checksummed(_ bytes: [UInt8], byteCount: Int) -> [UInt8] {
  let padded = bytes + [UInt8](repeating: 0, count: byteCount - 8 - bytes.count)
  return padded + checksum(padded[...]).littleEndianBytes
}

private func hasChecksum(_ bytes: [UInt8]) -> Bool {
  number(bytes, at: bytes.count - 8, byteCount: 8) == checksum(bytes.dropLast(8))
}

/// FNV-1a with 64 bits: against accidents, not against anybody.
private func checksum(_ bytes: ArraySlice<UInt8>) -> UInt64 {
  bytes.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 }
}

private func number(_ bytes: [UInt8], at offset: Int, byteCount: Int) -> UInt64 {
  bytes[offset..<offset + byteCount].reversed().reduce(0) { $0 << 8 | UInt64($1) }
}

extension FixedWidthInteger {
  fileprivate var littleEndianBytes: [UInt8] {
    (0..<Self.bitWidth / 8).map { UInt8(truncatingIfNeeded: self >> (8 * $0)) }
  }
}
