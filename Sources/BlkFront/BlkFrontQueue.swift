import BlkIf
import XenRing

/// Why a request was not taken.
@nonexhaustive public enum BlkFrontError: Error, Hashable, Sendable, CustomStringConvertible {
  /// No backend is connected, or not any more.
  case notConnected
  /// As many requests as the ring has slots are in flight: poll, then try again.
  case busy
  case outsideDisk(sector: UInt64, count: Int)
  /// Not a positive multiple of the disk's sector, or more than ``BlkFrontDevice/maxByteCount``.
  case length(byteCount: Int)
  case readOnlyDisk
  /// The backend has not offered it.
  case notSupported(String)

  public var description: String {
    switch self {
    case .notConnected: "no backend is connected"
    case .busy: "every slot of the ring is in use"
    case .outsideDisk(let sector, let count): "\(count) sectors from \(sector) on are not on the disk"
    case .length(let byteCount): "\(byteCount) bytes are no length of a request to this disk"
    case .readOnlyDisk: "the disk is read-only"
    case .notSupported(let what): "the backend does not offer \(what)"
    }
  }
}

/// How a request ended.
public struct BlkFrontCompletion {
  public enum Result: Hashable, Sendable {
    case succeeded
    /// The backend answered with an error.
    case failed
    /// The backend does not know the operation.
    case notSupported
    /// The backend went away first; whether the request was carried out is not known.
    case disconnected
  }

  /// As it was given with the request.
  public let tag: UInt64
  public let result: Result
  /// What a successful read brought; empty for everything else. Valid during the call that hands it over; the backend
  /// can still write it, so copy it out once and look at the copy.
  public let bytes: SharedBytes
}

/// One ring, its page pool and its in-flight table.
///
/// A request's number is its place in the table, and names eleven pages that were shared when the device connected: a
/// request needs no grant call.
struct BlkFrontQueue: ~Copyable {
  private struct InFlight {
    var tag: UInt64
    var operation: UInt8
    var byteCount: Int
  }

  private var ring: FrontRing<BlkIfRequest, BlkIfResponse>
  private(set) var channel: EventChannel
  private let pages: GrantedPages
  private var inFlight: [InFlight?]
  private var freeSlots: [Int] = []

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

  mutating func push() { if ring.pushAndCheckNotify() { channel.notify() } }

  /// Hands every response that is there to `body`, and asks for an event at the next one.
  mutating func poll(_ body: (BlkFrontCompletion) -> Void) throws(DeviceError) -> Int {
    channel.take()
    var completed = 0
    while try hasResponses() {
      while let response = ring.next() {
        try take(response, body)
        completed += 1
      }
    }
    channel.rearm()
    return completed
  }

  private mutating func hasResponses() throws(DeviceError) -> Bool {
    do throws(RingViolation) { return try ring.finalCheck() } catch { throw .protocolViolation("\(error)") }
  }

  private mutating func take(_ response: BlkIfResponse, _ body: (BlkFrontCompletion) -> Void) throws(DeviceError) {
    guard let slot = Int(exactly: response.id), slot < inFlight.count, let request = inFlight[slot] else {
      throw .protocolViolation("the backend answered request \(response.id), which is not in flight")
    }
    guard response.operation == request.operation else {
      throw .protocolViolation(
        "the backend answered request \(response.id) as operation \(response.operation); it is \(request.operation)")
    }
    let result: BlkFrontCompletion.Result =
      switch response.status {
      case BlkIf.Status.okay: .succeeded
      case BlkIf.Status.notSupported: .notSupported
      default: .failed
      }
    let isRead = request.operation == BlkIf.Operation.read && result == .succeeded
    body(BlkFrontCompletion(tag: request.tag, result: result, bytes: buffer(slot, isRead ? request.byteCount : 0)))
    inFlight[slot] = nil
    freeSlots.append(slot)
  }

  /// The tags of what is still in flight.
  func unansweredTags() -> [UInt64] { inFlight.compactMap { $0?.tag } }

  private func buffer(_ slot: Int, _ byteCount: Int) -> SharedBytes {
    pages.bytes.slice(from: slot * BlkIf.maxSegmentCount * xenPageSize, count: byteCount)
  }
}
