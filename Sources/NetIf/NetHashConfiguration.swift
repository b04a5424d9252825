/// How the backend of a card hashes packets for the frontend, and which queue it sends each on: what the control ring sets
/// (io/netif.h, "Control messages"). It begins with no algorithm, no kinds, an empty key and no mapping.
public struct NetHashConfiguration: Hashable, Sendable {
  /// The longest mapping that a backend takes; Linux's takes as many.
  public static let maxMappingCount = 128
  /// Of an entry of the mapping on the wire.
  static let entryByteCount = 4

  public private(set) var algorithm = NetHashAlgorithm.none
  /// Over what a hash is computed; none of them means that there is no hashing, as no algorithm does.
  public private(set) var kinds: NetHashKinds = []
  /// At most ``Toeplitz/maxKeyByteCount`` bytes.
  public private(set) var key: [UInt8] = []
  /// The queue of a hash, by what is left of it when it is divided by their number; of that of the queues where there are no
  /// entries. Each is the number of a queue.
  public private(set) var mapping: [UInt32] = []

  /// What a backend begins with.
  public init() {}

  /// Toeplitz under `key`.
  ///
  /// - Parameters:
  ///   - kinds: where none fits a packet, its hash counts as zero.
  ///   - key: at most ``Toeplitz/maxKeyByteCount`` bytes.
  ///   - mapping: numbers of queues, at most ``maxMappingCount``.
  public init(toeplitz key: [UInt8], kinds: NetHashKinds = .all, mapping: [UInt32] = []) {
    precondition(key.count <= Toeplitz.maxKeyByteCount, "a key of more bytes than there are")
    precondition(mapping.count <= Self.maxMappingCount, "a mapping of more entries than there are")
    precondition(NetHashKinds.all.isSuperset(of: kinds), "no kinds but those of the protocol")
    (algorithm, self.kinds, self.key, self.mapping) = (.toeplitz, kinds, key, mapping)
  }

  /// Does what the frontend asks for; what it does not do, it leaves as it was.
  ///
  /// - Parameters:
  ///   - input: a copy of as much of the granted page as ``NetControlRequest/input`` says.
  ///   - queueCount: of the connection: from 1 on.
  /// - Returns: what answers it; zero for what asks for nothing.
  public mutating func apply(
    _ request: NetControlRequest, input: Span<UInt8>, queueCount: Int
  ) throws(NetControlFault) -> UInt32 {
    precondition(input.count == request.input?.byteCount ?? 0, "what the request brings")
    switch request {
    case .getHashFlags:
      // Only known when there is an algorithm.
      guard algorithm != .none else { throw .noAlgorithmToAskAbout }
      return NetHashKinds.all.rawValue
    case .setHashFlags(let kinds):
      guard algorithm != .none else { throw .noAlgorithm }
      self.kinds = kinds
    case .setHashKey: key = input.indices.map { input[$0] }
    case .getHashMappingSize: return UInt32(Self.maxMappingCount)
    case .setHashMappingSize(let count): mapping = [UInt32](repeating: 0, count: count)
    case .setHashMapping(_, let entryCount, let offset):
      try setMapping(entryCount, at: offset, input, queueCount: queueCount)
    case .setHashAlgorithm(let algorithm): self.algorithm = algorithm
    case .getGrantMappingSize, .addGrantMapping, .removeGrantMapping: throw .noGrantMapping
    }
    return 0
  }

  private mutating func setMapping(
    _ entryCount: Int, at offset: Int, _ input: Span<UInt8>, queueCount: Int
  ) throws(NetControlFault) {
    // Each is at most `maxMappingCount`.
    guard offset + entryCount <= mapping.count else {
      throw .outsideMapping(entryCount: entryCount, offset: offset, size: mapping.count)
    }
    var entries: [UInt32] = []
    for index in 0..<entryCount {
      var entry: UInt32 = 0
      // As the machine has it: both ends are on one.
      for byte in 0..<Self.entryByteCount {
        entry |= UInt32(input[index * Self.entryByteCount + byte]) << UInt32(8 * byte)
      }
      entries.append(entry)
    }
    for entry in entries where entry >= UInt32(queueCount) { throw .noSuchQueue(entry, queueCount: queueCount) }
    mapping.replaceSubrange(offset..<offset + entryCount, with: entries)
  }

  /// The mapping's bytes on the wire.
  public var mappingBytes: [UInt8] {
    mapping.flatMap { entry in (0..<Self.entryByteCount).map { UInt8(truncatingIfNeeded: entry >> UInt32(8 * $0)) } }
  }
}
