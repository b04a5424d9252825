import SystemPackage

/// How a ``FileStore`` does its work.
public struct FileStoreOptions: Hashable, Sendable {
  /// Whether the bytes go between the guest's memory and the medium without the machine's page cache (`O_DIRECT`).
  public enum Direct: Hashable, Sendable {
    /// Or the store cannot be opened.
    case on
    case off
    /// Where the kernel says that the file can do it in the disk's own sectors.
    case automatic
  }

  public var direct = Direct.automatic
  /// False does everything with one system call a request, on the queue's thread; so does any file system in memory (tmpfs),
  /// where io_uring would hand each request to a thread of the kernel's.
  public var usesIOUring = true
  /// Requests of one batch that continue each other are done as one, up to 128 slices of memory and 1 MiB.
  public var mergesRequests = true
  /// How long to wait for whoever has the file locked, in seconds: the kernel may take a moment to end what a process that was
  /// killed had under way.
  public var lockSeconds = 3.0
  /// Whether each system call is told to move half of what is left, in blocks of 4096 bytes: the kernel may stop there, and
  /// hardly ever does it to a test.
  package var stopsHalfWay = false

  public init(direct: Direct = .automatic) { self.direct = direct }

  /// Of so many bytes.
  static func halfWay(_ byteCount: Int) -> Int { min(byteCount, (byteCount / 2 + 4095) / 4096 * 4096) }
}

/// Why a file cannot be served as a disk.
@nonexhaustive public enum FileStoreError: Error, Hashable, Sendable, CustomStringConvertible {
  case cannotOpen(FilePath, Errno)
  case inUse(FilePath)
  case notAFile(FilePath)
  case empty(FilePath)
  case notWholeSectors(FilePath, byteCount: Int64)
  case largeSectors(FilePath, byteCount: Int)
  case cannotBeDirect(FilePath)

  public var description: String {
    switch self {
    case .cannotOpen(let path, let error): "the image \(path) cannot be opened: \(error)"
    case .inUse(let path): "the image \(path) is in use by another program"
    case .notAFile(let path): "the image \(path) is neither a file nor a block device"
    case .empty(let path): "the image \(path) is empty: a disk has at least one sector"
    case .notWholeSectors(let path, let byteCount):
      "the image \(path) has \(byteCount) bytes, which is not a multiple of 512: pad it or give another one"
    case .largeSectors(let path, let byteCount):
      "the device \(path) has sectors of \(byteCount) bytes, and a guest's disk has 4096 at most"
    case .cannotBeDirect(let path):
      "the image \(path) cannot be read and written in sectors without the page cache: let it go through that"
    }
  }
}
