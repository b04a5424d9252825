import BlkIf
import Glibc

/// A disk in this process's memory, zeroed at the start, lost at the end. What is discarded is zeroed.
///
/// Sendable: its pages and its size are changed under the lock alone, by nobody while a batch is being done.
@safe public final class MemoryStore: BlockStore, @unchecked Sendable {
  private let base: BlockGeometry
  private var pages: PrivatePages
  private var sectorCount: UInt64
  private let lock: UnsafeMutablePointer<pthread_rwlock_t>

  /// - Parameter sectorCount: in 512-byte sectors; positive.
  public convenience init(sectorCount: UInt64) {
    self.init(
      geometry: BlockGeometry(sectorCount: sectorCount, discard: DiscardLimits(granularity: 512, isSecure: true)))
  }

  public init(geometry: BlockGeometry) {
    base = geometry
    sectorCount = geometry.sectorCount
    pages = Self.pages(for: geometry.sectorCount)
    unsafe lock = .allocate(capacity: 1)
    unsafe lock.initialize(to: pthread_rwlock_t())
    unsafe pthread_rwlock_init(lock, nil)
  }

  deinit {
    unsafe pthread_rwlock_destroy(lock)
    unsafe lock.deallocate()
  }

  private static func pages(for sectorCount: UInt64) -> PrivatePages {
    let perPage = UInt64(BlkIf.sectorsPerPage)
    return PrivatePages(pageCount: Int((sectorCount + perPage - 1) / perPage))
  }

  public var geometry: BlockGeometry {
    unsafe pthread_rwlock_rdlock(lock)
    defer { unsafe pthread_rwlock_unlock(lock) }
    var geometry = base
    geometry.sectorCount = sectorCount
    return geometry
  }

  /// Gives the disk another size; what comes to it is zeros. Its guest hears of it when somebody calls for
  /// ``XenbusDevice/attention``, or before.
  ///
  /// - Parameter sectorCount: in 512-byte sectors; positive, and whole sectors of the disk's.
  public func resize(sectorCount: UInt64) {
    precondition(sectorCount > 0 && sectorCount % UInt64(base.sectorByteCount / 512) == 0, "a disk of whole sectors")
    let pages = Self.pages(for: sectorCount)
    unsafe pthread_rwlock_wrlock(lock)
    defer { unsafe pthread_rwlock_unlock(lock) }
    let kept = Int(min(sectorCount, self.sectorCount)) * BlkIf.sectorByteCount
    pages.bytes.copy(from: self.pages.bytes.slice(from: 0, count: kept))
    (self.pages, self.sectorCount) = (pages, sectorCount)
  }

  public func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    unsafe pthread_rwlock_rdlock(lock)
    defer { unsafe pthread_rwlock_unlock(lock) }
    let (bytes, sectorCount) = (pages.bytes, sectorCount)
    for index in requests.indices {
      let request = requests[index]
      guard request.sectorCount > 0 else {
        completions.complete(request)
        continue
      }
      guard request.sectorCount <= sectorCount, request.sector <= sectorCount - request.sectorCount else {
        completions.fail(request, because: "the disk has become smaller")
        continue
      }
      let place = bytes.slice(from: Int(request.offset), count: Int(request.sectorCount) * BlkIf.sectorByteCount)
      switch request.kind {
      case .read: request.payload.copy(from: place)
      case .write, .writeBarrier: request.payload.copy(to: place)
      case .discard, .secureDiscard: place.zero()
      case .flush: break
      }
      completions.complete(request)
    }
  }
}
