import Glibc
import XenPlatform

/// Pages of this process for payload that is copied, as many as one queue may use at most. Only those in use, or used lately,
/// take memory.
///
/// Which of them are free, its user knows.
@safe final class BufferPages: @unchecked Sendable {
  // Sendable: the pointer never changes, and its bytes belong to whoever has the page.
  private let baseAddress: UnsafeMutableRawPointer
  let pageCount: Int

  /// - Parameter pageCount: positive.
  /// - Throws: when the process has no address space left.
  init(pageCount: Int) throws(ResourceError) {
    precondition(pageCount > 0, "at least one page")
    self.pageCount = pageCount
    let reserved = unsafe mmap(
      nil, pageCount * xenPageSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    guard unsafe reserved != MAP_FAILED, let base = unsafe reserved else {
      throw ResourceError("no memory is left for a disk's buffers: give it fewer pages, or serve fewer disks")
    }
    unsafe baseAddress = base
  }

  deinit { unsafe munmap(baseAddress, pageCount * xenPageSize) }

  /// - Precondition: the bytes lie within the page of that number.
  func bytes(page: Int, offset: Int, count: Int) -> SharedBytes {
    precondition(page >= 0 && page < pageCount, "page out of range")
    precondition(offset >= 0 && count >= 0 && offset + count <= xenPageSize, "bytes out of range")
    // Safe: within the mapping, as just checked.
    return unsafe SharedBytes(baseAddress: baseAddress + page * xenPageSize + offset, count: count)
  }

  /// Gives back the memory of all pages: they read as zeros when they are next used. Only when nobody has any.
  func squeeze() { unsafe madvise(baseAddress, pageCount * xenPageSize, MADV_DONTNEED) }
}
