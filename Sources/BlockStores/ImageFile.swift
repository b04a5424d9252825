import CLinux
import Glibc
import Synchronization
import SystemPackage

/// An open file or block device that holds a disk's bytes: its one descriptor, its lock, and what it is like.
///
/// Everything is done through one open file description, direct or not, and that one has the lock: a killed process's request
/// that the kernel still has in hand keeps the description, so that nobody gets the lock before its bytes have landed.
final class ImageFile: Sendable {
  let path: FilePath
  let descriptor: CInt
  let isBlockDevice: Bool
  /// Its file system has no medium: nothing is ever waited for.
  let isInMemory: Bool
  /// What direct I/O asks for, in bytes; nil when it goes through the page cache.
  let direct: DirectAlignment?
  private let base: BlockGeometry
  /// Of whole sectors, when somebody last asked.
  private let byteCount: Atomic<UInt64>
  private let losesWrites = Atomic(false)
  private let isAbandoned = Atomic(false)

  struct DirectAlignment: Equatable {
    /// Of addresses in memory.
    var memory: Int
    /// Of offsets and lengths.
    var offset: Int
  }

  init(path: FilePath, isReadOnly: Bool, options: FileStoreOptions) throws(FileStoreError) {
    self.path = path
    // Non-blocking, since a FIFO would wait here for its other end.
    let opened = unsafe path.withPlatformString { path in
      unsafe open(path, (isReadOnly ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK)
    }
    guard opened >= 0 else { throw .cannotOpen(path, Errno(rawValue: errno)) }
    descriptor = opened
    do throws(FileStoreError) {
      isBlockDevice = try Self.isBlockDevice(opened, path)
      isInMemory = !isBlockDevice && linux_is_in_memory(opened) != 0
      try Self.lock(opened, path, shared: isReadOnly, seconds: options.lockSeconds)
      base = try Self.geometry(opened, path, isBlockDevice: isBlockDevice, isReadOnly: isReadOnly)
      direct = try Self.direct(
        opened, path, options.direct, sectorByteCount: Int(base.sectorByteCount), isBlockDevice: isBlockDevice)
    } catch {
      _ = close(opened)
      throw error
    }
    byteCount = Atomic(base.sectorCount * 512)
  }

  deinit {
    // The kernel closes a ring's references to the file some time later; nothing of ours is under way any more.
    if !isAbandoned.load(ordering: .relaxed) { _ = flock(descriptor, LOCK_UN) }
    _ = close(descriptor)
  }

  /// The kernel may still be at work on the file: the lock ends with that.
  func abandon() { isAbandoned.store(true, ordering: .relaxed) }

  // MARK: What it is like

  /// As it is now.
  var geometry: BlockGeometry {
    var geometry = base
    geometry.sectorCount = Self.sectorCount(descriptor, isBlockDevice: isBlockDevice, base.sectorByteCount) ?? 0
    byteCount.store(geometry.sectorCount * 512, ordering: .relaxed)
    return geometry
  }

  /// Whether the disk, which may have shrunk since the request was looked at, still has the bytes.
  func contains(_ request: StoreRequest) -> Bool {
    let sectorCount = byteCount.load(ordering: .relaxed) / 512
    return request.sectorCount == 0
      || request.sectorCount <= sectorCount && request.sector <= sectorCount - request.sectorCount
  }

  /// Whether the payload can go to the file as it lies, direct I/O having its demands.
  func suits(_ request: StoreRequest) -> Bool {
    guard let direct else { return true }
    var (addresses, lengths) = (0, Int(truncatingIfNeeded: request.offset))
    for index in 0..<request.payload.count {
      // Safe: the vectors are the request's, and nothing is done with what they point at.
      addresses |= unsafe Int(bitPattern: request.payload.vectors[index].iov_base)
      lengths |= unsafe request.payload.vectors[index].iov_len
    }
    return addresses & (direct.memory - 1) == 0 && lengths & (direct.offset - 1) == 0
  }

  // MARK: Flushes

  /// What every flush says from the first that failed on: the kernel forgets what it could not write, and would report
  /// success next time.
  var hasLostWrites: Bool { losesWrites.load(ordering: .relaxed) }

  func loseWrites() { losesWrites.store(true, ordering: .relaxed) }

  // MARK: Opening

  static func isBlockDevice(_ descriptor: CInt, _ path: FilePath) throws(FileStoreError) -> Bool {
    var status = stat()
    guard unsafe fstat(descriptor, &status) == 0, [S_IFREG, S_IFBLK].contains(status.st_mode & S_IFMT) else {
      throw .notAFile(path)
    }
    // io_uring takes the flag for a wish that no request ever waits.
    _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) & ~O_NONBLOCK)
    return status.st_mode & S_IFMT == S_IFBLK
  }

  static func lock(
    _ descriptor: CInt, _ path: FilePath, shared: Bool, seconds: Double
  ) throws(FileStoreError) {
    let deadline = Uptime.now.nanoseconds + UInt64(max(0, seconds) * 1e9)
    while flock(descriptor, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0 {
      guard Uptime.now.nanoseconds < deadline else { throw .inUse(path) }
      usleep(5_000)
    }
  }

  private static func geometry(
    _ descriptor: CInt, _ path: FilePath, isBlockDevice: Bool, isReadOnly: Bool
  ) throws(FileStoreError) -> BlockGeometry {
    var status = stat()
    var (byteCount, logical, physical): (UInt64, UInt32, UInt32) = (0, 512, 512)
    if isBlockDevice {
      guard unsafe linux_block_device(descriptor, &byteCount, &logical, &physical) == 0 else {
        throw .cannotOpen(path, Errno(rawValue: errno))
      }
      guard logical <= 4096 else { throw .largeSectors(path, byteCount: Int(logical)) }
    }
    guard unsafe fstat(descriptor, &status) == 0 else { throw .cannotOpen(path, Errno(rawValue: errno)) }
    if !isBlockDevice { byteCount = UInt64(status.st_size) }
    guard byteCount > 0 else { throw .empty(path) }
    guard byteCount % UInt64(logical) == 0 else { throw .notWholeSectors(path, byteCount: Int64(byteCount)) }
    return BlockGeometry(
      sectorCount: byteCount / 512, sectorByteCount: logical, physicalSectorByteCount: max(logical, physical),
      isReadOnly: isReadOnly,
      discard: isReadOnly
        ? nil : isBlockDevice ? deviceDiscard(descriptor, status) : fileDiscard(descriptor, status))
  }

  /// In 512-byte sectors, whole ones of the disk's.
  private static func sectorCount(_ descriptor: CInt, isBlockDevice: Bool, _ sectorByteCount: UInt32) -> UInt64? {
    var byteCount: UInt64 = 0
    if isBlockDevice {
      var (logical, physical): (UInt32, UInt32) = (0, 0)
      guard unsafe linux_block_device(descriptor, &byteCount, &logical, &physical) == 0 else { return nil }
    } else {
      var status = stat()
      guard unsafe fstat(descriptor, &status) == 0 else { return nil }
      byteCount = UInt64(status.st_size)
    }
    return byteCount / UInt64(sectorByteCount) * UInt64(sectorByteCount / 512)
  }

  /// A hole behind the file's end changes nothing, and shows whether its file system makes holes.
  private static func fileDiscard(_ descriptor: CInt, _ status: stat) -> DiscardLimits? {
    guard linux_punch_hole(descriptor, Int64(status.st_size), Int64(status.st_blksize)) == 0 else { return nil }
    return DiscardLimits(granularity: UInt32(clamping: max(512, status.st_blksize)))
  }

  /// What the device's queue says of discards (Linux, Documentation/ABI/stable/sysfs-block).
  private static func deviceDiscard(_ descriptor: CInt, _ status: stat) -> DiscardLimits? {
    let device = UInt64(status.st_rdev)
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00))
    let folder = "/sys/dev/block/\(major):\(minor)"
    // A partition has its disk's queue.
    func number(_ name: String) -> UInt64? {
      for path in ["\(folder)/\(name)", "\(folder)/../\(name)"] {
        if let number = firstNumber(in: path) { return number }
      }
      return nil
    }
    guard let most = number("queue/discard_max_bytes"), most > 0 else { return nil }
    // Refused for its odd offset where the device could do it, and for that reason alone.
    let refused = linux_block_discard(descriptor, 1, 1, 1) != 0 && errno == EINVAL
    return DiscardLimits(
      granularity: UInt32(clamping: max(512, number("queue/discard_granularity") ?? 512)),
      alignment: UInt32(clamping: firstNumber(in: "\(folder)/discard_alignment") ?? 0), isSecure: refused)
  }

  private static func firstNumber(in path: String) -> UInt64? {
    smallFile(path).flatMap { UInt64(String(decoding: $0.prefix { $0 >= 0x30 && $0 <= 0x39 }, as: UTF8.self)) }
  }

  /// Turns direct I/O on, if that is wanted and possible.
  private static func direct(
    _ descriptor: CInt, _ path: FilePath, _ wish: FileStoreOptions.Direct, sectorByteCount: Int, isBlockDevice: Bool
  ) throws(FileStoreError) -> DirectAlignment? {
    guard wish != .off else { return nil }
    var (memory, offset): (UInt32, UInt32) = (0, 0)
    let isKnown = unsafe linux_direct_alignment(descriptor, &memory, &offset) == 0
    // Where the kernel does not say what it asks for, a device asks for its sector; a file is asked for too much rather than
    // too little, and only when somebody wants that.
    if !isKnown, isBlockDevice || wish == .on {
      (memory, offset) = (isBlockDevice ? UInt32(sectorByteCount) : 4096, UInt32(sectorByteCount))
    }
    let isPossible =
      memory.nonzeroBitCount == 1 && offset.nonzeroBitCount == 1 && Int(offset) <= sectorByteCount
      && linux_make_direct(descriptor) == 0
    guard isPossible else {
      if wish == .on { throw .cannotBeDirect(path) }
      return nil
    }
    return DirectAlignment(memory: Int(memory), offset: Int(offset))
  }
}

/// What a file of the kernel's says, as far as 64 bytes go.
func smallFile(_ path: String) -> [UInt8]? {
  guard let file = try? FileDescriptor.open(FilePath(path), .readOnly, options: .closeOnExec) else { return nil }
  defer { try? file.close() }
  var bytes = [UInt8](repeating: 0, count: 64)
  // Safe: the array has room for as many bytes.
  guard let count = try? unsafe bytes.withUnsafeMutableBytes({ unsafe try file.read(into: $0) }) else { return nil }
  return Array(bytes.prefix(count))
}
