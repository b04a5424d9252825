import Glibc
import XenPlatform

/// The same bytes without any Xen: `byteCount` of them copied, `times` each, from one place to another, as many places as 512
/// KiB have. What it gives does a number of copies.
func plainCopy(byteCount: Int, times: Int = 1) -> (Int) throws -> Int {
  let places = 512 * 1024 / byteCount
  let pages = PrivatePages(pageCount: 128)
  let buffer = PrivatePages(pageCount: (byteCount + xenPageSize - 1) / xenPageSize)
  return { count in
    for number in 0..<count {
      let place = pages.bytes.slice(from: number % places * byteCount, count: byteCount)
      for _ in 0..<times { buffer.bytes.slice(from: 0, count: byteCount).copy(from: place) }
    }
    return count
  }
}

/// The same bytes read from, or written to, the same file by one system call each.
func plainFile(_ path: String, writing: Bool, byteCount: Int, fileByteCount: Int) throws -> (Int) throws -> Int {
  // Safe: the call reads a string of ours.
  let descriptor = unsafe open(path, O_RDWR | O_CLOEXEC)
  precondition(descriptor >= 0, "cannot open \(path)")
  let buffer = PrivatePages(pageCount: (byteCount + xenPageSize - 1) / xenPageSize)
  let places = fileByteCount / byteCount
  return { count in
    var done = 0
    for number in 0..<count {
      let offset = off_t(number % places * byteCount)
      // Safe: the buffer is that long.
      let moved =
        unsafe writing
        ? pwrite(descriptor, buffer.bytes.baseAddress, byteCount, offset)
        : pread(descriptor, buffer.bytes.baseAddress, byteCount, offset)
      if moved == byteCount { done += 1 }
    }
    return done
  }
}
