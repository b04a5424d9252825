import NetIf

/// Why a frame was not taken.
@nonexhaustive public enum NetFrontError: Error, Hashable, Sendable, CustomStringConvertible {
  /// No backend is connected, or not any more.
  case notConnected
  /// Too few slots, or pages, are free for a frame so long: poll, then try again.
  case busy
  /// Less than an Ethernet header.
  case tooShort(byteCount: Int)
  /// More than ``NetFrontDevice/maxFrameByteCount`` or, of a frame to be cut, ``NetFrontDevice/maxSegmentedByteCount``.
  case tooLong(byteCount: Int, limit: Int)
  /// Its checksum was left blank, or it is to be cut, and it is not one whole packet of TCP or, with a blank checksum only, UDP.
  case unfinishable(NetHeaderFault)
  /// It is to be cut into segments of another protocol than it has, or into such without payload.
  case segmentation(NetPacketMetadata.Segmentation)
  /// It is to be cut, and neither does the backend do that (``NetFrontDevice/offloads``) nor can it be done here.
  case unsegmentable(NetSegmentationFault)
  /// It would have to be cut here into more segments than there are slots and pages for.
  case tooManySegments(count: Int, limit: Int)

  /// The backend does not offer it.
  case notSupported(String)
  /// No multicast group: the address is one card's, or everybody's.
  case noGroup(MACAddress)

  /// What a card that does not connect waits for.
  case notConnectedInTime(String)

  public var description: String {
    switch self {
    case .notConnectedInTime(let report): "the card does not connect in time: \(report)"
    case .notSupported(let what): "the backend does not offer \(what)"
    case .noGroup(let address): "\(address) is the address of no multicast group"
    case .notConnected: "no backend is connected"
    case .busy: "too few slots or pages are free"
    case .tooShort(let byteCount): "\(byteCount) bytes are less than an Ethernet header"
    case .tooLong(let byteCount, let limit): "a frame of \(byteCount) bytes is longer than the limit of \(limit)"
    case .unfinishable(let fault): "the frame cannot be finished: \(fault)"
    case .segmentation(let segmentation):
      "the frame cannot be cut into segments of \(segmentation.kind) with \(segmentation.payloadByteCount) bytes each"
    case .unsegmentable(let fault): "the frame cannot be cut: \(fault)"
    case .tooManySegments(let count, let limit):
      "the frame would become \(count) segments, and there is room for \(limit) at most"
    }
  }
}

/// A frame of a batch that a card does not send.
public struct NetFrontRefusal: Hashable, Sendable {
  /// Its place in the batch.
  public let index: Int
  public let error: NetFrontError

  public init(index: Int, error: NetFrontError) { (self.index, self.error) = (index, error) }
}
