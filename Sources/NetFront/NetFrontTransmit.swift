import NetIf
import XenRing

/// The transmit ring, its page pool and its in-flight table.
///
/// A request's id is its place in the table, and names a page that was shared, for reading only, when the device
/// connected: a frame needs no grant call. There are no more pages than slots, so whoever has a page has a slot. Backends
/// answer in any order.
struct NetFrontTransmit: ~Copyable {
  /// What a request in flight belongs to. A frame is answered slot by slot, and done with the last one.
  private struct Entry {
    var isInFlight: Bool
    /// The id of the frame's first request. The entry of that one has the rest, and keeps its page until all are answered.
    let first: UInt16
    let byteCount: UInt16
    var unansweredCount: UInt8
    var result = NetTxResult.sent

    static var idle: Entry { Entry(isInFlight: false, first: 0, byteCount: 0, unansweredCount: 0) }
  }

  private var ring: FrontRing<NetIfTxRequest, NetIfTxResponse>
  private let pages: NetFrontPages
  private var entries: [Entry]
  private var freePages: [UInt16] = []
  /// Frames put and not yet answered.
  private(set) var inFlightCount = 0
  private(set) var counts = NetCounts()

  init(ring: consuming FrontRing<NetIfTxRequest, NetIfTxResponse>, pages: consuming NetFrontPages) {
    precondition(pages.count <= ring.entryCount, "no more pages than slots")
    entries = Array(repeating: .idle, count: pages.count)
    freePages.append(contentsOf: (0..<UInt16(pages.count)).reversed())
    self.ring = ring
    self.pages = pages
  }

  var ringStatistics: RingStatistics { ring.statistics }

  /// Whether a frame of this length could be put now.
  func hasRoom(for byteCount: Int) -> Bool { NetIf.pageCount(of: byteCount) <= freePages.count }

  /// The caller has checked the frame's length.
  mutating func put(_ frame: Span<UInt8>) throws(NetFrontError) {
    let byteCount = frame.count
    let count = NetIf.pageCount(of: byteCount)
    guard count <= freePages.count else { throw .busy }
    let first = freePages[freePages.count - 1]
    // The first slot's size is the whole frame's.
    put(
      frame.extracting(first: xenPageSize),
      Entry(isInFlight: true, first: first, byteCount: UInt16(byteCount), unansweredCount: UInt8(count)),
      size: byteCount, hasMore: count > 1)
    for part in 1..<count {
      let bytes = frame.extracting(droppingFirst: part * xenPageSize).extracting(first: xenPageSize)
      put(
        bytes, Entry(isInFlight: true, first: first, byteCount: 0, unansweredCount: 0), size: bytes.count,
        hasMore: part + 1 < count)
    }
    inFlightCount += 1
  }

  /// Puts a part of a frame, in the next free page.
  private mutating func put(_ bytes: Span<UInt8>, _ entry: Entry, size: Int, hasMore: Bool) {
    let id = freePages.removeLast()
    let page = pages[id]
    page.bytes.copy(from: bytes)
    entries[Int(id)] = entry
    ring.put(
      NetIfTxRequest(gref: page.reference, flags: hasMore ? NetIf.TxFlag.moreData : 0, id: id, size: UInt16(size)))
  }

  mutating func pushAndCheckNotify() -> Bool { ring.hasUnpushed && ring.pushAndCheckNotify() }

  /// Takes back the pages of every frame that was answered.
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
    let result: NetTxResult
    do throws(NetResponseViolation) {
      guard slot < entries.count, entries[slot].isInFlight else { throw .txNotInFlight(id: response.id) }
      result = try NetTxResult(parsing: response)
    } catch { throw .protocolViolation("\(error)") }
    entries[slot].isInFlight = false
    let first = entries[slot].first
    if response.id != first { freePages.append(response.id) }
    var entry = entries[Int(first)]
    // A frame is lost with any of its parts.
    if result != .sent { entry.result = result }
    guard entry.unansweredCount == 1 else {
      entry.unansweredCount -= 1
      entries[Int(first)] = entry
      return
    }
    switch entry.result {
    case .sent: counts.count(packetOf: Int(entry.byteCount))
    case .failed: counts.errors &+= 1
    case .dropped: counts.drops &+= 1
    }
    freePages.append(first)
    inFlightCount -= 1
  }
}
