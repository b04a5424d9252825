import NetIf

/// What a frame lacks, and whoever it goes to does not take so, is done here: in our own memory, before anybody sees it.
extension NetworkFrame {
  /// Lends the bytes to be changed.
  private func withMutableSpan<Result, Failure: Error>(
    _ body: (inout MutableSpan<UInt8>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let start = unsafe bytes.baseAddress.assumingMemoryBound(to: UInt8.self)
    // Safe: these are bytes of our own pages that no peer can change, and nobody has been shown them yet.
    var span = unsafe MutableSpan(_unsafeStart: start, count: bytes.count)
    return try body(&span)
  }

  /// Whether it is as most are, and nothing is wrong with its headers (``NetIf/NetHeaders/arePlain(in:)``).
  var hasPlainHeaders: Bool { withSpan { NetHeaders.arePlain(in: $0) } }

  /// Fills in a blank checksum that whoever takes `offloads` does not take.
  ///
  /// - Returns: whether it has been filled in.
  /// - Throws: when the frame has no place for one.
  func fillChecksum(unlessTaken offloads: NetOffloads) throws(NetHeaderFault) -> Bool {
    try withMutableSpan { (span) throws(NetHeaderFault) in
      let headers = try NetHeaders(parsing: span.span)
      guard !offloads.contains(headers.network == .ipv4 ? .ipv4Checksum : .ipv6Checksum) else { return false }
      headers.fillChecksum(in: &span)
      return true
    }
  }

  /// Writes the headers of one of its segments, the checksum over payload that stays where it is among them.
  ///
  /// - Parameter head: as long as they are; ours alone.
  func writeHeaders(of index: Int, by segmenter: NetSegmenter, to head: SharedBytes) {
    let start = unsafe head.baseAddress.assumingMemoryBound(to: UInt8.self)
    // Safe: these are bytes of our own pages that no peer can change, and nobody has been shown them yet.
    var headers = unsafe MutableSpan(_unsafeStart: start, count: head.count)
    withSpan { segmenter.writeHeaders(of: index, from: $0, to: &headers) }
  }

  /// Whether it is what it is to be cut as.
  func suits(_ kind: NetExtraInfo.SegmentKind) throws(NetHeaderFault) -> Bool {
    try withSpan { (span) throws(NetHeaderFault) in
      let headers = try NetHeaders(parsing: span)
      return headers.transport == .tcp && headers.network == (kind == .tcpv4 ? .ipv4 : .ipv6)
    }
  }
}

extension NetOffloads {
  /// Whether no checksum need be filled in.
  var takesEveryBlankChecksum: Bool { isSuperset(of: [.ipv4Checksum, .ipv6Checksum]) }
}
