/// What a server offers under the empty name: a disk of so many bytes, and how it may be addressed (proto.md, "Size
/// constraints").
public struct NBDExport: Hashable, Sendable {
  /// The largest payload of one request, in bytes: the least that the protocol wants of a server.
  public static let maximumPayload = 1 << 25

  public let byteCount: UInt64
  /// The smallest unit and alignment, in bytes: a power of two, from 1 to 65,536.
  public let minimumBlock: Int
  public let isReadOnly: Bool

  public init(byteCount: UInt64, minimumBlock: Int, isReadOnly: Bool) {
    precondition(
      (1...65_536).contains(minimumBlock) && minimumBlock.nonzeroBitCount == 1, "a power of two up to 65,536")
    precondition(byteCount % UInt64(minimumBlock) == 0, "whole blocks")
    self.byteCount = byteCount
    self.minimumBlock = minimumBlock
    self.isReadOnly = isReadOnly
  }

  /// From this size on a request costs no more than itself, in bytes.
  var preferredBlock: Int { max(4096, minimumBlock) }

  /// All connections lead to one disk, so a flush on one covers what was written on any.
  var transmissionFlags: UInt16 {
    NBD.TransmissionFlag.hasFlags | NBD.TransmissionFlag.sendFlush | NBD.TransmissionFlag.sendFUA
      | NBD.TransmissionFlag.canMultiConn | (isReadOnly ? NBD.TransmissionFlag.readOnly : 0)
  }

  func contains(offset: UInt64, count: UInt32) -> Bool {
    offset <= byteCount && UInt64(count) <= byteCount - offset
  }

  func isAligned(offset: UInt64, count: UInt32) -> Bool {
    (offset | UInt64(count)) & UInt64(minimumBlock - 1) == 0
  }
}
