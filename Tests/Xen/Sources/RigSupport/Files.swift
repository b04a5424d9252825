import Glibc

extension RigProgram {
  /// All bytes of the file.
  public static func bytes(of path: String) throws -> [UInt8] {
    guard let file = unsafe fopen(path, "r") else { throw Failure("\(path) cannot be read") }
    defer { unsafe fclose(file) }
    var bytes: [UInt8] = []
    var piece = [UInt8](repeating: 0, count: 1 << 20)
    while true {
      // Safe: the array holds as many bytes as are asked for.
      let count = unsafe piece.withUnsafeMutableBytes { unsafe fread($0.baseAddress!, 1, $0.count, file) }
      guard count > 0 else { return bytes }
      bytes += piece[..<count]
    }
  }

  /// Makes them all bytes of the file.
  public static func write(_ bytes: [UInt8], to path: String) throws {
    guard let file = unsafe fopen(path, "w") else { throw Failure("\(path) cannot be written") }
    // Safe: the array holds as many bytes as are written.
    let count = unsafe bytes.withUnsafeBytes { unsafe fwrite($0.baseAddress!, 1, $0.count, file) }
    guard unsafe fclose(file) == 0, count == bytes.count else { throw Failure("\(path) cannot be written") }
  }
}
