import NetIf
import XenRing

/// Why a frame was not taken.
@nonexhaustive public enum NetFrontError: Error, Hashable, Sendable, CustomStringConvertible {
  /// No backend is connected, or not any more.
  case notConnected
  /// Too few slots, or pages, are free for a frame so long: poll, then try again.
  case busy
  /// Less than an Ethernet header.
  case tooShort(byteCount: Int)
  /// More than ``NetFrontDevice/maxFrameByteCount``.
  case tooLong(byteCount: Int, limit: Int)

  /// What a card that does not connect waits for.
  case notConnectedInTime(String)

  public var description: String {
    switch self {
    case .notConnectedInTime(let report): "the card does not connect in time: \(report)"
    case .notConnected: "no backend is connected"
    case .busy: "too few slots or pages are free"
    case .tooShort(let byteCount): "\(byteCount) bytes are less than an Ethernet header"
    case .tooLong(let byteCount, let limit): "a frame of \(byteCount) bytes is longer than the limit of \(limit)"
    }
  }
}

/// The two rings and the event channels of one queue.
///
/// The two directions are stored apart, so that a frame that was received may be answered before the next one is looked
/// at. Each of them is accessed once a frame sent, and once a poll.
final class NetFrontQueue {
  private var transmit: NetFrontTransmit
  private var receive: NetFrontReceive
  private var channels: EventChannelPair

  init(transmit: consuming NetFrontTransmit, receive: consuming NetFrontReceive, channels: EventChannelPair) {
    self.transmit = transmit
    self.receive = receive
    self.channels = channels
  }

  /// Shows the backend the pages that it may fill. It is not notified: nobody listens yet.
  func postReceivePages() { _ = receive.pushAndCheckNotify() }

  /// How many more pages the backend could be given to fill.
  var missingReceivePageCount: Int { receive.missingPageCount }

  /// The next poll shows them to the backend.
  func add(_ pages: consuming GrantedPages) { receive.add(pages) }

  /// The caller has checked the frame's length.
  func put(_ frame: Span<UInt8>) throws(NetFrontError) { try transmit.put(frame) }

  func push() { channels.notify(tx: transmit.pushAndCheckNotify(), rx: false) }

  /// Takes back the pages of what was sent, hands every frame that is there to `body` and its pages back to the backend,
  /// and asks for an event at the next response.
  func poll(_ body: (borrowing NetFrontFrame) -> Void) throws(DeviceError) -> Int {
    channels.take()
    try transmit.reap()
    let received = try receive.poll(body)
    channels.notify(tx: false, rx: receive.pushAndCheckNotify())
    channels.rearm()
    return received
  }

  /// Counts what the backend has answered so far, before the rest counts as dropped. At the end of a connection it does
  /// not matter any more that the ring may be broken.
  func settle() { try? transmit.reap() }

  /// Wakes the backend whatever its event indices say.
  func kick() { channels.notify(tx: true, rx: true) }

  var descriptor: CInt { channels.descriptor }
  func hasRoom(for byteCount: Int) -> Bool { transmit.hasRoom(for: byteCount) }
  var inFlightCount: Int { transmit.inFlightCount }

  var statistics: NetStatistics {
    var statistics = NetStatistics()
    statistics.tx = transmit.counts
    statistics.rx = receive.counts
    statistics.txRing = transmit.ringStatistics
    statistics.rxRing = receive.ringStatistics
    return statistics
  }
}
