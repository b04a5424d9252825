import BlkIf
import XenRing

/// One ring and everything its requests need, in one place so that a poll makes one access to it.
///
/// A request's way: slot, validated request, its payload copied in (writes), the store, its payload copied out (reads),
/// response. Each step is done for a whole batch, so that the platform is called once for it.
struct BlkBackWork: ~Copyable {
  private var ring: BlkBackRing
  private(set) var channel: EventChannel
  let store: any BlockStore
  private let grants: any GrantTable
  private let frontend: DomainID
  private let rules: BlkRules
  /// Each slot of the in-flight table has a buffer as large as a request can be.
  private let buffers: PrivatePages
  /// The in-flight table: as many slots as the ring, so it never overflows.
  private var requests: [BlkRequest?]
  /// The segments of each slot, and its payload's pieces.
  private var segments: [BlkRequest.Segment]
  private let pieces: SharedPieceTable
  /// When the poll began that took the request of each slot, in nanoseconds; and when the poll under way began, or last
  /// had something to answer.
  private var takenAt: [UInt64]
  private var now: UInt64 = 0
  private let clock: @Sendable () -> Uptime
  private var freeSlots: [Int] = []
  /// Of the batch under way, in the guest's order; emptied, never shrunk.
  private var arrived: [Int] = []
  private var batch: [StoreRequest] = []
  private var completions: StoreCompletions
  /// A barrier that has been taken: what was taken before it completes first, and nothing is taken after it until it has.
  private var barrier: Int?
  private var barrierIsSubmitted = false
  private var barrierHasEnded = false
  /// Grant copies of the batch; the slot of each stands at the same place in `copySlots`.
  private var copies: [GrantCopy] = []
  private var copySlots: [Int] = []
  private var copyFailed: [Bool]
  private var counts = BlkBackStatistics()
  /// Told once, of the first request that the store fails.
  private let failure: FirstFault<String>

  private static var bufferByteCount: Int { BlkIf.maxSegmentCount * xenPageSize }

  init(
    ring: consuming BlkBackRing, channel: EventChannel, grants: any GrantTable,
    frontend: DomainID, store: any BlockStore, geometry: BlockGeometry, clock: @escaping @Sendable () -> Uptime,
    failure: FirstFault<String>
  ) {
    let count = ring.entryCount
    self.ring = ring
    self.channel = channel
    self.grants = grants
    self.frontend = frontend
    self.store = store
    rules = BlkRules(for: geometry)
    self.clock = clock
    self.failure = failure
    let buffers = PrivatePages(pageCount: count * BlkIf.maxSegmentCount)
    self.buffers = buffers
    requests = Array(repeating: nil, count: count)
    segments = Array(repeating: .none, count: count * BlkIf.maxSegmentCount)
    pieces = SharedPieceTable(capacity: count)
    takenAt = Array(repeating: 0, count: count)
    copyFailed = Array(repeating: false, count: count)
    completions = StoreCompletions(owner: ObjectIdentifier(buffers), capacity: count)
    freeSlots.append(contentsOf: (0..<count).reversed())
    arrived.reserveCapacity(count)
    batch.reserveCapacity(count)
    copies.reserveCapacity(count * BlkIf.maxSegmentCount)
    copySlots.reserveCapacity(count * BlkIf.maxSegmentCount)
  }

  mutating func poll(now: Uptime, budget: Int) throws(RingViolation) -> PollOutcome {
    self.now = now.nanoseconds
    channel.take()
    store.reap(into: &completions)
    finish()
    let taken = try take(budget: budget)
    submit()
    finish()
    submitBarrierWhenAlone()
    try countWaited()
    push()
    if taken == budget { return .more }
    // While a barrier is in flight the store's completion is what to wait for, not the ring.
    if barrier == nil, try ring.finalCheck() { return .more }
    channel.rearm()
    return .idle
  }

  /// Slots to validated requests; those that do not pass are answered at once.
  private mutating func take(budget: Int) throws(RingViolation) -> Int {
    guard barrier == nil else { return 0 }
    try countWaited()
    let limit = min(Int(try ring.available()), budget)
    var taken = 0
    while taken < limit, barrier == nil, let raw = ring.next() {
      taken += 1
      do throws(BlkRequestFault) {
        let slot = freeSlots[freeSlots.count - 1]
        let rules = rules
        var span = segments.mutableSpan
        let request = try BlkRequest(parsing: raw, by: rules, segments: &span, at: slot * BlkIf.maxSegmentCount)
        freeSlots.removeLast()
        requests[slot] = request
        takenAt[slot] = now
        if request.kind == .writeBarrier { barrier = slot } else { arrived.append(slot) }
      } catch {
        if raw.operation == BlkIf.Operation.discard { counts.discardRequests &+= 1 }
        answer(id: raw.id, operation: raw.answeredOperation, status: error.status)
      }
    }
    return taken
  }

  /// What is in the ring when a barrier ends has waited for it.
  private mutating func countWaited() throws(RingViolation) {
    guard barrierHasEnded else { return }
    barrierHasEnded = false
    counts.waitedRequests &+= UInt64(try ring.available())
  }

  /// A barrier goes to the store when all that was taken before it has completed (io/blkif.h, `BLKIF_OP_WRITE_BARRIER`).
  private mutating func submitBarrierWhenAlone() {
    guard let slot = barrier, freeSlots.count == requests.count - 1, !barrierIsSubmitted else { return }
    barrierIsSubmitted = true
    arrived.append(slot)
    submit()
    finish()
  }

  /// The arrived requests, writes with their payload copied in, go to the store together.
  private mutating func submit() {
    guard !arrived.isEmpty else { return }
    for index in arrived.indices where requests[arrived[index]]!.kind != .read { addCopies(.fromGrant, arrived[index]) }
    runCopies()
    for index in arrived.indices {
      let slot = arrived[index]
      if copyFailed[slot] { answer(slot, succeeded: false) } else { batch.append(storeRequest(slot)) }
    }
    arrived.removeAll(keepingCapacity: true)
    // Lent to the store as a local, since a span of a part of us would lock all of us.
    var requests: [StoreRequest] = []
    swap(&requests, &batch)
    store.submit(requests.span, to: &completions)
    requests.removeAll(keepingCapacity: true)
    swap(&requests, &batch)
  }

  /// What the store has completed, reads with their payload copied out, is answered.
  private mutating func finish() {
    guard !completions.list.isEmpty else { return }
    now = clock().nanoseconds
    for index in completions.list.indices {
      let completion = completions.list[index]
      guard let request = requests[completion.slot] else { preconditionFailure("a store completes a request once") }
      if completion.succeeded, request.kind == .read { addCopies(.toGrant, completion.slot) }
    }
    runCopies()
    if let reason = completions.failure.take() { failure.tell(reason) }
    for index in completions.list.indices {
      let completion = completions.list[index]
      answer(completion.slot, succeeded: completion.succeeded && !copyFailed[completion.slot])
    }
    completions.list.removeAll(keepingCapacity: true)
  }

  private mutating func push() {
    if ring.hasUnpushed, ring.pushAndCheckNotify() { channel.notify() }
  }

  // MARK: One request

  private func buffer(_ slot: Int) -> SharedBytes {
    buffers.bytes.slice(from: slot * Self.bufferByteCount, count: Self.bufferByteCount)
  }

  private func storeRequest(_ slot: Int) -> StoreRequest {
    let request = requests[slot]!
    return StoreRequest(
      kind: request.kind, sector: request.sector, sectorCount: request.sectorCount,
      payload: pieces.append(buffer(slot).slice(from: 0, count: request.byteCount), to: nil, at: slot), slot: slot,
      owner: ObjectIdentifier(buffers))
  }

  private mutating func addCopies(_ direction: GrantCopy.Direction, _ slot: Int) {
    let request = requests[slot]!
    let buffer = buffer(slot)
    var position = 0
    for index in 0..<request.segmentCount {
      let segment = segments[slot * BlkIf.maxSegmentCount + index]
      copies.append(
        GrantCopy(
          direction, local: buffer.slice(from: position, count: Int(segment.byteCount)), reference: segment.reference,
          of: frontend, offset: segment.offset))
      copySlots.append(slot)
      position += Int(segment.byteCount)
    }
  }

  private mutating func runCopies() {
    guard !copies.isEmpty else { return }
    let grants = grants
    var span = copies.mutableSpan
    grants.copy(&span)
    for index in copies.indices where copies[index].status != .okay { copyFailed[copySlots[index]] = true }
    copies.removeAll(keepingCapacity: true)
    copySlots.removeAll(keepingCapacity: true)
  }

  private mutating func answer(_ slot: Int, succeeded: Bool) {
    let request = requests[slot]!
    if succeeded { count(request) }
    counts.latency.add(nanoseconds: now &- takenAt[slot])
    requests[slot] = nil
    copyFailed[slot] = false
    freeSlots.append(slot)
    if slot == barrier { (barrier, barrierIsSubmitted, barrierHasEnded) = (nil, false, true) }
    answer(
      id: request.id, operation: request.operation, status: succeeded ? BlkIf.Status.okay : BlkIf.Status.error)
  }

  @inline(__always) private mutating func answer(id: UInt64, operation: UInt8, status: Int16) {
    if status != BlkIf.Status.okay { counts.failedRequests &+= 1 }
    ring.put(BlkIfResponse(id: id, operation: operation, status: status))
  }

  private mutating func count(_ request: BlkRequest) {
    let sectors = UInt64(request.byteCount / BlkIf.sectorByteCount)
    switch request.kind {
    case .read:
      counts.readRequests &+= 1
      counts.sectorsRead &+= sectors
    case .write, .writeBarrier:
      counts.writeRequests &+= 1
      if request.kind == .writeBarrier { counts.barrierRequests &+= 1 }
      counts.sectorsWritten &+= sectors
    case .flush: counts.flushRequests &+= 1
    case .discard, .secureDiscard: counts.discardRequests &+= 1
    }
  }

  // MARK: The end

  /// Answers all that was taken, waiting a second for what the store still has, and takes nothing more; then has the store
  /// put what it may have in a memory of its own on the medium, waiting ten seconds for that.
  ///
  /// - Returns: where the ring goes on.
  /// - Throws: when the guest's requests have not all got an answer, or the writes among them may be lost.
  mutating func finishAll() throws(DeviceError) -> RingIndex {
    let deadline = Uptime.now.nanoseconds + 1_000_000_000
    while freeSlots.count < requests.count {
      store.reap(into: &completions)
      finish()
      submitBarrierWhenAlone()
      guard Uptime.now.nanoseconds < deadline, let descriptor = store.completionDescriptor else { break }
      if freeSlots.count < requests.count { Wakeup.wait(for: descriptor, timeout: 10) }
    }
    push()
    guard freeSlots.count == requests.count else {
      throw .resource("the store does not complete what it was given, so some of the guest's requests have no answer")
    }
    if !rules.disk.isReadOnly { try flush() }
    return ring.index
  }

  /// A flush of our own, to be answered to nobody. Only when the store has nothing else.
  private mutating func flush() throws(DeviceError) {
    let deadline = Uptime.now.nanoseconds + 10_000_000_000
    // Taken until it is completed: the store may not be given up with it before.
    let slot = freeSlots.removeLast()
    let request = StoreRequest(
      kind: .flush, sector: 0, sectorCount: 0, payload: .none, slot: slot,
      owner: ObjectIdentifier(buffers))
    store.submit([request].span, to: &completions)
    while completions.list.isEmpty {
      guard Uptime.now.nanoseconds < deadline, let descriptor = store.completionDescriptor else {
        throw .resource("the store does not complete a flush, so some of the guest's writes may be lost")
      }
      Wakeup.wait(for: descriptor, timeout: 10)
      store.reap(into: &completions)
    }
    let succeeded = completions.list[0].succeeded
    completions.list.removeAll(keepingCapacity: true)
    freeSlots.append(slot)
    guard succeeded else { throw .resource(completions.failure.take() ?? "the store has failed a flush") }
  }

  /// The buffers belong to the store until it has completed what it has: waits for that, and answers nobody.
  ///
  /// - Returns: false when the store has not done so after a second; the buffers are then its own for good.
  mutating func drain() -> Bool {
    let deadline = Uptime.now.nanoseconds + 1_000_000_000
    // A barrier that never went to the store is nothing to wait for.
    let held = barrier != nil && !barrierIsSubmitted ? 1 : 0
    while freeSlots.count + held < requests.count {
      store.reap(into: &completions)
      for index in completions.list.indices {
        requests[completions.list[index].slot] = nil
        freeSlots.append(completions.list[index].slot)
      }
      completions.list.removeAll(keepingCapacity: true)
      guard Uptime.now.nanoseconds < deadline, let descriptor = store.completionDescriptor else { break }
      if freeSlots.count + held < requests.count { Wakeup.wait(for: descriptor, timeout: 10) }
    }
    if freeSlots.count + held == requests.count { return true }
    // Memory that somebody may still write is never given back.
    _ = unsafe (Unmanaged.passRetained(buffers), Unmanaged.passRetained(pieces))
    return false
  }

  var statistics: BlkBackStatistics {
    var statistics = counts
    statistics.ring = ring.statistics
    return statistics
  }

  var ringDump: String { ring.dump }
}
