/// What a ``NetHashConfiguration`` comes to for packets: made once, then read by every queue.
public final class NetHashSteering: Sendable {
  private let toeplitz: Toeplitz
  private let kinds: NetHashKinds
  private let mapping: [UInt32]
  private let queueCount: UInt32

  /// - Returns: nil when hashing is off, and the backend is free to choose.
  public init?(_ configuration: NetHashConfiguration, queueCount: Int) {
    guard configuration.algorithm == .toeplitz, !configuration.kinds.isEmpty else { return nil }
    precondition(queueCount > 0, "a queue at least")
    precondition(configuration.mapping.allSatisfy { $0 < UInt32(queueCount) }, "entries are numbers of queues")
    toeplitz = Toeplitz(key: configuration.key.span)
    (kinds, mapping, self.queueCount) = (configuration.kinds, configuration.mapping, UInt32(queueCount))
  }

  /// A frame's hash, over as much as the kinds allow.
  ///
  /// - Parameter frame: whatever its bytes are, in memory that nobody else can change.
  /// - Returns: nil when none of the kinds fits it.
  public func hash(of frame: Span<UInt8>) -> NetPacketMetadata.Hash? {
    guard let flow = NetFlow(of: frame) else { return nil }
    let isIPv4 = flow.network == .ipv4
    if flow.transport == .tcp, kinds.contains(isIPv4 ? .ipv4TCP : .ipv6TCP) {
      return NetPacketMetadata.Hash(isIPv4 ? .ipv4TCP : .ipv6TCP, value: toeplitz.value(of: flow, withPorts: true))
    }
    guard kinds.contains(isIPv4 ? .ipv4 : .ipv6) else { return nil }
    return NetPacketMetadata.Hash(isIPv4 ? .ipv4 : .ipv6, value: toeplitz.value(of: flow, withPorts: false))
  }

  /// The queue of a packet with this hash; one without goes where a hash of zero does, as Linux's backend has it.
  ///
  /// - Returns: the number of a queue of the card.
  public func queue(for hash: NetPacketMetadata.Hash?) -> Int {
    let value = hash?.value ?? 0
    guard !mapping.isEmpty else { return Int(value % queueCount) }
    return Int(mapping[Int(value % UInt32(mapping.count))])
  }
}
