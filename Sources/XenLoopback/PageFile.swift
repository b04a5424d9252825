import CLinux
import Glibc
import XenPlatform

/// The pages of one `share`: a memfd, so that each mapping of them has a protection of its own and ends by itself.
struct PageFile {
  let descriptor: CInt

  init(pageCount: Int) throws(GrantError) {
    // Safe: the name is a constant.
    descriptor = unsafe linux_memfd("xen-grants")
    guard descriptor >= 0, ftruncate(descriptor, pageCount * xenPageSize) == 0 else {
      if descriptor >= 0 { close() }
      throw .exhausted(pageCount: pageCount, advice: "no memory or file descriptor is left in this process")
    }
  }

  func close() { _ = Glibc.close(descriptor) }
}

/// Pages of files, mapped as one contiguous region.
@safe struct PageMapping {
  /// One page of one file.
  struct Page {
    let file: PageFile
    let number: Int
  }

  /// Page-aligned; valid until ``unmap()``.
  let baseAddress: UnsafeMutableRawPointer
  let pageCount: Int
  private let protection: CInt

  /// - Parameter pages: not empty.
  init(_ pages: [Page], writable: Bool) throws(GrantError) {
    protection = writable ? PROT_READ | PROT_WRITE : PROT_READ
    pageCount = pages.count
    // A reservation first, then the pages over it, so that the region is contiguous.
    let reserved = unsafe mmap(nil, pageCount * xenPageSize, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
    guard unsafe reserved != MAP_FAILED, let base = unsafe reserved else { throw Self.failure() }
    unsafe baseAddress = base
    guard place(pages, MAP_SHARED) else {
      let error = Self.failure()
      unmap()
      throw error
    }
  }

  /// Cuts the region off: it shows what it showed, and nobody sees any more what is written to it. The owner of a pointer
  /// into it notices nothing.
  ///
  /// - Parameter pages: those that it was made of.
  func detach(_ pages: [Page]) {
    precondition(place(pages, MAP_PRIVATE), "this process has no room left for mappings: raise vm.max_map_count")
  }

  func unmap() { unsafe munmap(baseAddress, pageCount * xenPageSize) }

  /// Maps each stretch of neighbouring pages in its place.
  private func place(_ pages: [Page], _ kind: CInt) -> Bool {
    var start = 0
    while start < pages.count {
      let first = pages[start]
      var end = start + 1
      while end < pages.count, pages[end].file.descriptor == first.file.descriptor,
        pages[end].number == first.number + end - start
      { end += 1 }
      // Safe: it replaces a part of the region, which is ours.
      let placed = unsafe mmap(
        baseAddress + start * xenPageSize, (end - start) * xenPageSize, protection, kind | MAP_FIXED,
        first.file.descriptor, first.number * xenPageSize)
      guard unsafe placed != MAP_FAILED else { return false }
      start = end
    }
    return true
  }

  private static func failure() -> GrantError {
    .system(call: "mmap", reason: unsafe String(cString: strerror(errno)))
  }
}
