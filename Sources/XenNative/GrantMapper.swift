#if canImport(CXen)
  import CXen
  import Glibc
  import XenPlatform

  /// Others' pages, mapped or copied through /dev/xen/gntdev. Each mapped region keeps it alive.
  ///
  /// Sendable: the handle never changes, and libxengnttab keeps nothing in it but a descriptor; the kernel's device locks
  /// what its ioctls share.
  @safe final class GrantMapper: SharedRegionOwner, @unchecked Sendable {
    private let handle: OpaquePointer

    init() throws(NativePlatformError) {
      guard let handle = unsafe xengnttab_open(xen_silent_logger(), 0) else {
        throw .opening("/dev/xen/gntdev", module: "xen-gntdev", error: errno)
      }
      unsafe self.handle = handle
    }

    deinit { unsafe xengnttab_close(handle) }

    func map(_ references: [GrantReference], of domain: DomainID, writable: Bool) throws(GrantError) -> SharedRegion {
      precondition(!references.isEmpty, "at least one reference")
      guard let address = unsafe mapping(of: references[...], domain, writable) else {
        throw failure(errno, references, domain, writable)
      }
      // Safe: the pages stay mapped until endRegion, which is called once.
      return unsafe SharedRegion(baseAddress: address, byteCount: references.count * xenPageSize, owner: self)
    }

    func endRegion(at baseAddress: UnsafeMutableRawPointer, byteCount: Int) {
      let result = unsafe xengnttab_unmap(handle, baseAddress, UInt32(byteCount / xenPageSize))
      precondition(result == 0, "a mapping ends once")
    }

    private func mapping(
      of references: ArraySlice<GrantReference>, _ domain: DomainID, _ writable: Bool
    ) -> UnsafeMutableRawPointer? {
      var numbers = references.map(\.rawValue)
      // Safe: the library only reads the array, during the call.
      return unsafe numbers.withUnsafeMutableBufferPointer { numbers in
        while true {
          let address = unsafe xengnttab_map_domain_grant_refs(
            handle, UInt32(numbers.count), UInt32(domain.rawValue), numbers.baseAddress,
            writable ? PROT_READ | PROT_WRITE : PROT_READ)
          // The kernel gives up its first mapping for a process while something waits to be delivered to the thread: a signal, but a
          // completion of io_uring, too, which has been by the time that the call is made again.
          if unsafe address != nil || errno != EINTR { return unsafe address }
        }
      }
    }

    func copy(_ copies: inout MutableSpan<GrantCopy>) { unsafe Self.copy(&copies, through: handle) }

    // MARK: Which one was it

    /// The kernel fails a batch whole, with EINVAL for whatever Xen refused in it. Whoever serves a frontend must tell its
    /// fault from ours, so the references are tried one by one.
    private func failure(
      _ error: CInt, _ references: [GrantReference], _ domain: DomainID, _ writable: Bool
    ) -> GrantError {
      if error == EINVAL {
        for (index, reference) in references.enumerated() {
          if let page = unsafe mapping(of: references[index...index], domain, writable) {
            unsafe endRegion(at: page, byteCount: xenPageSize)
          } else {
            return .refused(reference, of: domain, status(of: reference, domain))
          }
        }
      }
      return .system(call: "cannot map \(references.count) pages of \(domain)", reason: words(for: error))
    }

    /// The hypervisor's own word on a reference that could not be mapped; only a copy tells it.
    private func status(of reference: GrantReference, _ domain: DomainID) -> GrantStatus {
      let byte = PrivatePages(pageCount: 1)
      let region = byte.region()
      var probe = [
        GrantCopy(.fromGrant, local: region.bytes.slice(from: 0, count: 1), reference: reference, of: domain, offset: 0)
      ]
      var span = probe.mutableSpan
      copy(&span)
      // One that can be copied from was granted for reading, and Xen's word for writing there is this as well.
      return span[0].status == .okay ? .generalError : span[0].status
    }
  }
#endif
