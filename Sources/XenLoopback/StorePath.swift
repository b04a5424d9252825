import XenPlatform

/// The shape of paths in xenstore (docs/misc/xenstore.txt; the limits are those of io/xs_wire.h).
enum StorePath {
  /// Of a path below a domain's home, or of any other from the root.
  static let pathByteLimit = 2048
  /// Of everything in one message.
  static let payloadByteLimit = 4096

  static func home(of domain: DomainID) -> String { "/local/domain/\(domain.rawValue)" }

  /// Names no node, but something that happens to a domain: it can be watched, and has permissions.
  static func isSpecial(_ path: String) -> Bool { path.hasPrefix("@") }

  /// The absolute form of a watched path as `domain` wrote it, which may be a special one; nil when it is not well-formed.
  static func watched(_ path: String, by domain: DomainID) -> String? {
    guard isSpecial(path) else { return absolute(path, for: domain) }
    return path.utf8.count <= pathByteLimit ? path : nil
  }

  /// The absolute form of a node's path as `domain` wrote it; nil when it is not well-formed.
  static func absolute(_ path: String, for domain: DomainID) -> String? {
    if path == "/" { return path }
    guard !path.isEmpty, !path.hasSuffix("/"), !isSpecial(path), path.utf8.allSatisfy(isAllowed) else { return nil }
    let path = complete(path, for: domain)
    guard path.utf8.count <= homePrefixByteCount(of: path) + pathByteLimit else { return nil }
    let names = path.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
    return names.allSatisfy({ !$0.isEmpty }) ? path : nil
  }

  /// The same path from the root, well-formed or not.
  static func complete(_ path: String, for domain: DomainID) -> String {
    path.hasPrefix("/") || isSpecial(path) ? path : home(of: domain) + "/" + path
  }

  /// The bytes of `/local/domain/N/`, N of one to five digits, with which the path starts; zero when it does not.
  private static func homePrefixByteCount(of path: String) -> Int {
    let homes = "/local/domain/"
    guard path.hasPrefix(homes) else { return 0 }
    let rest = path.utf8.dropFirst(homes.utf8.count)
    let digitCount = rest.prefix { UInt8(ascii: "0")...UInt8(ascii: "9") ~= $0 }.count
    guard 1...5 ~= digitCount, rest.dropFirst(digitCount).first == UInt8(ascii: "/") else { return 0 }
    return homes.utf8.count + digitCount + 1
  }

  static func parent(_ path: String) -> String {
    let slash = path.lastIndex(of: "/")!
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  static func name(_ path: String) -> String { String(path[path.index(after: path.lastIndex(of: "/")!)...]) }

  /// How many names there are in an absolute path.
  static func depth(_ path: String) -> Int { path.split(separator: "/").count }

  static func child(_ name: String, of path: String) -> String { path == "/" ? "/" + name : path + "/" + name }

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
