import Glibc
import SystemPackage
import Testing

/// A file of zeros that is removed in the end.
final class TemporaryFile {
  let path: FilePath

  init(byteCount: Int64) throws {
    var template = Array("/tmp/swift-xen-XXXXXX\0".utf8CString)
    // Safe: mkstemp writes within the string that it was given.
    let descriptor = unsafe template.withUnsafeMutableBufferPointer { unsafe mkstemp($0.baseAddress!) }
    try #require(descriptor >= 0)
    path = FilePath(String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
    try #require(ftruncate(descriptor, off_t(byteCount)) == 0)
    _ = close(descriptor)
  }

  deinit { _ = unsafe path.withPlatformString { unsafe unlink($0) } }

  func bytes(_ range: Range<Int>) throws -> [UInt8] {
    let file = try FileDescriptor.open(path, .readOnly)
    defer { try? file.close() }
    var bytes = [UInt8](repeating: 0, count: range.count)
    let count = try unsafe bytes.withUnsafeMutableBytes {
      try unsafe file.read(fromAbsoluteOffset: Int64(range.lowerBound), into: $0)
    }
    return Array(bytes.prefix(count))
  }
}
