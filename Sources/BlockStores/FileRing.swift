import CIOUring
import Glibc
import SystemPackage
import XenPlatform

/// An io_uring on one file: what is put into it is begun by the next `submit()`, with one system call.
@safe struct FileRing: ~Copyable {
  private let ring: OpaquePointer
  private let stopsHalfWay: Bool
  /// How many operations have been put, ever.
  private(set) var operationCount: UInt64 = 0
  /// How many system calls have begun them.
  private(set) var submissionCount: UInt64 = 0

  /// What the kernel has done.
  struct Completion {
    /// As it was put.
    let number: Int
    /// A count of bytes, or an error number, negative.
    let result: Int
  }

  /// - Parameters:
  ///   - file: kept open by the ring as well; none where it is negative.
  ///   - capacity: how many can be put before they are begun.
  ///   - stopsHalfWay: as in ``FileStoreOptions``.
  /// - Throws: the reason for which there is no ring.
  init(file: CInt, capacity: UInt32, stopsHalfWay: Bool = false) throws(ResourceError) {
    var opened: OpaquePointer?
    let result = unsafe io_uring_file_open(&opened, file, capacity)
    guard result == 0, let opened = unsafe opened else {
      throw ResourceError(
        result == -ENOTSUP
          ? "io_uring: this program was built without it: install liburing-dev, then: swift package clean"
          : "io_uring: \(Errno(rawValue: -result))")
    }
    unsafe ring = opened
    self.stopsHalfWay = stopsHalfWay
  }

  deinit { unsafe io_uring_file_close(ring) }

  /// Readable when ``next()`` would say something.
  var descriptor: CInt { unsafe io_uring_file_descriptor(ring) }

  // MARK: Putting

  // Safe, each: the ring is ours until we end, and the memory is its owner's until the completion.

  /// Reads or writes one slice of memory.
  mutating func put(_ bytes: SharedBytes, writing: Bool, at offset: UInt64, number: Int) {
    let count = UInt32(stopsHalfWay ? FileStoreOptions.halfWay(bytes.count) : bytes.count)
    while unsafe io_uring_file_move(ring, writing ? 1 : 0, bytes.baseAddress, count, offset, UInt64(number)) == 0 {
      submit()
    }
    operationCount &+= 1
  }

  /// Reads or writes several slices of memory; the vectors themselves are their owner's again after ``submit()``.
  @unsafe mutating func put(
    _ vectors: UnsafeMutablePointer<iovec>, count: Int, writing: Bool, at offset: UInt64, number: Int
  ) {
    let count = UInt32(stopsHalfWay ? max(1, count / 2) : count)
    while unsafe io_uring_file_movev(ring, writing ? 1 : 0, vectors, count, offset, UInt64(number)) == 0 {
      submit()
    }
    operationCount &+= 1
  }

  mutating func putFlush(number: Int) {
    while unsafe io_uring_file_datasync(ring, UInt64(number)) == 0 { submit() }
    operationCount &+= 1
  }

  /// fallocate(2) with `mode`.
  mutating func putAllocate(mode: CInt, at offset: UInt64, byteCount: UInt64, number: Int) {
    while unsafe io_uring_file_allocate(ring, mode, offset, byteCount, UInt64(number)) == 0 { submit() }
    operationCount &+= 1
  }

  // MARK: Beginning and ending

  /// Has the kernel begin all that has been put.
  mutating func submit() {
    while true {
      submissionCount &+= 1
      switch unsafe io_uring_file_submit(ring) {
      case 0: return
      case 1, -EINTR: break
      // The kernel is short of memory: nothing is lost, and it comes back.
      case -EAGAIN, -EBUSY, -ENOMEM: usleep(1_000)
      case let error: preconditionFailure("io_uring_enter: \(Errno(rawValue: -error))")
      }
    }
  }

  /// What has been done and not yet been taken.
  mutating func next() -> Completion? {
    var (number, result): (UInt64, CInt) = (0, 0)
    guard unsafe io_uring_file_next(ring, &number, &result) != 0 else { return nil }
    return Completion(number: Int(number), result: Int(result))
  }
}
