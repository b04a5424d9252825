import NetIf
import XenRing

/// Why a frame was not taken.
@nonexhaustive public enum NetFrontError: Error, Hashable, Sendable, CustomStringConvertible {
  /// No backend is connected, or not any more.
  case notConnected
  /// As many frames as the ring has slots are in flight: poll, then try again.
  case busy
  /// Less than an Ethernet header.
  case tooShort(byteCount: Int)
  /// More than ``NetFrontDevice/maxFrameByteCount``.
  case tooLong(byteCount: Int, limit: Int)

  public var description: String {
    switch self {
    case .notConnected: "no backend is connected"
    case .busy: "every slot of the ring is in use"
    case .tooShort(let byteCount): "\(byteCount) bytes are less than an Ethernet header"
    case .tooLong(let byteCount, let limit): "a frame of \(byteCount) bytes is longer than the limit of \(limit)"
    }
  }
}

/// The two rings and the event channel of one queue.
///
/// The two directions are stored apart, so that a frame that was received may be answered before the next one is looked
/// at. Each of them is accessed once a frame sent, and once a poll.
final class NetFrontQueue {
  private var transmit: NetFrontTransmit
  private var receive: NetFrontReceive
  private var channel: EventChannel

  init(transmit: consuming NetFrontTransmit, receive: consuming NetFrontReceive, channel: EventChannel) {
    self.transmit = transmit
    self.receive = receive
    self.channel = channel
  }

  /// Shows the backend the pages that it may fill. It is not notified: nobody listens yet.
  func postReceivePages() { _ = receive.pushAndCheckNotify() }

  /// The caller has checked the frame's length.
  func put(_ frame: Span<UInt8>) throws(NetFrontError) { try transmit.put(frame) }

  func push() { if transmit.pushAndCheckNotify() { channel.notify() } }

  /// Takes back the pages of what was sent, hands every frame that is there to `body` and its page back to the backend,
  /// and asks for an event at the next response.
  func poll(_ body: (SharedBytes) -> Void) throws(DeviceError) -> Int {
    channel.take()
    try transmit.reap()
    let received = try receive.poll(body)
    if receive.pushAndCheckNotify() { channel.notify() }
    channel.rearm()
    return received
  }

  /// Counts what the backend has answered so far, before the rest counts as dropped. At the end of a connection it does
  /// not matter any more that the ring may be broken.
  func settle() { try? transmit.reap() }

  /// Wakes the backend whatever its event indices say.
  func kick() { channel.notify() }

  var descriptor: CInt { channel.descriptor }
  var hasFreeSlots: Bool { transmit.hasFreeSlots }
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

/// The transmit ring, its page pool and its in-flight table.
///
/// A request's id is its place in the table, and names a page that was shared, for reading only, when the device
/// connected: a frame needs no grant call. Backends answer in any order.
struct NetFrontTransmit: ~Copyable {
  private var ring: FrontRing<NetIfTxRequest, NetIfTxResponse>
  private let pages: GrantedPages
  /// The length of each frame in flight; zero where none is.
  private var byteCounts: [UInt16]
  private var freeSlots: [UInt16] = []
  private(set) var counts = NetCounts()

  init(ring: consuming FrontRing<NetIfTxRequest, NetIfTxResponse>, pages: consuming GrantedPages) {
    let count = ring.entryCount
    precondition(pages.references.count == count, "a page a slot")
    self.ring = ring
    self.pages = pages
    byteCounts = Array(repeating: 0, count: count)
    freeSlots.append(contentsOf: (0..<UInt16(count)).reversed())
  }

  var hasFreeSlots: Bool { !freeSlots.isEmpty }
  var inFlightCount: Int { byteCounts.count - freeSlots.count }
  var ringStatistics: RingStatistics { ring.statistics }

  mutating func put(_ frame: Span<UInt8>) throws(NetFrontError) {
    guard let slot = freeSlots.popLast() else { throw .busy }
    pages.bytes.slice(from: Int(slot) * xenPageSize, count: xenPageSize).copy(from: frame)
    let byteCount = UInt16(frame.count)
    byteCounts[Int(slot)] = byteCount
    // As many slots in the ring as in the table.
    ring.put(NetIfTxRequest(gref: pages.references[Int(slot)], id: slot, size: byteCount))
  }

  mutating func pushAndCheckNotify() -> Bool { ring.hasUnpushed && ring.pushAndCheckNotify() }

  /// Takes back the page of every frame that was answered.
  mutating func reap() throws(DeviceError) {
    while try hasResponses() {
      while let response = ring.next() { try take(response) }
    }
  }

  /// When there is no response, asks for an event after half of those that can come: pages are wanted back before the
  /// last one is gone, and not one by one.
  private mutating func hasResponses() throws(DeviceError) -> Bool {
    do throws(RingViolation) {
      if try ring.available() > 0 { return true }
      if try ring.wake(after: ring.pushedCount / 2 + 1) { return true }
      // Fewer than asked for may have come meanwhile; they are taken now.
      return try ring.available() > 0
    } catch { throw .protocolViolation("\(NetRingViolation(.tx, error))") }
  }

  private mutating func take(_ response: NetIfTxResponse) throws(DeviceError) {
    let slot = Int(response.id)
    do throws(NetResponseViolation) {
      guard slot < byteCounts.count, byteCounts[slot] > 0 else { throw .txNotInFlight(id: response.id) }
      switch try NetTxResult(parsing: response) {
      case .sent: counts.count(packetOf: Int(byteCounts[slot]))
      case .failed: counts.errors &+= 1
      case .dropped: counts.drops &+= 1
      }
    } catch { throw .protocolViolation("\(error)") }
    byteCounts[slot] = 0
    freeSlots.append(response.id)
  }
}

/// The receive ring and its page pool.
///
/// Every slot has a page of its own, which is also its request's id: as soon as a response has been taken out of a slot,
/// the same page is asked for again there. So a backend has all pages but those of one poll.
struct NetFrontReceive: ~Copyable {
  private var ring: FrontRing<NetIfRxRequest, NetIfRxResponse>
  private let pages: GrantedPages
  /// Where in the ring the next response stands.
  private var nextSlot: UInt16 = 0
  private(set) var counts = NetCounts()

  /// Asks for a frame in every slot; ``pushAndCheckNotify()`` shows it.
  init(ring: consuming FrontRing<NetIfRxRequest, NetIfRxResponse>, pages: consuming GrantedPages) {
    let count = ring.entryCount
    precondition(pages.references.count == count, "a page a slot")
    self.ring = ring
    self.pages = pages
    for slot in 0..<UInt16(count) { post(slot) }
  }

  var ringStatistics: RingStatistics { ring.statistics }

  private mutating func post(_ slot: UInt16) {
    ring.put(NetIfRxRequest(id: slot, gref: pages.references[Int(slot)]))
  }

  mutating func pushAndCheckNotify() -> Bool { ring.hasUnpushed && ring.pushAndCheckNotify() }

  /// Hands over every frame that is there: at most as many as the ring has slots, since the backend sees the pages that
  /// come back only with the next push.
  mutating func poll(_ body: (SharedBytes) -> Void) throws(DeviceError) -> Int {
    var received = 0
    while try hasResponses() {
      while let response = ring.next() {
        let slot = nextSlot
        nextSlot = (nextSlot + 1) % UInt16(ring.entryCount)
        switch try check(response, in: slot) {
        case .failed: counts.errors &+= 1
        case .frame(let offset, let byteCount):
          body(pages.bytes.slice(from: Int(slot) * xenPageSize + offset, count: byteCount))
          counts.count(packetOf: byteCount)
          received += 1
        }
        post(slot)
      }
    }
    return received
  }

  private mutating func hasResponses() throws(DeviceError) -> Bool {
    do throws(RingViolation) { return try ring.finalCheck() } catch {
      throw .protocolViolation("\(NetRingViolation(.rx, error))")
    }
  }

  private func check(_ response: NetIfRxResponse, in slot: UInt16) throws(DeviceError) -> NetRxResult {
    do throws(NetResponseViolation) { return try NetRxResult(parsing: response, in: slot) } catch {
      throw .protocolViolation("\(error)")
    }
  }
}
