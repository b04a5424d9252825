import BlkIf

/// What a backend offers before our rings are there: the gate for these keys.
struct BlkBackendOffer {
  /// The most pages of a ring, as `max-ring-page-order` or the deprecated `max-ring-pages` has it: a power of two.
  let ringPageCount: Int
  let queueCount: Int

  init(from backend: StoreDirectory) throws(DeviceError) {
    // Whatever is more than anybody uses is as good as that.
    let order = min(try backend.optionalNumber("max-ring-page-order", as: UInt64.self) ?? 0, 16)
    let count = min(try backend.optionalNumber("max-ring-pages", as: UInt64.self) ?? 1, 1 << 16)
    ringPageCount = max(1 << Int(order), count > 0 ? 1 << (63 - count.leadingZeroBitCount) : 1)
    queueCount = Int(min(max(try backend.optionalNumber("multi-queue-max-queues", as: UInt64.self) ?? 1, 1), 1 << 16))
  }
}

/// What a connected backend says: the gate for these keys.
///
/// Not read before: Linux's backend opens its device late, and offers with Connected what that can do.
struct BlkBackendKeys {
  let geometry: BlockGeometry
  let offersFlush: Bool
  let offersBarrier: Bool
  let offersPersistentGrants: Bool
  let maxIndirectSegmentCount: Int
  /// `feature-large-sector-size`, which is deprecated.
  let hasLargeSectorSize: Bool

  init(from backend: StoreDirectory, in units: SectorUnits) throws(DeviceError) {
    geometry = try BlockGeometry(from: backend, in: units)
    offersFlush = try backend.flag("feature-flush-cache")
    offersBarrier = try backend.flag("feature-barrier")
    offersPersistentGrants = try backend.flag("feature-persistent")
    let segmentCount = try backend.optionalNumber("feature-max-indirect-segments", as: UInt64.self) ?? 0
    // More than eight pages describe nobody can use.
    maxIndirectSegmentCount = Int(min(segmentCount, UInt64(BlkIf.maxIndirectSegmentCount)))
    hasLargeSectorSize = try backend.flag("feature-large-sector-size")
  }
}
