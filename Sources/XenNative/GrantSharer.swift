#if canImport(CXen)
  import CXen
  import Glibc
  import Synchronization
  import XenPlatform

  /// Our pages, shared with others through /dev/xen/gntalloc. Each shared region keeps it alive.
  ///
  /// The device is opened at the first use, because a backend never shares and its kernel may have no such module.
  final class GrantSharer: SharedRegionOwner {
    private let opened = Mutex<Device?>(nil)

    func share(pageCount: Int, with domain: DomainID, writable: Bool) throws(GrantError) -> GrantedPages {
      precondition(pageCount > 0, "at least one page")
      let device = try device()
      var numbers = [UInt32](repeating: 0, count: pageCount)
      // Safe: the array has room for one reference a page.
      let address = unsafe numbers.withUnsafeMutableBufferPointer { numbers in
        unsafe xengntshr_share_pages(
          device.handle, UInt32(domain.rawValue), CInt(pageCount), numbers.baseAddress, writable ? 1 : 0)
      }
      guard let address = unsafe address else { throw Self.failure(errno, pageCount) }
      // Safe: the pages stay mapped until endRegion, which is called once.
      let region = unsafe SharedRegion(baseAddress: address, byteCount: pageCount * xenPageSize, owner: self)
      return GrantedPages(region: region, references: numbers.map(GrantReference.init(rawValue:)))
    }

    func endRegion(at baseAddress: UnsafeMutableRawPointer, byteCount: Int) {
      guard let device = opened.withLock({ $0 }) else { preconditionFailure("nothing was shared") }
      // A page that the other end still maps stays out of use: the kernel frees it when the other end lets go.
      let result = unsafe xengntshr_unshare(device.handle, baseAddress, UInt32(byteCount / xenPageSize))
      precondition(result == 0, "a shared region ends once")
    }

    private func device() throws(GrantError) -> Device {
      try opened.withLock { (opened) throws(GrantError) in
        let device = if let opened { opened } else { try Device() }
        opened = device
        return device
      }
    }

    private static func failure(_ error: CInt, _ pageCount: Int) -> GrantError {
      error == ENOSPC
        ? .gntallocLimit(pageCount: pageCount)
        : .system(call: "cannot share \(pageCount) pages", reason: words(for: error))
    }

    /// Sendable: the handle never changes, and libxengntshr keeps nothing in it but a descriptor; every call is its own
    /// ioctl and mmap.
    @safe private final class Device: @unchecked Sendable {
      let handle: OpaquePointer

      init() throws(GrantError) {
        guard let handle = unsafe xengntshr_open(xen_silent_logger(), 0) else {
          let reason = NativePlatformError.opening("/dev/xen/gntalloc", module: "xen-gntalloc", error: errno)
          throw .system(call: "cannot share pages", reason: reason.description)
        }
        unsafe self.handle = handle
      }

      deinit { unsafe xengntshr_close(handle) }
    }
  }
#endif
