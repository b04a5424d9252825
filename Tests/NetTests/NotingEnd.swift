import NetBack

/// An end that keeps what the guest sends, and gives what the test puts there, each with what goes with it.
///
/// Sendable: everything happens on the test's thread.
final class NotingEnd: NetworkEnd, @unchecked Sendable {
  struct Packet: Hashable {
    let bytes: [UInt8]
    let metadata: NetPacketMetadata

    init(_ bytes: [UInt8], _ metadata: NetPacketMetadata = NetPacketMetadata()) {
      (self.bytes, self.metadata) = (bytes, metadata)
    }
  }

  let offloads: NetOffloads
  /// What the guest was said to take, at each connection.
  private(set) var guestOffloads: [NetOffloads] = []
  private(set) var taken: [Packet] = []
  var toGive: [Packet] = []
  var hasCarrier = true
  /// Nil for one end that all queues share.
  private let ends: ((Int) -> NotingEnd)?

  init(offloads: NetOffloads = [], ends: ((Int) -> NotingEnd)? = nil) { (self.offloads, self.ends) = (offloads, ends) }

  func ends(forQueues queueCount: Int, guestOffloads: NetOffloads) throws(DeviceError) -> [any NetworkEnd] {
    self.guestOffloads.append(guestOffloads)
    return (0..<queueCount).map { ends?($0) ?? self }
  }

  func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
    for index in frames.indices { taken.append(Packet(frames[index].bytes.copied(), frames[index].metadata)) }
  }

  func give(to guest: inout FrameQueue) {
    while let next = toGive.first, guest.hasRoom(for: next.bytes.count) {
      guest.put(next.bytes.span, next.metadata)
      toGive.removeFirst()
    }
  }
}
