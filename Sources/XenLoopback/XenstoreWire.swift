import XenPlatform

/// One message of xenstore's wire protocol (io/xs_wire.h), either way.
struct XenstoreMessage: Hashable {
  /// `enum xsd_sockmsg_type`
  enum Kind: UInt32 {
    case control, directory, read, permissions, watch, unwatch, startTransaction, endTransaction, introduce, release
    case domainPath, write, makeDirectory, remove, setPermissions, watchEvent, error, isDomainIntroduced, resume,
      setTarget
    /// 20 was `XS_RESTRICT`, which is gone.
    case resetWatches = 21
    case directoryPart
  }

  /// A header that promises more than ``payloadByteLimit``. Where the next message begins nobody can know then.
  struct TooLong: Error {}

  /// `struct xsd_sockmsg`
  static let headerByteCount = 16
  /// `XENSTORE_PAYLOAD_MAX`
  static let payloadByteLimit = 4096

  /// A ``Kind``, or whatever else a client wrote.
  var kind: UInt32
  /// The client's number for a request, which its answer repeats; 0 in a watch event.
  var request: UInt32
  /// 0 for none.
  var transaction: UInt32
  var payload: [UInt8]

  /// Takes the message that `bytes` begins with; nil when there is only a part of one yet.
  static func take(from bytes: inout [UInt8]) throws(TooLong) -> XenstoreMessage? {
    guard bytes.count >= headerByteCount else { return nil }
    // In the byte order of the machine, which is little-endian wherever Xen runs.
    let fields = (0..<4).map { field in (0..<4).reduce(0) { $0 | UInt32(bytes[4 * field + $1]) << (8 * UInt32($1)) } }
    guard fields[3] <= payloadByteLimit else { throw TooLong() }
    let byteCount = headerByteCount + Int(fields[3])
    guard bytes.count >= byteCount else { return nil }
    defer { bytes.removeFirst(byteCount) }
    return XenstoreMessage(
      kind: fields[0], request: fields[1], transaction: fields[2], payload: Array(bytes[headerByteCount..<byteCount]))
  }

  var bytes: [UInt8] {
    let fields = [kind, request, transaction, UInt32(payload.count)]
    return fields.flatMap { field in (0..<4).map { UInt8(truncatingIfNeeded: field >> (8 * $0)) } } + payload
  }
}

/// What a client asks for, when its message has passed: the gate between what anybody may write and what the store is asked.
///
/// It is stricter than xenstored, which takes the number `5x` for 5 and `x` for 0 and passes over a last permission without
/// its zero: here they are `EINVAL`.
enum XenstoreRequest: Hashable {
  case directory(String)
  case directoryPart(String, offset: Int)
  case read(String)
  case write(String, [UInt8])
  case makeDirectory(String)
  case remove(String)
  case permissions(String)
  case setPermissions(String, [XenstorePermission])
  case watch(String, token: String)
  case unwatch(String, token: String)
  case resetWatches
  case startTransaction
  case endTransaction(commit: Bool)
  case domainPath(DomainID)
  case isDomainIntroduced(DomainID)
  /// `XS_CONTROL` with `help`; the other commands are about the daemon that this is not.
  case help
  /// `XS_INTRODUCE`, `XS_RELEASE`, `XS_RESUME` or `XS_SET_TARGET`.
  case manageDomains

  init(_ message: XenstoreMessage) throws(XenstoreErrorName) {
    guard let kind = XenstoreMessage.Kind(rawValue: message.kind) else { throw .unknownKind }
    let payload = message.payload
    switch kind {
    case .directory: self = .directory(try Self.one(payload))
    case .directoryPart:
      let (path, offset) = try Self.two(payload)
      self = .directoryPart(path, offset: try Self.number(offset))
    case .read: self = .read(try Self.one(payload))
    case .write:
      // The value is whatever stands behind the path's zero, and may hold zeros itself.
      guard let zero = payload.firstIndex(of: 0) else { throw .invalid }
      self = .write(String(latin1: payload[..<zero]), Array(payload[(zero + 1)...]))
    case .makeDirectory: self = .makeDirectory(try Self.one(payload))
    case .remove: self = .remove(try Self.one(payload))
    case .permissions: self = .permissions(try Self.one(payload))
    case .setPermissions:
      let strings = try Self.strings(payload)
      guard strings.count > 1 else { throw .invalid }
      var permissions: [XenstorePermission] = []
      for string in strings.dropFirst() { permissions.append(try Self.permission(string)) }
      self = .setPermissions(strings[0], permissions)
    case .watch:
      let (path, token) = try Self.two(payload)
      self = .watch(path, token: token)
    case .unwatch:
      let (path, token) = try Self.two(payload)
      self = .unwatch(path, token: token)
    case .resetWatches: self = .resetWatches
    case .startTransaction: self = .startTransaction
    case .endTransaction:
      switch try Self.one(payload) {
      case "T": self = .endTransaction(commit: true)
      case "F": self = .endTransaction(commit: false)
      default: throw .invalid
      }
    case .domainPath: self = .domainPath(DomainID(rawValue: try Self.number(try Self.one(payload))))
    case .isDomainIntroduced: self = .isDomainIntroduced(DomainID(rawValue: try Self.number(try Self.one(payload))))
    case .control:
      guard try Self.one(payload) == "help" else { throw .invalid }
      self = .help
    case .introduce, .release, .resume, .setTarget: self = .manageDomains
    case .watchEvent, .error: throw .unknownKind
    }
  }

  // MARK: Payloads

  /// Strings that each end with a zero, at least one.
  private static func strings(_ payload: [UInt8]) throws(XenstoreErrorName) -> [String] {
    guard payload.last == 0 else { throw .invalid }
    return payload.dropLast().split(separator: 0, omittingEmptySubsequences: false).map { String(latin1: $0) }
  }

  private static func one(_ payload: [UInt8]) throws(XenstoreErrorName) -> String {
    let strings = try strings(payload)
    guard strings.count == 1 else { throw .invalid }
    return strings[0]
  }

  private static func two(_ payload: [UInt8]) throws(XenstoreErrorName) -> (String, String) {
    let strings = try strings(payload)
    guard strings.count == 2 else { throw .invalid }
    return (strings[0], strings[1])
  }

  /// Decimal digits, and in range.
  private static func number<Number: FixedWidthInteger>(
    _ digits: some StringProtocol
  ) throws(XenstoreErrorName) -> Number {
    guard digits.utf8.allSatisfy((UInt8(ascii: "0")...UInt8(ascii: "9")).contains), let number = Number(digits) else {
      throw .invalid
    }
    return number
  }

  /// `r`, `w`, `b` or `n`, and a domain's number.
  private static func permission(_ string: String) throws(XenstoreErrorName) -> XenstorePermission {
    let access: XenstorePermission.Access
    switch string.first {
    case "n": access = .none
    case "r": access = .read
    case "w": access = .write
    case "b": access = .both
    default: throw .invalid
    }
    return XenstorePermission(DomainID(rawValue: try number(string.dropFirst())), access)
  }
}

extension XenstorePermission {
  /// As ``XenstoreRequest`` reads it.
  var wire: String {
    let access =
      switch access {
      case .none: "n"
      case .read: "r"
      case .write: "w"
      case .both: "b"
      }
    return access + String(domain.rawValue)
  }
}

/// What an error's message says (`xsd_errors` of io/xs_wire.h).
enum XenstoreErrorName: String, Error {
  case invalid = "EINVAL"
  case permissionDenied = "EACCES"
  case exists = "EEXIST"
  case notFound = "ENOENT"
  case quotaExceeded = "ENOSPC"
  case system = "EIO"
  case unknownKind = "ENOSYS"
  case inTransaction = "EBUSY"
  case conflict = "EAGAIN"
  case tooBig = "E2BIG"

  init(_ code: XenstoreError.Code) {
    switch code {
    case .notFound: self = .notFound
    case .permissionDenied: self = .permissionDenied
    case .conflict: self = .conflict
    case .exists: self = .exists
    case .invalid: self = .invalid
    case .tooBig: self = .tooBig
    case .quotaExceeded: self = .quotaExceeded
    case .system: self = .system
    }
  }
}

extension String {
  /// A character for each byte, so that every string of bytes has its own: a token is its client's business, and need not be
  /// UTF-8. A path with such characters the store refuses itself.
  init(latin1 bytes: some Sequence<UInt8>) {
    self.init(String.UnicodeScalarView(bytes.map { Unicode.Scalar($0) }))
  }

  /// The bytes that ``init(latin1:)`` made it from, and a zero.
  var wire: [UInt8] { unicodeScalars.map { UInt8(truncatingIfNeeded: $0.value) } + [0] }
}
