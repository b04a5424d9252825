import BlkIf
import Glibc
import Synchronization
import SystemPackage

/// A raw image in a file: byte 0 of the file is byte 0 of the disk.
///
/// A file may be sparse. Nothing else may write it meanwhile: the store takes an exclusive lock, shared for a read-only disk.
public final class FileStore: BlockStore {
  public let geometry: BlockGeometry
  private let path: FilePath
  private let descriptor: FileDescriptor
  private let hasLostWrites = Atomic(false)

  /// - Throws: ``FileStoreError``, each naming the file.
  public init(path: FilePath, isReadOnly: Bool = false) throws(FileStoreError) {
    self.path = path
    do {
      descriptor = try FileDescriptor.open(path, isReadOnly ? .readOnly : .readWrite, options: .closeOnExec)
    } catch { throw .cannotOpen(path, (error as? Errno) ?? .ioError) }
    do throws(FileStoreError) {
      geometry = try Self.geometry(of: descriptor, path, isReadOnly: isReadOnly)
    } catch {
      try? descriptor.close()
      throw error
    }
  }

  /// The image that a device's own keys name: `params`, opened for reading only when `mode` or `isReadOnly` says so.
  public convenience init(for device: XenbusDevice, isReadOnly: Bool = false) throws(DeviceError) {
    let path = FilePath(try device.own.string("params"))
    let isReadOnly = try device.isReadOnly() || isReadOnly
    do throws(FileStoreError) { try self.init(path: path, isReadOnly: isReadOnly) } catch {
      throw .resource("\(error)")
    }
  }

  deinit { try? descriptor.close() }

  private static func geometry(
    of descriptor: FileDescriptor, _ path: FilePath, isReadOnly: Bool
  ) throws(FileStoreError) -> BlockGeometry {
    guard flock(descriptor.rawValue, (isReadOnly ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0 else { throw .inUse(path) }
    var status = stat()
    guard unsafe fstat(descriptor.rawValue, &status) == 0, [S_IFREG, S_IFBLK].contains(status.st_mode & S_IFMT) else {
      throw .notAFile(path)
    }
    let byteCount: Int64
    do { byteCount = try descriptor.seek(offset: 0, from: .end) } catch {
      throw .cannotOpen(path, (error as? Errno) ?? .ioError)
    }
    guard byteCount > 0 else { throw .empty(path) }
    guard byteCount % Int64(BlkIf.sectorByteCount) == 0 else { throw .notWholeSectors(path, byteCount: byteCount) }
    return BlockGeometry(sectorCount: UInt64(byteCount) / 512, isReadOnly: isReadOnly)
  }

  public func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    for index in requests.indices {
      let request = requests[index]
      do throws(Failure) {
        switch request.kind {
        case .read: try transfer(request, writing: false)
        case .write: try transfer(request, writing: true)
        case .writeBarrier:
          try flush()
          try transfer(request, writing: true)
          try flush()
        case .flush: try flush()
        case .discard, .secureDiscard: break
        }
        completions.complete(request)
      } catch { completions.fail(request, because: "\(error.words(path))") }
    }
  }

  /// Fails for good once it has failed: the kernel forgets what it could not write, and would report success next time.
  private func flush() throws(Failure) {
    guard !hasLostWrites.load(ordering: .relaxed) else { throw .lostWrites }
    if fdatasync(descriptor.rawValue) == 0 { return }
    hasLostWrites.store(true, ordering: .relaxed)
    throw .system(Errno(rawValue: errno))
  }

  /// Reads or writes the whole payload; the kernel may do it in pieces.
  private func transfer(_ request: StoreRequest, writing: Bool) throws(Failure) {
    var offset = off_t(request.offset)
    for index in 0..<request.payload.count {
      let piece = request.payload[index]
      try transfer(piece, at: offset, writing: writing)
      offset += off_t(piece.count)
    }
  }

  private func transfer(_ bytes: SharedBytes, at offset: off_t, writing: Bool) throws(Failure) {
    var done = 0
    while done < bytes.count {
      let rest = bytes.slice(from: done, count: bytes.count - done)
      // Safe: the bytes are the request's until it is completed.
      let moved =
        unsafe writing
        ? pwrite(descriptor.rawValue, rest.baseAddress, rest.count, offset + off_t(done))
        : pread(descriptor.rawValue, rest.baseAddress, rest.count, offset + off_t(done))
      if moved < 0, errno == EINTR { continue }
      guard moved >= 0 else { throw .system(Errno(rawValue: errno)) }
      guard moved > 0 else { throw .endOfFile }
      done += moved
    }
  }

  /// Why one request failed.
  private enum Failure: Error {
    case system(Errno)
    /// The file has become shorter than the disk.
    case endOfFile
    /// An earlier flush failed.
    case lostWrites

    func words(_ path: FilePath) -> String {
      switch self {
      case .system(let error): "the image \(path): \(error)"
      case .endOfFile: "the image \(path) has become shorter than its disk"
      case .lostWrites: "the image \(path) has lost writes, so no flush of it can succeed any more"
      }
    }
  }
}

/// Why a file cannot be served as a disk.
@nonexhaustive public enum FileStoreError: Error, Hashable, Sendable, CustomStringConvertible {
  case cannotOpen(FilePath, Errno)
  case inUse(FilePath)
  case notAFile(FilePath)
  case empty(FilePath)
  case notWholeSectors(FilePath, byteCount: Int64)

  public var description: String {
    switch self {
    case .cannotOpen(let path, let error): "the image \(path) cannot be opened: \(error)"
    case .inUse(let path): "the image \(path) is in use by another program"
    case .notAFile(let path): "the image \(path) is neither a file nor a block device"
    case .empty(let path): "the image \(path) is empty: a disk has at least one sector"
    case .notWholeSectors(let path, let byteCount):
      "the image \(path) has \(byteCount) bytes, which is not a multiple of 512: pad it or give another one"
    }
  }
}
