import XenPlatform

/// The shape of paths in xenstore (docs/misc/xenstore.txt; the limits are those of io/xs_wire.h).
enum StorePath {
  static let absoluteByteLimit = 3072
  static let relativeByteLimit = 2048
  static let valueByteLimit = 4096

  static func home(of domain: DomainID) -> String { "/local/domain/\(domain.rawValue)" }

  /// Names no node, but something that happens to a domain: it can be watched, and has permissions.
  static func isSpecial(_ path: String) -> Bool { path.hasPrefix("@") }

  /// The absolute form of a watched path as `domain` wrote it, which may be a special one; nil when it is not well-formed.
  static func watched(_ path: String, by domain: DomainID) -> String? {
    guard isSpecial(path) else { return absolute(path, for: domain) }
    return path.utf8.count <= relativeByteLimit ? path : nil
  }

  /// The absolute form of a node's path as `domain` wrote it; nil when it is not well-formed.
  static func absolute(_ path: String, for domain: DomainID) -> String? {
    if path == "/" { return path }
    guard !path.isEmpty, !path.hasSuffix("/"), !isSpecial(path), path.utf8.allSatisfy(isAllowed) else { return nil }
    let isAbsolute = path.hasPrefix("/")
    guard path.utf8.count <= (isAbsolute ? absoluteByteLimit : relativeByteLimit) else { return nil }
    let names = path.split(separator: "/", omittingEmptySubsequences: false).dropFirst(isAbsolute ? 1 : 0)
    guard names.allSatisfy({ !$0.isEmpty }) else { return nil }
    return isAbsolute ? path : home(of: domain) + "/" + path
  }

  static func parent(_ path: String) -> String {
    let slash = path.lastIndex(of: "/")!
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  static func name(_ path: String) -> String { String(path[path.index(after: path.lastIndex(of: "/")!)...]) }

  /// How many names there are in an absolute path.
  static func depth(_ path: String) -> Int { path.split(separator: "/").count }

  static func child(_ name: String, of path: String) -> String { path == "/" ? "/" + name : path + "/" + name }

  /// Whether `path` is `ancestor` or lies below it.
  static func isAtOrBelow(_ path: String, _ ancestor: String) -> Bool {
    ancestor == "/" || path == ancestor || path.hasPrefix(ancestor + "/")
  }

  private static func isAllowed(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
      UInt8(ascii: "0")...UInt8(ascii: "9"):
      true
    case UInt8(ascii: "-"), UInt8(ascii: "/"), UInt8(ascii: "_"), UInt8(ascii: "@"): true
    default: false
    }
  }
}
