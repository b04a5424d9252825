import XenPlatform

/// The requests with which a frontend sets a ``NetHashConfiguration``, one after the other: each is asked when the one before
/// has been answered.
///
/// Hashing is off from the first one to the last but one, so that no packet is hashed by halves; and it is left off when one
/// of them fails.
public struct NetHashDialogue: Sendable {
  private enum Step: CaseIterable {
    case switchOff, setKey, getMappingSize, setMappingSize, setMapping, setAlgorithm, getKinds, setKinds
  }

  public let configuration: NetHashConfiguration
  /// Of the page that brings the key, and then the mapping.
  private let page: GrantReference
  /// In their order; the first one is under way.
  private var steps: [Step]
  /// Why it comes to nothing.
  private var fault: NetHashFault?

  public init(setting configuration: NetHashConfiguration, page: GrantReference) {
    (self.configuration, self.page) = (configuration, page)
    steps = Step.allCases.filter { step in
      switch step {
      case .switchOff: true
      case .getMappingSize, .setMapping: configuration.algorithm != .none && !configuration.mapping.isEmpty
      default: configuration.algorithm != .none
      }
    }
  }

  /// What is asked next, and what stands in the page meanwhile; nil at the end.
  public var request: (NetControlRequest, input: [UInt8])? {
    guard let step = steps.first else { return nil }
    return switch step {
    case .switchOff: (.setHashAlgorithm(.none), [])
    case .setKey: (.setHashKey(page, byteCount: configuration.key.count), configuration.key)
    case .getMappingSize: (.getHashMappingSize, [])
    case .setMappingSize: (.setHashMappingSize(configuration.mapping.count), [])
    case .setMapping:
      (
        .setHashMapping(page, entryCount: configuration.mapping.count, offset: 0), configuration.mappingBytes
      )
    case .setAlgorithm: (.setHashAlgorithm(configuration.algorithm), [])
    case .getKinds: (.getHashFlags, [])
    case .setKinds: (.setHashFlags(configuration.kinds), [])
    }
  }

  /// Goes on with the answer to what was asked.
  public mutating func take(_ answer: NetControlAnswer) {
    guard let step = steps.first, let type = request?.0.type else { preconditionFailure("nothing was asked") }
    steps.removeFirst()
    switch (step, answer.status) {
    case (.getMappingSize, .success) where answer.data < UInt32(configuration.mapping.count):
      fail(.mappingTooLong(entryCount: configuration.mapping.count, limit: answer.data))
    case (.getKinds, .success) where !NetHashKinds(rawValue: answer.data).isSuperset(of: configuration.kinds):
      fail(.kinds(configuration.kinds.subtracting(NetHashKinds(rawValue: answer.data))))
    case (_, .success): break
    default: fail(.refused(type, answer.status))
    }
  }

  private mutating func fail(_ fault: NetHashFault) {
    // Whatever becomes of switching it off, it was the first fault that counts.
    steps = self.fault == nil ? [.switchOff] : []
    if self.fault == nil { self.fault = fault }
  }

  /// How it ended; nil when there is something to ask still.
  public var result: Result<NetHashConfiguration, NetHashFault>? {
    guard steps.isEmpty else { return nil }
    return fault.map { .failure($0) } ?? .success(configuration)
  }
}

/// Why a frontend's wish for hashing is not fulfilled; the backend is then free to choose.
@nonexhaustive public enum NetHashFault: Error, Hashable, Sendable, CustomStringConvertible {
  /// The backend has no control ring, or we were told not to use it.
  case notOffered
  case refused(NetControlType, NetControlStatus)
  /// The backend does not know these.
  case kinds(NetHashKinds)
  /// More than the backend takes.
  case mappingTooLong(entryCount: Int, limit: UInt32)

  public var description: String {
    switch self {
    case .notOffered: "no control ring was agreed on (feature-ctrl-ring)"
    case .refused(let type, let status): "the backend answered \(type) with \(status)"
    case .kinds(let kinds): "the backend does not know the hash flags 0x\(String(kinds.rawValue, radix: 16))"
    case .mappingTooLong(let entryCount, let limit):
      "the backend takes a mapping of at most \(limit) entries, not \(entryCount)"
    }
  }
}
