import NetIf

/// How a frame goes to the backend: what its slots say of it, and what of it we finish ourselves.
struct NetFrontTxForm: BitwiseCopyable {
  /// Of its first slot, but for those that say what follows.
  var flags: UInt16 = 0
  /// Told in an extra info; then the frame takes a slot more.
  var segmentation: NetPacketMetadata.Segmentation?
  /// Where the checksum's field is, and what is written there in place of what the frame has; nil when nothing is.
  var checksum: (offset: Int, value: UInt16)?

  /// The frame as it is.
  init() {}

  /// - Parameter offloads: what the backend takes unfinished: it cuts such a frame, if it is to be cut.
  @inline(__always) init(
    _ frame: Span<UInt8>, _ metadata: NetPacketMetadata, offloads: NetOffloads
  ) throws(NetFrontError) {
    // As most are.
    if metadata == NetPacketMetadata(checksum: .blank), offloads.contains(.ipv4Checksum),
      let checksum = NetHeaders.plainBlankChecksum(of: frame)
    {
      self.init()
      flags = NetIf.TxFlag.checksumBlank | NetIf.TxFlag.dataValidated
      self.checksum = (NetHeaders.plainChecksumOffset, checksum)
    } else {
      try self.init(any: frame, metadata, offloads: offloads)
    }
  }

  private init(
    any frame: Span<UInt8>, _ metadata: NetPacketMetadata, offloads: NetOffloads
  ) throws(NetFrontError) {
    if metadata.checksum == .validated { flags = NetIf.TxFlag.dataValidated }
    guard metadata.checksum == .blank || metadata.segmentation != nil else { return }
    let headers: NetHeaders
    do throws(NetHeaderFault) { headers = try NetHeaders(parsing: frame) } catch { throw .unfinishable(error) }
    if let segmentation = metadata.segmentation {
      guard segmentation.payloadByteCount > 0, headers.transport == .tcp,
        headers.network == (segmentation.kind == .tcpv4 ? .ipv4 : .ipv6)
      else { throw .segmentation(segmentation) }
      self.segmentation = segmentation
    }
    let isLeftBlank = offloads.contains(headers.network == .ipv4 ? .ipv4Checksum : .ipv6Checksum)
    flags = isLeftBlank ? NetIf.TxFlag.checksumBlank | NetIf.TxFlag.dataValidated : 0
    checksum = (
      headers.checksumOffset, isLeftBlank ? headers.blankChecksum(of: frame) : headers.checksum(of: frame)
    )
  }
}
