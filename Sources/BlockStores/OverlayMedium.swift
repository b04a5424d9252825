import BlkBack
import CLinux
import Glibc
import SystemPackage

/// What an overlay lies on: a file, or in tests one whose power can be cut.
protocol OverlayMedium: AnyObject, Sendable {
  var path: FilePath { get }
  /// As it is now.
  func byteCount() throws(FileFault) -> UInt64
  /// Whether it has no data, as a new file that has been made longer.
  func hasNoData() throws(FileFault) -> Bool
  /// Makes a new file that long, which reads as zeros.
  func extend(to byteCount: UInt64) throws(FileFault)
  /// Fills the bytes from there.
  func read(_ bytes: SharedBytes, at offset: UInt64) throws(FileFault)
  func write(_ bytes: SharedBytes, at offset: UInt64) throws(FileFault)
  /// May give back what is there.
  func discard(at offset: UInt64, byteCount: UInt64)
  /// Has all that was written before on the medium.
  func flush() throws(FileFault)
}

/// A file through the page cache, which outlives the process.
final class FileMedium: OverlayMedium {
  let path: FilePath
  let isBlockDevice: Bool
  private let descriptor: CInt

  /// Opens it and takes its lock.
  ///
  /// - Parameter isBase: only to be read, and by others as well; it is not made where there is none.
  init(path: FilePath, isBase: Bool, lockSeconds: Double) throws(FileStoreError) {
    self.path = path
    let opened = unsafe path.withPlatformString { path in
      unsafe open(path, (isBase ? O_RDONLY : O_RDWR | O_CREAT) | O_CLOEXEC | O_NONBLOCK, 0o600)
    }
    guard opened >= 0 else { throw .cannotOpen(path, Errno(rawValue: errno)) }
    do throws(FileStoreError) {
      isBlockDevice = try ImageFile.isBlockDevice(opened, path)
      guard isBase || !isBlockDevice else { throw .notAFile(path) }
      try ImageFile.lock(opened, path, shared: isBase, seconds: lockSeconds)
    } catch {
      _ = close(opened)
      throw error
    }
    // Last, since whoever has all that he stores ends by his deinit, also when he throws.
    descriptor = opened
  }

  deinit {
    // A program that another thread begins at this moment has a copy of the descriptor until it runs.
    _ = flock(descriptor, LOCK_UN)
    _ = close(descriptor)
  }

  func byteCount() throws(FileFault) -> UInt64 {
    let end = lseek(descriptor, 0, SEEK_END)
    guard end >= 0 else { throw .system(Errno(rawValue: errno)) }
    return UInt64(end)
  }

  func hasNoData() throws(FileFault) -> Bool {
    if linux_seek_data(descriptor, 0) >= 0 { return false }
    guard errno == ENXIO else { throw .system(Errno(rawValue: errno)) }
    return true
  }

  /// What it is like as a base.
  func identity() throws(FileFault) -> OverlayBase {
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0 else { throw .system(Errno(rawValue: errno)) }
    return OverlayBase(
      byteCount: try byteCount(), changedSeconds: isBlockDevice ? 0 : Int64(status.st_mtim.tv_sec),
      changedNanoseconds: isBlockDevice ? 0 : UInt64(status.st_mtim.tv_nsec))
  }

  func extend(to byteCount: UInt64) throws(FileFault) {
    guard ftruncate(descriptor, off_t(byteCount)) == 0 else { throw .system(Errno(rawValue: errno)) }
  }

  func read(_ bytes: SharedBytes, at offset: UInt64) throws(FileFault) {
    try move(bytes, at: offset, writing: false)
  }

  func write(_ bytes: SharedBytes, at offset: UInt64) throws(FileFault) {
    try move(bytes, at: offset, writing: true)
  }

  private func move(_ bytes: SharedBytes, at offset: UInt64, writing: Bool) throws(FileFault) {
    var done = 0
    while done < bytes.count {
      let rest = bytes.slice(from: done, count: bytes.count - done)
      // Safe: the bytes are the caller's for the length of the call.
      let moved =
        unsafe writing
        ? pwrite(descriptor, rest.baseAddress, rest.count, off_t(offset) + off_t(done))
        : pread(descriptor, rest.baseAddress, rest.count, off_t(offset) + off_t(done))
      if moved < 0, errno == EINTR { continue }
      guard moved >= 0 else { throw .system(Errno(rawValue: errno)) }
      guard moved > 0 else { throw .endOfFile }
      done += moved
    }
  }

  func discard(at offset: UInt64, byteCount: UInt64) {
    // Where its file system makes no holes, the bytes stay and nobody looks at them.
    _ = linux_punch_hole(descriptor, Int64(offset), Int64(byteCount))
  }

  func flush() throws(FileFault) {
    while fdatasync(descriptor) != 0 {
      if errno != EINTR { throw .system(Errno(rawValue: errno)) }
    }
  }

  /// A file that has just been made is there after a power cut only when its folder is on the medium.
  func flushFolder() throws(FileFault) {
    let folder = path.removingLastComponent()
    do {
      let descriptor = try FileDescriptor.open(folder.isEmpty ? "." : folder, .readOnly, options: .closeOnExec)
      defer { try? descriptor.close() }
      guard fsync(descriptor.rawValue) == 0 else { throw Errno(rawValue: errno) }
    } catch { throw .system((error as? Errno) ?? .ioError) }
  }
}

extension OverlayMedium {
  func read(at offset: UInt64, byteCount: Int) throws(FileFault) -> [UInt8] {
    let pages = PrivatePages(pageCount: (byteCount + xenPageSize - 1) / xenPageSize)
    let bytes = pages.bytes.slice(from: 0, count: byteCount)
    try read(bytes, at: offset)
    return bytes.copied()
  }

  func write(_ array: [UInt8], at offset: UInt64) throws(FileFault) {
    let pages = PrivatePages(pageCount: (array.count + xenPageSize - 1) / xenPageSize)
    let bytes = pages.bytes.slice(from: 0, count: array.count)
    bytes.copy(from: array.span)
    try write(bytes, at: offset)
  }
}
