#if canImport(CXen)
  import CXen
  import XenPlatform

  /// Segments in the library's form, on the stack; a kernel call costs little beside this many copies.
  @unsafe private typealias Chunk = InlineArray<32, xengnttab_grant_copy_segment_t>

  extension GrantMapper {
    /// `GNTTABOP_copy`, a chunk at a time; `handle` is the open /dev/xen/gntdev.
    static func copy(_ copies: inout MutableSpan<GrantCopy>, through handle: OpaquePointer) {
      var start = 0
      while start < copies.count {
        let end = unsafe min(start + Chunk.count, copies.count)
        unsafe copyChunk(&copies, start..<end, through: handle)
        start = end
      }
    }

    private static func copyChunk(
      _ copies: inout MutableSpan<GrantCopy>, _ range: Range<Int>, through handle: OpaquePointer
    ) {
      var chunk = unsafe Chunk(repeating: xengnttab_grant_copy_segment_t())
      var count = 0
      // The kernel refuses a whole call for one segment that leaves its page, so such a one never gets there.
      for index in range where copies[index].staysInPage {
        unsafe chunk[count] = copies[index].segment
        count += 1
      }
      var segments = unsafe chunk.mutableSpan
      // Safe: the library writes nothing but the status of these `count` segments.
      let result = unsafe segments.withUnsafeMutableBufferPointer { segments in
        unsafe count == 0 ? 0 : xengnttab_grant_copy(handle, UInt32(count), segments.baseAddress)
      }
      var next = 0
      for index in range {
        if copies[index].staysInPage {
          // A call that fails (our own memory is not there) says nothing about single segments.
          copies[index].status = unsafe result == 0 ? GrantStatus(rawValue: chunk[next].status) : .generalError
          next += 1
        } else {
          copies[index].status = .badCopyArgument
        }
      }
    }
  }

  extension GrantCopy {
    fileprivate var staysInPage: Bool { Int(offset) + Int(count) <= xenPageSize }

    /// Unsafe: it holds the address of `local`.
    @unsafe fileprivate var segment: xengnttab_grant_copy_segment_t {
      var (source, destination) = unsafe (xengnttab_copy_ptr(), xengnttab_copy_ptr())
      let granted = xengnttab_copy_ptr.__Unnamed_struct_foreign(
        ref: reference.rawValue, offset: offset, domid: domain.rawValue)
      switch direction {
      case .fromGrant: unsafe (source.foreign, destination.virt) = (granted, local)
      case .toGrant: unsafe (source.virt, destination.foreign) = (local, granted)
      }
      return unsafe xengnttab_grant_copy_segment_t(
        source: source, dest: destination, len: count,
        flags: UInt16(direction == .fromGrant ? GNTCOPY_source_gref : GNTCOPY_dest_gref), status: 0)
    }
  }
#endif
