import BlkIf
import XenRing

/// A connection's queues, in one place, so that a call of the device's makes one access to all of it.
struct BlkFrontQueues: ~Copyable {
  private var queues: OwnedArray<BlkFrontQueue>
  private var events: BlkFrontEvents
  /// Where a request goes if it can. It changes between batches only, so that a batch wakes one queue of the backend's.
  private var current = 0
  /// Whose completions are being handed over.
  private var handingOver = 0
  /// How many requests the user has made.
  private(set) var lastSequence: UInt64
  /// What was in flight with another backend comes first.
  var isHeldBack = false
  /// What requests are held to: the device's own, kept here so that a request makes one access to the device.
  var geometry = BlockGeometry(sectorCount: 0)
  private var maxByteCount = 0

  /// Of each queue.
  let poolPageCount: Int

  init(
    _ queues: consuming OwnedArray<BlkFrontQueue>, _ events: BlkFrontEvents, poolPageCount: Int, lastSequence: UInt64
  ) {
    precondition(queues.count > 0 && queues.count == events.ports.count, "each queue has a port")
    self.queues = queues
    self.events = events
    self.poolPageCount = poolPageCount
    self.lastSequence = lastSequence
  }

  /// The backend has connected: how the disk is, and how requests are to be from now on.
  mutating func begin(_ geometry: BlockGeometry, _ limits: BlkFrontLimits) {
    self.geometry = geometry
    maxByteCount = limits.maxSegmentCount * xenPageSize
    for index in 0..<queues.count { queues[index].begin(limits) }
  }

  var descriptor: CInt { events.descriptor }

  var inFlightCount: Int {
    var count = 0
    for index in 0..<queues.count { count += queues[index].inFlightCount }
    return count
  }

  var statistics: RingStatistics {
    var sum = RingStatistics()
    for index in 0..<queues.count { sum += queues[index].statistics }
    return sum
  }

  // MARK: Requests

  @inline(__always) mutating func put(
    _ request: BlkFrontRequest, payload: Span<UInt8>? = nil
  ) throws(BlkFrontError) {
    var request = request
    let queue = try admit(&request)
    try queues[queue].put(request, payload: payload)
    lastSequence = request.sequence
  }

  @inline(__always) mutating func put(
    _ request: BlkFrontRequest, fill: (SharedPieces) -> Void
  ) throws(BlkFrontError) {
    var request = request
    let queue = try admit(&request)
    try queues[queue].put(request, fill: fill)
    lastSequence = request.sequence
  }

  /// Checks a request against the disk, but for a flush and a discard, which have no payload, and numbers it.
  ///
  /// - Returns: the queue for it.
  @inline(__always) private mutating func admit(_ request: inout BlkFrontRequest) throws(BlkFrontError) -> Int {
    if request.operation <= BlkIf.Operation.writeBarrier {
      if request.operation != BlkIf.Operation.read, geometry.isReadOnly { throw .readOnlyDisk }
      guard request.byteCount <= maxByteCount else { throw .length(byteCount: request.byteCount) }
      try geometry.check(sector: request.sector, byteCount: request.byteCount)
    }
    guard !isHeldBack else { throw .busy }
    request.sequence = lastSequence &+ 1
    return try queues.count == 1 ? 0 : choose(request)
  }

  /// Puts a part of what was in flight with another backend.
  ///
  /// - Parameter payload: of a write.
  mutating func putAgain(_ part: BlkFrontRequest, _ payload: SharedBytes) throws(BlkFrontError) {
    let queue = try queues.count == 1 ? 0 : choose(part)
    if part.isWrite, part.byteCount > 0 {
      try queues[queue].put(part) { $0.copy(from: payload) }
    } else {
      try queues[queue].put(part)
    }
  }

  /// The queue for a request, of several. To a backend a barrier is one on its own queue alone (io/blkif.h says nothing of
  /// several): it goes where everything else in flight is, and while it is in flight everything goes there.
  private mutating func choose(_ request: BlkFrontRequest) throws(BlkFrontError) -> Int {
    var busy: Int?
    var busyCount = 0
    for index in 0..<queues.count {
      if queues[index].hasBarrier { return index }
      guard queues[index].inFlightCount > 0 else { continue }
      busy = index
      busyCount += 1
    }
    if request.operation == BlkIf.Operation.writeBarrier {
      guard busyCount <= 1 else { throw .busy }
      return busy ?? current
    }
    for step in 0..<queues.count {
      let index = (current + step) % queues.count
      guard queues[index].hasRoom(for: request.byteCount) else { continue }
      current = index
      return index
    }
    throw .busy
  }

  @inline(__always) mutating func push() {
    for index in 0..<queues.count where queues[index].push() { events.notify(index) }
    if queues.count > 1 { takeNextBatchElsewhere() }
  }

  /// The next batch goes where least is in flight.
  private mutating func takeNextBatchElsewhere() {
    for index in 0..<queues.count where queues[index].inFlightCount < queues[current].inFlightCount { current = index }
  }

  // MARK: Responses

  /// Takes what has come in.
  ///
  /// - Parameter looks: whether the caller goes on looking, and wants no event.
  @inline(__always) mutating func takeResponses(looks: Bool) throws(DeviceError) {
    events.take()
    for index in 0..<queues.count { try queues[index].takeResponses(looks: looks) }
    if !looks { events.rearm() }
    handingOver = 0
  }

  /// Whether there is something to take in.
  var hasWork: Bool {
    for index in 0..<queues.count where queues[index].hasWork { return true }
    return false
  }

  /// As ``BlkFrontQueue/nextCompletion()``, queue after queue.
  @inline(__always) mutating func nextCompletion() -> BlkFrontCompletion? {
    while handingOver < queues.count {
      if let completion = queues[handingOver].nextCompletion() { return completion }
      handingOver += 1
    }
    return nil
  }

  func forEachUnanswered(_ body: (BlkFrontRequest, SharedPieces) -> Void) {
    for index in 0..<queues.count { queues[index].forEachUnanswered(body) }
  }
}
