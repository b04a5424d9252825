import XenPlatform

/// Why a control request is not done. It concerns that request and nothing else.
@nonexhaustive public enum NetControlFault: Error, Hashable, Sendable, CustomStringConvertible {
  case unknownType(UInt16)
  case algorithm(UInt32)
  case hashKinds(UInt32)
  /// An algorithm must be chosen first.
  case noAlgorithm
  /// What it supports is not known before it is chosen.
  case noAlgorithmToAskAbout
  case keyTooLong(byteCount: UInt32)
  case mappingSize(UInt32)
  /// More than the backend supports.
  case mappingTooLong(entryCount: UInt32, offset: UInt32)
  /// More than the frontend has set.
  case outsideMapping(entryCount: Int, offset: Int, size: Int)
  case noSuchQueue(UInt32, queueCount: Int)
  case grantListSize(UInt32)
  /// The granted page that it names cannot be read or written.
  case unreadable(GrantReference, GrantStatus)
  /// Grants are not kept mapped.
  case noGrantMapping
  /// They would be more than are kept.
  case tooManyGrants(count: Int, limit: Int)
  case grantFlags(UInt16)
  case grantMappedAlready(GrantReference)
  /// The hypervisor does not map one of the list.
  case unmappable(String)

  /// How the frontend is told.
  public var status: NetControlStatus {
    switch self {
    case .unknownType, .noAlgorithmToAskAbout, .noGrantMapping: .notSupported
    case .keyTooLong, .mappingTooLong: .bufferOverflow
    case .algorithm, .hashKinds, .noAlgorithm, .mappingSize, .outsideMapping, .noSuchQueue, .grantListSize, .unreadable,
      .tooManyGrants, .grantFlags, .grantMappedAlready, .unmappable:
      .invalidParameter
    }
  }

  public var description: String {
    switch self {
    case .unknownType(let type): "its type \(type) is not known"
    case .algorithm(let number): "hash algorithm \(number) is not known"
    case .hashKinds(let flags): "the hash flags 0x\(String(flags, radix: 16)) are not all known"
    case .noAlgorithm, .noAlgorithmToAskAbout: "no hash algorithm has been chosen"
    case .keyTooLong(let byteCount): "a key has at most \(Toeplitz.maxKeyByteCount) bytes, not \(byteCount)"
    case .mappingSize(let count):
      "a mapping has at most \(NetHashConfiguration.maxMappingCount) entries, not \(count)"
    case .mappingTooLong(let entryCount, let offset):
      "\(entryCount) entries from \(offset) on leave any mapping, which has "
        + "\(NetHashConfiguration.maxMappingCount) entries at most"
    case .outsideMapping(let entryCount, let offset, let size):
      "\(entryCount) entries from \(offset) on leave the mapping, which has \(size)"
    case .noSuchQueue(let number, let queueCount): "queue \(number) is none of the \(queueCount) queues"
    case .grantListSize(let count):
      "a list of grants has 1 to \(NetControlRequest.maxGrantListCount) entries, not \(count)"
    case .unreadable(let reference, let status): "\(reference) cannot be reached: \(status)"
    case .noGrantMapping: "no grants are kept mapped"
    case .tooManyGrants(let count, let limit): "\(count) grants are more than the \(limit) that are kept mapped"
    case .grantFlags(let flags): "the grant flags 0x\(String(flags, radix: 16)) are not all known"
    case .grantMappedAlready(let reference): "\(reference) is mapped already"
    case .unmappable(let reason): reason
    }
  }
}
