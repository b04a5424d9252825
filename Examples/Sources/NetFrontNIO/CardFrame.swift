import NIOCore
import NetFront

/// A frame on its way through a ``CardChannel``'s pipeline, either way.
public struct CardFrame: Hashable, Sendable {
  /// An Ethernet header and what follows it.
  public var bytes: ByteBuffer
  /// What is left to do to it, and what is known about it.
  public var metadata: NetPacketMetadata

  public init(_ bytes: ByteBuffer, _ metadata: NetPacketMetadata = NetPacketMetadata()) {
    (self.bytes, self.metadata) = (bytes, metadata)
  }
}
