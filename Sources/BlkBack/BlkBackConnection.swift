import BlkIf
import Synchronization
import XenRing

/// How large a disk is now: written by the bus's thread, read by the queues'.
final class DiskSize: Sendable {
  private let value: Atomic<UInt64>

  init(sectorCount: UInt64) { value = Atomic(sectorCount) }

  /// In 512-byte sectors.
  var sectorCount: UInt64 {
    get { value.load(ordering: .relaxed) }
    set { value.store(newValue, ordering: .relaxed) }
  }
}

/// What the queues of a connection have in common.
struct BlkBackConnection {
  let rules: BlkRules
  let size: DiskSize
  let frontend: DomainID
  let grants: any GrantTable
  let clock: @Sendable () -> Uptime
  /// Told once, of the first request that the store fails.
  let failure: FirstFault<String>
  /// Zero when the frontend's pages do not stay mapped.
  let persistentPageCount: Int
  let bufferPageCount: Int
}
