/// Whoever handed out a ``SharedRegion`` and takes it back when the region ends.
public protocol SharedRegionOwner: AnyObject, Sendable {
  /// Takes back the memory at `baseAddress`. Called exactly once for each region, from whichever thread ends it.
  func endRegion(at baseAddress: UnsafeMutableRawPointer, byteCount: Int)
}

/// The size of a Xen page in bytes (`XEN_PAGE_SIZE`); a grant reference always names one of these.
public let xenPageSize = 4096

/// One contiguous run of memory that another domain may read and write while we do.
///
/// A region is a unique owner: when it ends, its memory goes back to whoever handed it out (it is unmapped, or ceases to
/// be shared). It hands out no pointer to safe code; a ring takes the region over, and payload is reached through ``bytes``.
///
/// Sendable: the pointer never changes, and what it points to is shared memory for everybody.
@safe public struct SharedRegion: ~Copyable, @unchecked Sendable {
  /// Page-aligned; valid until the region ends.
  @unsafe public let baseAddress: UnsafeMutableRawPointer
  /// A positive multiple of ``xenPageSize``.
  public let byteCount: Int
  private let owner: any SharedRegionOwner

  /// Makes the owner of `byteCount` bytes at `baseAddress`, which must stay readable and writable until
  /// `owner.endRegion(at:byteCount:)` is called.
  @unsafe public init(baseAddress: UnsafeMutableRawPointer, byteCount: Int, owner: any SharedRegionOwner) {
    precondition(byteCount > 0 && byteCount % xenPageSize == 0, "a shared region is whole pages")
    unsafe self.baseAddress = baseAddress
    self.byteCount = byteCount
    self.owner = owner
  }

  deinit { unsafe owner.endRegion(at: baseAddress, byteCount: byteCount) }

  /// The region's bytes, as payload. Valid no longer than the region.
  public var bytes: SharedBytes { unsafe SharedBytes(baseAddress: baseAddress, count: byteCount) }
}

/// Page-aligned memory of this process alone, zeroed, for rings that no hypervisor shares: tests, benchmarks, and two
/// threads of one program.
///
/// Each ``region()`` reaches the same bytes; the memory is freed when the last region and the object itself have ended.
///
/// Sendable: as ``SharedRegion``.
@safe public final class PrivatePages: SharedRegionOwner, @unchecked Sendable {
  private let baseAddress: UnsafeMutableRawPointer
  /// How many pages there are.
  public let pageCount: Int

  public init(pageCount: Int) {
    precondition(pageCount > 0, "at least one page")
    self.pageCount = pageCount
    unsafe baseAddress = .allocate(byteCount: pageCount * xenPageSize, alignment: xenPageSize)
    unsafe baseAddress.initializeMemory(as: UInt8.self, repeating: 0, count: pageCount * xenPageSize)
  }

  deinit { unsafe baseAddress.deallocate() }

  /// The pages' bytes. Valid no longer than the object.
  public var bytes: SharedBytes { unsafe SharedBytes(baseAddress: baseAddress, count: pageCount * xenPageSize) }

  /// Another view of the same memory; it keeps the memory alive.
  public func region() -> SharedRegion {
    unsafe SharedRegion(baseAddress: baseAddress, byteCount: pageCount * xenPageSize, owner: self)
  }

  public func endRegion(at baseAddress: UnsafeMutableRawPointer, byteCount: Int) {}
}
