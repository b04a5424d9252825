@_exported import BlkBack
import CLinux
import Glibc
import SystemPackage

/// A raw image in a file, or one of this machine's block devices: byte 0 of it is byte 0 of the disk.
///
/// Each queue of the disk has an io_uring of its own; where the kernel has none to give, and on a file system in memory, it
/// makes a system call for each request. A file may be sparse, and discards make holes in it. Nothing else may write it meanwhile: the store takes an
/// exclusive lock, shared for a read-only disk, and waits a moment for it.
///
/// A file that grows or shrinks is noticed when the disk's ``geometry`` is next asked for. What of the guest's lies behind a
/// new end then fails; a write that was let in before puts the end back to where it reaches.
public final class FileStore: BlockStore {
  private let image: ImageFile
  private let options: FileStoreOptions
  /// Why there is no io_uring, where one was wanted: worth a line in a log.
  public let fallbackReason: String?

  /// - Throws: ``FileStoreError``, each naming the file.
  public init(
    path: FilePath, isReadOnly: Bool = false, options: FileStoreOptions = FileStoreOptions()
  ) throws(FileStoreError) {
    image = try ImageFile(path: path, isReadOnly: isReadOnly, options: options)
    self.options = options
    fallbackReason = options.usesIOUring ? FileQueue.reasonNotToWork : nil
  }

  /// The image that a device's own keys name: `params`, opened for reading only when `mode` or `isReadOnly` says so.
  public convenience init(
    for device: XenbusDevice, isReadOnly: Bool = false, options: FileStoreOptions = FileStoreOptions()
  ) throws(DeviceError) {
    let path = FilePath(try device.own.string("params"))
    let isReadOnly = try device.isReadOnly() || isReadOnly
    do throws(FileStoreError) { try self.init(path: path, isReadOnly: isReadOnly, options: options) } catch {
      throw .resource("\(error)")
    }
  }

  /// As the file is now.
  public var geometry: BlockGeometry { image.geometry }

  /// Whether the page cache is passed by.
  public var isDirect: Bool { image.direct != nil }

  /// Whether each queue has an io_uring.
  public var usesIOUring: Bool { options.usesIOUring && fallbackReason == nil && !image.isInMemory }

  public func makeQueue() throws(ResourceError) -> any BlockStore { usesIOUring ? try makeRing() : self }

  func makeRing() throws(ResourceError) -> FileQueue {
    try FileQueue(image, options: options)
  }

  /// Does each request at once.
  public func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      let request = requests[index]
      do throws(FileFault) {
        switch request.kind {
        case .read, .write: try transfer(request)
        case .writeBarrier:
          try flush()
          try transfer(request)
          try flush()
        case .flush: try flush()
        case .discard, .secureDiscard: try discard(request)
        }
        completions.complete(request)
      } catch { completions.fail(request, because: error.words(image.path)) }
    }
  }

  private func flush() throws(FileFault) {
    guard !image.hasLostWrites else { throw .lostWrites }
    while fdatasync(image.descriptor) != 0 {
      if errno == EINTR { continue }
      let error = Errno(rawValue: errno)
      image.loseWrites()
      throw .system(error)
    }
  }

  private func discard(_ request: StoreRequest) throws(FileFault) {
    guard image.contains(request) else { throw .endOfFile }
    while true {
      let (offset, count) = (request.offset, request.sectorCount * 512)
      if image.isBlockDevice {
        if linux_block_discard(image.descriptor, offset, count, request.kind == .secureDiscard ? 1 : 0) == 0 { return }
      } else {
        if linux_punch_hole(image.descriptor, Int64(offset), Int64(count)) == 0 { return }
      }
      guard errno == EINTR else { throw .system(Errno(rawValue: errno)) }
    }
  }

  /// Reads or writes the whole payload; the kernel may do it in pieces.
  private func transfer(_ request: StoreRequest) throws(FileFault) {
    guard image.contains(request) else { throw .endOfFile }
    guard let bounce = image.bounce(for: request) else { return try move(request) }
    defer { bounce.deallocate() }
    try move(bounce.request)
    bounce.finish()
  }

  private func move(_ request: StoreRequest) throws(FileFault) {
    let payload = request.payload
    var done = 0
    while done < payload.byteCount {
      let offset = off_t(request.offset) + off_t(done)
      let moved: Int
      // Safe, both: the bytes are the request's until it is completed.
      if done == 0, payload.isVectored {
        let count = CInt(options.stopsHalfWay ? payload.count / 2 : payload.count)
        moved =
          unsafe request.kind == .read
          ? preadv(image.descriptor, payload.vectors, count, offset)
          : pwritev(image.descriptor, payload.vectors, count, offset)
      } else {
        let rest = payload.piece(after: done)
        let count = options.stopsHalfWay ? FileStoreOptions.halfWay(rest.count) : rest.count
        moved =
          unsafe request.kind == .read
          ? pread(image.descriptor, rest.baseAddress, count, offset)
          : pwrite(image.descriptor, rest.baseAddress, count, offset)
      }
      if moved < 0, errno == EINTR { continue }
      guard moved >= 0 else { throw .system(Errno(rawValue: errno)) }
      guard moved > 0 else { throw .endOfFile }
      done += moved
    }
  }
}

/// Why one request failed.
enum FileFault: Error, Equatable {
  case system(Errno)
  /// The file has become shorter than the disk.
  case endOfFile
  /// An earlier flush failed.
  case lostWrites
  /// Of another file than one would think.
  indirect case of(FilePath, FileFault)

  func words(_ path: FilePath) -> String {
    switch self {
    case .system(let error): "the image \(path): \(error)"
    case .endOfFile: "the image \(path) has become shorter than its disk"
    case .lostWrites: "the image \(path) has lost writes, so no flush of it can succeed any more"
    case .of(let path, let fault): fault.words(path)
    }
  }
}
