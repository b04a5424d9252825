import Glibc
import SystemPackage
import Testing

/// A directory that is removed in the end, with the files in it.
public final class TemporaryDirectory {
  public let path: FilePath

  public init() throws {
    var template = Array("/tmp/swift-xen-XXXXXX\0".utf8CString)
    // Safe: mkdtemp writes within the string that it was given.
    let made = unsafe template.withUnsafeMutableBufferPointer { unsafe mkdtemp($0.baseAddress!) != nil }
    try #require(made)
    path = FilePath(String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self))
  }

  deinit {
    for name in files { _ = unsafe path.appending(name).withPlatformString { unsafe unlink($0) } }
    _ = unsafe path.withPlatformString { unsafe rmdir($0) }
  }

  /// The names of what is in it.
  public var files: [String] {
    guard let directory = unsafe opendir(path.string) else { return [] }
    defer { unsafe closedir(directory) }
    var names: [String] = []
    while let entry = unsafe readdir(directory) {
      // Safe: the name ends with a zero within its field.
      let name = unsafe withUnsafeBytes(of: &entry.pointee.d_name) { bytes in
        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }

  /// What a file in it holds; nil when there is none.
  public func bytes(of name: String) throws -> [UInt8]? {
    guard files.contains(name) else { return nil }
    let file = try FileDescriptor.open(path.appending(name), .readOnly)
    return try file.closeAfter {
      var bytes = [UInt8](repeating: 0, count: Int(try file.seek(offset: 0, from: .end)))
      _ = try unsafe bytes.withUnsafeMutableBytes { try unsafe file.read(fromAbsoluteOffset: 0, into: $0) }
      return bytes
    }
  }

  /// Puts a new file, or none, in the place of the one of that name, if there is one.
  public func replace(_ name: String, with bytes: [UInt8]?) throws {
    _ = unsafe path.appending(name).withPlatformString { unsafe unlink($0) }
    guard let bytes else { return }
    let file = try FileDescriptor.open(
      path.appending(name), .writeOnly, options: [.create, .exclusiveCreate], permissions: .ownerReadWrite)
    _ = try file.closeAfter { try file.writeAll(bytes) }
  }
}
