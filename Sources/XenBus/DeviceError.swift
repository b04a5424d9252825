import XenPlatform

/// Why a device could not be connected, or had to be closed. Other devices are not affected.
@nonexhaustive public enum DeviceError: Error, Hashable, Sendable, CustomStringConvertible {
  /// A key that must be there is not.
  case missingKey(path: String)
  /// A key holds something else than it must.
  case malformedKey(path: String, value: String, expected: String)
  /// The other end asks for something that we do not speak, or lacks something that we need.
  case unsupported(String)
  /// The other end broke the protocol on a shared ring.
  case protocolViolation(String)
  /// What the device stands on (an image, an interface) failed.
  case resource(String)
  case store(XenstoreError)
  case grant(GrantError)
  case eventChannel(EventChannelError)
  /// What the device stands on is not to be had, and may well be in a while: a file that another process has locked, a server that
  /// does not answer. A backend tries again.
  case unavailable(String)

  public var description: String {
    switch self {
    case .missingKey(let path): "the key \(path) is missing"
    case .malformedKey(let path, let value, let expected):
      "the key \(path) holds \(value.quoted) where \(expected) is expected"
    case .unsupported(let what), .protocolViolation(let what), .resource(let what), .unavailable(let what): what
    case .store(let error): error.description
    case .grant(let error): error.description
    case .eventChannel(let error): error.description
    }
  }
}

extension String {
  /// The text of a peer as an error may carry it: in quotation marks, without control characters, and no longer than a
  /// line, since a peer chooses it, and error node and log have room for sentences only.
  public var quoted: String { quoted(upTo: 64) }

  /// The same, but as many as `count` Unicode scalars long, for where there is room for more.
  public func quoted(upTo count: Int) -> String {
    var text = "\""
    for scalar in unicodeScalars.prefix(count) {
      text += scalar.properties.generalCategory == .control ? scalar.escaped(asASCII: true) : String(scalar)
    }
    return text + (unicodeScalars.count > count ? "...\"" : "\"")
  }
}
