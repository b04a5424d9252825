/// Extra infos on their way out: the other direction of the gate.
extension NetIfExtraInfo {
  /// - Parameter hasMore: whether another extra info of the packet follows.
  public init(_ info: NetExtraInfo, hasMore: Bool = false) {
    let flags = hasMore ? NetIf.extraFlagMore : 0
    switch info {
    case .segmentation(let kind, let payloadByteCount):
      self.init(
        type: NetIf.ExtraType.segmentation, flags: flags, words: (payloadByteCount, UInt16(kind.rawValue), 0))
    case .addMulticast(let group): self.init(type: NetIf.ExtraType.addMulticast, flags: flags, words: group.words)
    case .removeMulticast(let group): self.init(type: NetIf.ExtraType.removeMulticast, flags: flags, words: group.words)
    case .hash(let kind, let value):
      self.init(
        type: NetIf.ExtraType.hash, flags: flags,
        words: (
          // The algorithm's number is Toeplitz's.
          UInt16(kind.rawValue) | 1 << 8, UInt16(truncatingIfNeeded: value), UInt16(truncatingIfNeeded: value >> 16)
        ))
    case .headroom(let byteCount):
      self.init(type: NetIf.ExtraType.headroom, flags: flags, words: (byteCount, 0, 0))
    }
  }

  /// The slot that carries it to a frontend, in the place of a response.
  public var receiveSlot: NetIfRxResponse {
    NetIfRxResponse(
      id: UInt16(type) | UInt16(flags) << 8, offset: words.0, flags: words.1, status: Int16(bitPattern: words.2))
  }
}

extension MACAddress {
  /// The bytes in transmission order, two by two, the first one lowest.
  fileprivate var words: (UInt16, UInt16, UInt16) {
    let bytes = bytes
    let word = { (index: Int) in UInt16(bytes[index]) | UInt16(bytes[index + 1]) << 8 }
    return (word(0), word(2), word(4))
  }
}
