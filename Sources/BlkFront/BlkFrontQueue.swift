import BlkIf
import XenRing

/// One ring, its page pool and its in-flight table.
///
/// A request's number is its place in the table, and names eleven pages that were shared when the device connected: a
/// request needs no grant call.
struct BlkFrontQueue: ~Copyable {
  private struct InFlight {
    var tag: UInt64
    var operation: UInt8
    var byteCount: Int
    /// Set when the backend has answered and the user has not been told yet.
    var result: BlkFrontCompletion.Result?
  }

  private var ring: FrontRing<BlkIfRequest, BlkIfResponse>
  private(set) var channel: EventChannel
  private let pages: GrantedPages
  private var inFlight: [InFlight?]
  private var freeSlots: [Int] = []
  /// Answered, and not handed over yet, in the backend's order.
  private var answered: [Int] = []
  private var handedOverCount = 0

  init(
    ring: consuming FrontRing<BlkIfRequest, BlkIfResponse>, channel: EventChannel, pages: consuming GrantedPages
  ) {
    let count = ring.entryCount
    precondition(pages.references.count == count * BlkIf.maxSegmentCount, "eleven pages a slot")
    self.ring = ring
    self.channel = channel
    self.pages = pages
    inFlight = Array(repeating: nil, count: count)
    freeSlots.append(contentsOf: (0..<count).reversed())
    answered.reserveCapacity(count)
  }

  var inFlightCount: Int { inFlight.count - freeSlots.count }
  var statistics: RingStatistics { ring.statistics }

  /// Puts a request into the ring. The caller has checked it against the disk.
  mutating func put(
    operation: UInt8, sector: UInt64, byteCount: Int, tag: UInt64, payload: Span<UInt8>? = nil
  ) throws(BlkFrontError) {
    guard let slot = freeSlots.popLast() else { throw .busy }
    if let payload { buffer(slot, byteCount).copy(from: payload) }
    inFlight[slot] = InFlight(tag: tag, operation: operation, byteCount: byteCount)
    var request = BlkIfRequest(operation: operation, id: UInt64(slot), sectorNumber: sector)
    var left = byteCount / BlkIf.sectorByteCount
    var segment = 0
    while left > 0 {
      let count = min(left, BlkIf.sectorsPerPage)
      request.segments[segment] = BlkIfSegment(
        gref: pages.references[slot * BlkIf.maxSegmentCount + segment], firstSector: 0, lastSector: UInt8(count - 1))
      left -= count
      segment += 1
    }
    request.segmentCount = UInt8(segment)
    // As many slots in the ring as in the table.
    ring.put(request)
  }

  mutating func push() { if ring.hasUnpushed, ring.pushAndCheckNotify() { channel.notify() } }

  /// Takes every response that is there in, and asks for an event at the next one.
  mutating func takeResponses() throws(DeviceError) {
    channel.take()
    while try hasResponses() {
      while let response = ring.next() { try take(response) }
    }
    channel.rearm()
  }

  private mutating func hasResponses() throws(DeviceError) -> Bool {
    do throws(RingViolation) { return try ring.finalCheck() } catch { throw .protocolViolation("\(error)") }
  }

  private mutating func take(_ response: BlkIfResponse) throws(DeviceError) {
    guard let slot = Int(exactly: response.id), slot < inFlight.count, let request = inFlight[slot],
      request.result == nil
    else { throw .protocolViolation("the backend answered request \(response.id), which is not in flight") }
    guard response.operation == request.operation else {
      throw .protocolViolation(
        "the backend answered request \(response.id) as operation \(response.operation); it is \(request.operation)")
    }
    inFlight[slot]?.result =
      switch response.status {
      case BlkIf.Status.okay: .succeeded
      case BlkIf.Status.notSupported: .notSupported
      default: .failed
      }
    answered.append(slot)
  }

  /// The next answered request, to be handed over; nil when there is none. The slot and pages of the one given before are
  /// free from then on.
  mutating func nextCompletion() -> BlkFrontCompletion? {
    if handedOverCount > 0 {
      let slot = answered[handedOverCount - 1]
      inFlight[slot] = nil
      freeSlots.append(slot)
    }
    guard handedOverCount < answered.count else {
      answered.removeAll(keepingCapacity: true)
      handedOverCount = 0
      return nil
    }
    let slot = answered[handedOverCount]
    handedOverCount += 1
    guard let request = inFlight[slot], let result = request.result else { preconditionFailure("an answered request") }
    let isRead = request.operation == BlkIf.Operation.read && result == .succeeded
    return BlkFrontCompletion(tag: request.tag, result: result, bytes: buffer(slot, isRead ? request.byteCount : 0))
  }

  /// The tags of what is still in flight, or was not handed over.
  func unansweredTags() -> [UInt64] { inFlight.compactMap { $0?.tag } }

  private func buffer(_ slot: Int, _ byteCount: Int) -> SharedBytes {
    pages.bytes.slice(from: slot * BlkIf.maxSegmentCount * xenPageSize, count: byteCount)
  }
}
