import XenPlatform

/// A control request that has passed the gate (io/netif.h, "Control messages"): what it says of itself is within bounds. What
/// the granted page that it names holds is still unknown.
public enum NetControlRequest: Hashable, Sendable {
  case getHashFlags
  case setHashFlags(NetHashKinds)
  /// At most ``Toeplitz/maxKeyByteCount`` bytes, from the start of the granted page on.
  case setHashKey(GrantReference, byteCount: Int)
  case getHashMappingSize
  /// At most ``NetHashConfiguration/maxMappingCount`` entries.
  case setHashMappingSize(Int)
  /// So many entries from the start of the granted page on replace those from `offset` on; together they are no more than
  /// ``NetHashConfiguration/maxMappingCount``.
  case setHashMapping(GrantReference, entryCount: Int, offset: Int)
  case setHashAlgorithm(NetHashAlgorithm)
  case getGrantMappingSize(queue: UInt32)
  /// A list of so many entries, one at least, in one granted page.
  case addGrantMapping(queue: UInt32, GrantReference, entryCount: Int)
  case removeGrantMapping(queue: UInt32, GrantReference, entryCount: Int)

  /// How long a list of grants may be: a page of it.
  public static let maxGrantListCount = xenPageSize / NetIfGrantMapping.byteCount

  /// Checks a copied request: the one gate for control requests.
  ///
  /// Words that no message of its type uses are not looked at.
  public init(parsing raw: NetIfControlRequest) throws(NetControlFault) {
    guard let type = NetControlType(rawValue: raw.type) else { throw .unknownType(raw.type) }
    let data = raw.data
    switch type {
    case .getHashFlags: self = .getHashFlags
    case .setHashFlags:
      let kinds = NetHashKinds(rawValue: data.0)
      guard NetHashKinds.all.isSuperset(of: kinds) else { throw .hashKinds(data.0) }
      self = .setHashFlags(kinds)
    case .setHashKey:
      guard data.1 <= UInt32(Toeplitz.maxKeyByteCount) else { throw .keyTooLong(byteCount: data.1) }
      self = .setHashKey(GrantReference(rawValue: data.0), byteCount: Int(data.1))
    case .getHashMappingSize: self = .getHashMappingSize
    case .setHashMappingSize:
      guard data.0 <= UInt32(NetHashConfiguration.maxMappingCount) else { throw .mappingSize(data.0) }
      self = .setHashMappingSize(Int(data.0))
    case .setHashMapping:
      // Each is 32 bits wide, and the sum is not (XSA-270).
      guard UInt64(data.1) + UInt64(data.2) <= UInt64(NetHashConfiguration.maxMappingCount) else {
        throw .mappingTooLong(entryCount: data.1, offset: data.2)
      }
      self = .setHashMapping(GrantReference(rawValue: data.0), entryCount: Int(data.1), offset: Int(data.2))
    case .setHashAlgorithm:
      guard let algorithm = NetHashAlgorithm(rawValue: data.0) else { throw .algorithm(data.0) }
      self = .setHashAlgorithm(algorithm)
    case .getGrantMappingSize: self = .getGrantMappingSize(queue: data.0)
    case .addGrantMapping, .removeGrantMapping:
      guard data.2 >= 1, data.2 <= UInt32(Self.maxGrantListCount) else { throw .grantListSize(data.2) }
      let (reference, entryCount) = (GrantReference(rawValue: data.1), Int(data.2))
      self =
        type == .addGrantMapping
        ? .addGrantMapping(queue: data.0, reference, entryCount: entryCount)
        : .removeGrantMapping(queue: data.0, reference, entryCount: entryCount)
    }
  }

  /// The granted page that it brings, and how many bytes of it count; nil when it brings none.
  public var input: (reference: GrantReference, byteCount: Int)? {
    switch self {
    case .setHashKey(let reference, let byteCount): byteCount > 0 ? (reference, byteCount) : nil
    case .setHashMapping(let reference, let entryCount, _):
      entryCount > 0 ? (reference, entryCount * NetHashConfiguration.entryByteCount) : nil
    case .addGrantMapping(_, let reference, let entryCount), .removeGrantMapping(_, let reference, let entryCount):
      (reference, entryCount * NetIfGrantMapping.byteCount)
    case .getHashFlags, .setHashFlags, .getHashMappingSize, .setHashMappingSize, .setHashAlgorithm,
      .getGrantMappingSize:
      nil
    }
  }

  public var type: NetControlType {
    switch self {
    case .getHashFlags: .getHashFlags
    case .setHashFlags: .setHashFlags
    case .setHashKey: .setHashKey
    case .getHashMappingSize: .getHashMappingSize
    case .setHashMappingSize: .setHashMappingSize
    case .setHashMapping: .setHashMapping
    case .setHashAlgorithm: .setHashAlgorithm
    case .getGrantMappingSize: .getGrantMappingSize
    case .addGrantMapping: .addGrantMapping
    case .removeGrantMapping: .removeGrantMapping
    }
  }

  /// The slot that carries it to a backend.
  public func slot(id: UInt16) -> NetIfControlRequest {
    let data: (UInt32, UInt32, UInt32) =
      switch self {
      case .getHashFlags, .getHashMappingSize: (0, 0, 0)
      case .setHashFlags(let kinds): (kinds.rawValue, 0, 0)
      case .setHashKey(let reference, let byteCount): (reference.rawValue, UInt32(byteCount), 0)
      case .setHashMappingSize(let count): (UInt32(count), 0, 0)
      case .setHashMapping(let reference, let entryCount, let offset):
        (reference.rawValue, UInt32(entryCount), UInt32(offset))
      case .setHashAlgorithm(let algorithm): (algorithm.rawValue, 0, 0)
      case .getGrantMappingSize(let queue): (queue, 0, 0)
      case .addGrantMapping(let queue, let reference, let entryCount),
        .removeGrantMapping(let queue, let reference, let entryCount):
        (queue, reference.rawValue, UInt32(entryCount))
      }
    return NetIfControlRequest(id: id, type: type.rawValue, data: data)
  }
}
