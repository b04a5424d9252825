import Glibc
import SystemPackage
import Testing

/// A file that is removed in the end.
public final class TemporaryFile {
  public let path: FilePath

  /// Makes it with these bytes, and as many zeros behind them as it takes.
  public init(_ bytes: [UInt8] = [], byteCount: Int? = nil) throws {
    var template = Array("/tmp/swift-xen-XXXXXX\0".utf8CString)
    // Safe: mkstemp writes within the string that it was given.
    let descriptor = unsafe template.withUnsafeMutableBufferPointer { unsafe mkstemp($0.baseAddress!) }
    try #require(descriptor >= 0)
    path = FilePath(String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    let file = FileDescriptor(rawValue: descriptor)
    try file.closeAfter {
      _ = try file.writeAll(bytes)
      try file.resize(to: Int64(byteCount ?? bytes.count))
    }
  }

  deinit { _ = unsafe path.withPlatformString { unsafe unlink($0) } }

  /// What it holds, or the part of it that the range names.
  public func bytes(_ range: Range<Int> = 0..<1 << 20) throws -> [UInt8] {
    let file = try FileDescriptor.open(path, .readOnly)
    return try file.closeAfter {
      var bytes = [UInt8](repeating: 0, count: range.count)
      let count = try unsafe bytes.withUnsafeMutableBytes {
        try unsafe file.read(fromAbsoluteOffset: Int64(range.lowerBound), into: $0)
      }
      return Array(bytes.prefix(count))
    }
  }
}
