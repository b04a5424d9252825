import BlkIf
import Synchronization
import XenRing

/// How large a disk is now: written by the bus's thread, read by the queues'.
final class DiskSize: Sendable {
  private let value: Atomic<UInt64>

  init(sectorCount: UInt64) { value = Atomic(sectorCount) }

  /// In 512-byte sectors.
  var sectorCount: UInt64 {
    get { value.load(ordering: .relaxed) }
    set { value.store(newValue, ordering: .relaxed) }
  }
}

/// What the queues of a connection have in common.
struct BlkBackConnection {
  let rules: BlkRules
  let size: DiskSize
  let frontend: DomainID
  let grants: any GrantTable
  let clock: @Sendable () -> Uptime
  /// Told once, of the first request that the store fails.
  let failure: FirstFault<String>
  /// Zero when the frontend's pages do not stay mapped.
  let persistentPageCount: Int
  let bufferPageCount: Int
}

/// One ring and everything its requests need, in one place so that a poll makes one access to it.
///
/// A request's way: slot, written down, validated, its segments found (an indirect request's pages are copied first), its
/// payload where the store reaches it (the frontend's own pages, mapped, or buffers into which a write is copied), the
/// store, a read's payload copied out of buffers, response, shown, crossed out. Each step is done for a whole batch, so that the
/// platform is called once for it.
struct BlkBackWork: ~Copyable {
  /// A place in the in-flight table: what it holds is somebody's from when its request is taken until its answer is shown.
  private struct Place {
    var request: BlkRequest
    /// When the poll began that took it, in nanoseconds.
    var takenAt: UInt64 = 0
    var number: RequestNumber = 0
    /// Its payload lies in this many buffers, and must be copied; in none when it lies in mapped pages.
    var bufferCount = 0
    var pieces = SharedPieces.none
    /// Its segments are known.
    var isParsed: Bool
    var hasFailed = false
  }

  private var ring: BlkBackRing
  private(set) var channel: EventChannel
  let store: any BlockStore
  private let grants: any GrantTable
  private let frontend: DomainID
  private var rules: BlkRules
  private let size: DiskSize
  private let clock: @Sendable () -> Uptime
  private let failure: FirstFault<String>
  private let record: RecordedQueue?
  /// What was taken up with the ring and has not begun again; and whether some of it has no answer yet: nothing new is taken
  /// before.
  private var replays: [(slot: Int, request: BlkIfRequest)] = []
  private var isReplaying: Bool

  /// The in-flight table: as many places as the ring has slots, so it never overflows; and the places that nobody has.
  private var places: [Place?]
  private var inFlightCount = 0
  private var freePlaces: [Int] = []
  /// Answered, and not shown yet: nobody else's place before that.
  private var answered: [Int] = []
  /// `maxSegmentCount` for each place, as for `buffersOf` and the pieces.
  private var segments: [BlkRequest.Segment]
  private let maxSegmentCount: Int
  private let pieces: SharedPieceTable
  private var descriptors: [BlkIfSegment]

  private let buffers: BufferPages
  private var buffersOf: [UInt32]
  private var freeBuffers: [UInt32]
  private var persistent: PersistentGrants?
  private var lastNumber: RequestNumber = 0

  /// In nanoseconds, when the poll under way began, or last had something to answer.
  private var now: UInt64 = 0
  /// When memory is next looked through for what can be given back; and when the queue last had something to do.
  private var trimsAt: UInt64?
  private var busyAt: UInt64 = 0
  /// Of the batch under way and of those before that found no buffers, in the guest's order; emptied, never shrunk.
  private var arrived: [Int] = []
  /// Of these, those that have been counted as waiting.
  private var waitingCount = 0
  private var batch: [StoreRequest] = []
  private var completions: StoreCompletions
  /// A barrier that has been taken: what was taken before it completes first, and nothing is taken after it until it has.
  private var barrier: Int?
  private var barrierIsSubmitted = false
  private var barrierHasEnded = false
  /// Grant copies of the batch; the place of each stands at the same index in `copyPlaces`.
  private var copies: [GrantCopy] = []
  private var copyPlaces: [Int] = []
  private var counts = BlkBackStatistics()
  /// The store completes what it is given before it returns: then the guest is shown the first answers of a full ring while the
  /// store is busy with the others, and neither waits for the other.
  private var answersAtOnce = false

  /// How many requests such a store is given in one turn.
  private static var turnCount: Int { 16 }
  /// Pages of the frontend's that nobody used for so long are unmapped, as Linux's backend does it.
  private static var persistentLife: UInt64 { 60_000_000_000 }
  /// Buffers are given back when the queue has had nothing to do for so long.
  private static var bufferLife: UInt64 { 1_000_000_000 }

  /// - Parameter replays: the ring's requests in flight, in their order, with their places.
  init(
    ring: consuming BlkBackRing, channel: EventChannel, store: any BlockStore, connection: BlkBackConnection,
    record: RecordedQueue?, replays: [(slot: Int, request: BlkIfRequest)] = []
  ) throws(ResourceError) {
    let count = ring.entryCount
    self.ring = ring
    self.channel = channel
    self.store = store
    grants = connection.grants
    frontend = connection.frontend
    rules = connection.rules
    size = connection.size
    clock = connection.clock
    failure = connection.failure
    self.record = record
    self.replays = replays
    isReplaying = !replays.isEmpty
    maxSegmentCount = connection.rules.maxSegmentCount
    places = Array(repeating: nil, count: count)
    segments = Array(repeating: .none, count: count * maxSegmentCount)
    descriptors = Array(repeating: BlkIfSegment(), count: maxSegmentCount)
    let pieces = SharedPieceTable(capacity: count * maxSegmentCount)
    self.pieces = pieces
    buffers = try BufferPages(pageCount: max(connection.bufferPageCount, maxSegmentCount))
    buffersOf = Array(repeating: 0, count: count * maxSegmentCount)
    freeBuffers = (0..<UInt32(buffers.pageCount)).reversed()
    if connection.persistentPageCount > 0 {
      persistent = PersistentGrants(
        of: connection.frontend, limit: connection.persistentPageCount, grants: connection.grants)
    }
    completions = StoreCompletions(owner: ObjectIdentifier(pieces), capacity: count)
    let taken = Set(replays.map(\.slot))
    freePlaces.append(contentsOf: (0..<count).reversed().filter { !taken.contains($0) })
    answered.reserveCapacity(count)
    arrived.reserveCapacity(count)
    batch.reserveCapacity(count)
    copies.reserveCapacity(buffers.pageCount + count)
    copyPlaces.reserveCapacity(buffers.pageCount + count)
  }

  mutating func poll(now: Uptime, budget: Int) throws(RingViolation) -> PollOutcome {
    self.now = now.nanoseconds
    rules.disk.sectorCount = size.sectorCount
    channel.take()
    store.reap(into: &completions)
    let hasCompleted = !completions.list.isEmpty
    finish()
    let budget = answersAtOnce ? min(budget, Self.turnCount) : budget
    let taken = try take(budget: budget)
    proceed()
    try countWaited()
    push()
    if taken > 0 || hasCompleted { channel.noteWork() }
    if taken == budget { return .more }
    // What holds the others back completes first; the ring is not what to wait for.
    if takesMore, try ring.finalCheck() { return .more }
    let held = channel.rearm(at: now, worked: taken > 0 || hasCompleted || !takesMore)
    let outcome = giveBack()
    guard let held else { return outcome }
    if case .idleUntil(let instant) = outcome, instant < held { return outcome }
    return .idleUntil(held)
  }

  // MARK: Taking

  /// Nothing before has to complete first.
  private var takesMore: Bool { barrier == nil && arrived.isEmpty && !isReplaying }

  /// Slots to validated requests; those that do not pass are answered at once.
  private mutating func take(budget: Int) throws(RingViolation) -> Int {
    guard takesMore else { return 0 }
    try countWaited()
    let limit = min(Int(try ring.available()), budget, freePlaces.count)
    var taken = 0
    while taken < limit, barrier == nil {
      let index = ring.requestIndex
      guard let raw = ring.next() else { break }
      taken += 1
      let place = freePlaces.removeLast()
      record?.take(raw, at: index, slot: place)
      // Before each one is done, and not once for all: the answer to one that does not pass is put here, over a slot from
      // which a successor would read again.
      record?.consumed = ring.requestIndex
      admit(raw, place)
    }
    return taken
  }

  /// Everything that has been taken goes as far as it does without waiting for the store: what a store completes at once
  /// may be what others wait for, a barrier or buffers.
  private mutating func proceed() {
    while true {
      if isReplaying { replay() }
      let count = inFlightCount
      submit()
      finish()
      submitBarrierWhenAlone()
      guard inFlightCount < count, !arrived.isEmpty || isReplaying else { return }
    }
  }

  /// What a killed process left goes its way again, in its order; all of it is answered before anything new is taken.
  private mutating func replay() {
    var count = 0
    while count < replays.count, barrier == nil {
      admit(replays[count].request, replays[count].slot)
      count += 1
    }
    replays.removeFirst(count)
    isReplaying = !replays.isEmpty || inFlightCount > 0
  }

  @inline(__always) private mutating func admit(_ raw: BlkIfRequest, _ place: Int) {
    do throws(BlkRequestFault) {
      let (rules, start) = (rules, place * maxSegmentCount)
      var span = segments.mutableSpan
      let request = try BlkRequest(parsing: raw, by: rules, segments: &span, at: start)
      places[place] = Place(request: request, takenAt: now, isParsed: request.indirectPageCount == 0)
      inFlightCount += 1
      if request.kind == .writeBarrier { barrier = place } else { arrived.append(place) }
    } catch { answer(place, id: raw.id, operation: raw.answeredOperation, status: error.status) }
  }

  /// What is in the ring when a barrier ends has waited for it.
  private mutating func countWaited() throws(RingViolation) {
    guard barrierHasEnded else { return }
    barrierHasEnded = false
    counts.waitedRequests &+= UInt64(try ring.available())
  }

  /// A barrier goes to the store when all that was taken before it has completed (io/blkif.h, `BLKIF_OP_WRITE_BARRIER`).
  private mutating func submitBarrierWhenAlone() {
    guard let place = barrier, inFlightCount == 1, !barrierIsSubmitted else { return }
    barrierIsSubmitted = true
    arrived.append(place)
    submit()
    finish()
  }

  // MARK: To the store

  /// The arrived requests go to the store together, as many as there are buffers for; the others stay.
  private mutating func submit() {
    guard !arrived.isEmpty else { return }
    // Their segments first: the buffers that are lent for that are all back before payload takes any.
    var count = 0
    while count < arrived.count, describe(arrived[count]) { count += 1 }
    runCopies()
    for index in 0..<count { parse(arrived[index]) }
    var ready = 0
    while ready < count, provide(arrived[ready]) { ready += 1 }
    runCopies()
    for index in 0..<ready where places[arrived[index]] != nil {
      let place = arrived[index]
      if places[place]!.hasFailed || !isOnDisk(place) {
        answer(place, succeeded: false)
      } else {
        batch.append(storeRequest(place))
      }
    }
    arrived.removeSubrange(..<ready)
    counts.waitedRequests &+= UInt64(max(0, arrived.count - waitingCount))
    waitingCount = arrived.count
    guard !batch.isEmpty else { return }
    // Lent to the store as a local, since a span of a part of us would lock all of us.
    var requests: [StoreRequest] = []
    swap(&requests, &batch)
    store.submit(requests.span, to: &completions)
    answersAtOnce = !completions.list.isEmpty
    requests.removeAll(keepingCapacity: true)
    swap(&requests, &batch)
  }

  /// Still, after having waited: the disk may have become smaller.
  private func isOnDisk(_ place: Int) -> Bool {
    let request = places[place]!.request
    return rules.disk.contains(sector: request.sector, count: request.sectorCount)
  }

  private func storeRequest(_ place: Int) -> StoreRequest {
    let (request, payload) = (places[place]!.request, places[place]!.pieces)
    return StoreRequest(
      kind: request.kind, sector: request.sector, sectorCount: request.sectorCount, payload: payload, slot: place,
      owner: ObjectIdentifier(pieces))
  }

  /// Has the pages that describe an indirect request's segments copied into buffers, unless they are mapped.
  ///
  /// - Returns: false when there are no buffers.
  private mutating func describe(_ place: Int) -> Bool {
    guard !places[place]!.isParsed, !places[place]!.hasFailed else { return true }
    let request = places[place]!.request
    if map(place, request.indirectPageCount, { GrantReference(rawValue: request.indirectReferences[$0]) }) {
      return true
    }
    if places[place]!.hasFailed { return true }
    guard takeBuffers(request.indirectPageCount, for: place) else { return false }
    for page in 0..<request.indirectPageCount {
      let count = min(request.segmentCount - page * BlkIf.segmentsPerIndirectPage, BlkIf.segmentsPerIndirectPage)
      addCopy(
        .fromGrant, place, buffer: page, offset: 0, count: count * MemoryLayout<BlkIfSegment>.stride,
        GrantReference(rawValue: request.indirectReferences[page]))
    }
    return true
  }

  /// An indirect request's segments pass the gate, from a copy of our own. One that does not pass is answered.
  private mutating func parse(_ place: Int) {
    guard !places[place]!.isParsed else { return }
    if places[place]!.hasFailed { return giveBackBuffers(of: place) }
    var request = places[place]!.request
    let isCopied = places[place]!.bufferCount > 0
    for page in 0..<request.indirectPageCount {
      let first = page * BlkIf.segmentsPerIndirectPage
      let count = min(request.segmentCount - first, BlkIf.segmentsPerIndirectPage) * MemoryLayout<BlkIfSegment>.stride
      let source: SharedBytes
      if isCopied {
        source = buffer(place, page, offset: 0, count: count)
      } else {
        let reference = GrantReference(rawValue: request.indirectReferences[page])
        guard let mapped = persistent?.bytes(of: reference, for: places[place]!.number, now: now) else {
          preconditionFailure("what was mapped for a request stays as long as it is in flight")
        }
        source = mapped.slice(from: 0, count: count)
      }
      unsafe descriptors.withUnsafeMutableBytes { bytes in
        // Safe: the descriptors from `first` on have room for as many bytes.
        let start = unsafe bytes.baseAddress! + first * MemoryLayout<BlkIfSegment>.stride
        unsafe SharedBytes(baseAddress: start, count: count).copy(from: source)
      }
    }
    giveBackBuffers(of: place)
    do throws(BlkRequestFault) {
      let (rules, start, copied) = (rules, place * maxSegmentCount, descriptors)
      var span = segments.mutableSpan
      try request.parse(
        descriptors: copied.span.extracting(0..<request.segmentCount), by: rules, segments: &span, at: start)
      places[place]!.request = request
      places[place]!.isParsed = true
    } catch { answer(place, id: request.id, operation: request.operation, status: error.status) }
  }

  /// Puts a request's payload where the store reaches it: the frontend's pages, mapped, or buffers, into which what is to be
  /// written is copied.
  ///
  /// - Returns: false when there are no buffers.
  private mutating func provide(_ place: Int) -> Bool {
    guard let request = places[place]?.request, request.segmentCount > 0, !places[place]!.hasFailed else { return true }
    let start = place * maxSegmentCount
    if persistent != nil, mapPayload(place, request) { return true }
    if places[place]!.hasFailed { return true }
    guard takeBuffers(request.segmentCount, for: place) else { return false }
    var payload: SharedPieces?
    for index in 0..<request.segmentCount {
      let segment = segments[start + index]
      payload = pieces.append(
        buffer(place, index, offset: Int(segment.offset), count: Int(segment.byteCount)), to: payload, at: start)
    }
    places[place]!.pieces = payload!
    if request.kind != .read { addCopies(.fromGrant, place) }
    return true
  }

  /// - Returns: false when the payload has to be copied; also for a request that has failed.
  private mutating func mapPayload(_ place: Int, _ request: BlkRequest) -> Bool {
    let start = place * maxSegmentCount
    lastNumber += 1
    places[place]!.number = lastNumber
    // Twice: when one is missing, all that are missing are mapped and the payload is laid out anew.
    for _ in 0..<2 {
      var payload: SharedPieces?
      for index in 0..<request.segmentCount {
        let segment = segments[start + index]
        guard let page = persistent!.bytes(of: segment.reference, for: lastNumber, now: now) else {
          payload = nil
          break
        }
        payload = pieces.append(
          page.slice(from: Int(segment.offset), count: Int(segment.byteCount)), to: payload, at: start)
      }
      if let payload {
        places[place]!.pieces = payload
        return true
      }
      let segments = segments
      guard map(place, request.segmentCount, { segments[start + $0].reference }) else { return false }
    }
    preconditionFailure("what has just been mapped is there")
  }

  /// Has these pages of the frontend's mapped for the request at `place`, if that can be.
  ///
  /// - Returns: false when it cannot, and they have to be copied. A request whose pages are refused has failed.
  private mutating func map(_ place: Int, _ count: Int, _ reference: (Int) -> GrantReference) -> Bool {
    guard persistent != nil else { return false }
    if places[place]!.number == 0 {
      lastNumber += 1
      places[place]!.number = lastNumber
    }
    for attempt in 0..<2 {
      do throws(PersistentGrants.Shortage) {
        try persistent!.map(count, for: places[place]!.number, now: now, reference: reference)
        trimsAt = trimsAt ?? now + Self.persistentLife
        return true
      } catch {
        switch error {
        case .room(let pageCount) where attempt == 0:
          let oldest = oldestNumber
          persistent!.makeRoom(for: pageCount, inUse: oldest)
        case .room, .exhausted: return false
        case .refused:
          places[place]!.hasFailed = true
          return false
        }
      }
    }
    return false
  }

  /// Nothing in flight is older: what was last used before it is used by nobody.
  private var oldestNumber: RequestNumber {
    places.reduce(lastNumber + 1) { oldest, place in
      guard let number = place?.number, number > 0 else { return oldest }
      return min(oldest, number)
    }
  }

  // MARK: Back from the store

  /// What the store has completed, reads with their payload copied out, is answered.
  private mutating func finish() {
    guard !completions.list.isEmpty else { return }
    now = clock().nanoseconds
    for index in completions.list.indices {
      let completion = completions.list[index]
      guard let place = places[completion.slot] else { preconditionFailure("a store completes a request once") }
      if completion.succeeded, place.request.kind == .read, place.bufferCount > 0 {
        addCopies(.toGrant, completion.slot)
      }
    }
    runCopies()
    if let reason = completions.failure.take() { failure.tell(reason) }
    for index in completions.list.indices {
      let completion = completions.list[index]
      answer(completion.slot, succeeded: completion.succeeded && !places[completion.slot]!.hasFailed)
    }
    completions.list.removeAll(keepingCapacity: true)
  }

  private mutating func answer(_ place: Int, succeeded: Bool) {
    let request = places[place]!.request
    if succeeded { count(request) }
    answer(
      place, id: request.id, operation: request.operation,
      status: succeeded ? BlkIf.Status.okay : BlkIf.Status.error)
  }

  /// Puts the response of the request at `place`, which nobody else gets before the response is shown.
  @inline(__always) private mutating func answer(_ place: Int, id: UInt64, operation: UInt8, status: Int16) {
    if let former = places[place] {
      counts.latency.add(nanoseconds: now &- former.takenAt)
      giveBackBuffers(of: place)
      places[place] = nil
      inFlightCount -= 1
    }
    if status != BlkIf.Status.okay { counts.failedRequests &+= 1 }
    if place == barrier { (barrier, barrierIsSubmitted, barrierHasEnded) = (nil, false, true) }
    let index = ring.responseIndex
    ring.put(BlkIfResponse(id: id, operation: operation, status: status))
    record?.answer(slot: place, at: index)
    answered.append(place)
  }

  private mutating func push() {
    guard ring.hasUnpushed else { return }
    let notify = ring.pushAndCheckNotify()
    record?.pushed()
    if notify { channel.notify() }
    if let record {
      for index in answered.indices { record.clear(slot: answered[index]) }
      record.cleared()
    }
    freePlaces.append(contentsOf: answered)
    answered.removeAll(keepingCapacity: true)
    busyAt = now
    if trimsAt == nil { trimsAt = now + Self.bufferLife }
  }

  private mutating func count(_ request: BlkRequest) {
    switch request.kind {
    case .read:
      counts.readRequests &+= 1
      counts.sectorsRead &+= request.sectorCount
    case .write, .writeBarrier:
      counts.writeRequests &+= 1
      if request.kind == .writeBarrier { counts.barrierRequests &+= 1 }
      counts.sectorsWritten &+= request.sectorCount
    case .flush: counts.flushRequests &+= 1
    case .discard, .secureDiscard: counts.discardRequests &+= 1
    }
  }

  // MARK: Buffers and copies

  private func buffer(_ place: Int, _ index: Int, offset: Int, count: Int) -> SharedBytes {
    buffers.bytes(page: Int(buffersOf[place * maxSegmentCount + index]), offset: offset, count: count)
  }

  private mutating func takeBuffers(_ count: Int, for place: Int) -> Bool {
    guard freeBuffers.count >= count else { return false }
    for index in 0..<count { buffersOf[place * maxSegmentCount + index] = freeBuffers.removeLast() }
    places[place]!.bufferCount = count
    return true
  }

  private mutating func giveBackBuffers(of place: Int) {
    let count = places[place]!.bufferCount
    // Backwards, so that they are neighbours again when they are next taken.
    for index in (0..<count).reversed() { freeBuffers.append(buffersOf[place * maxSegmentCount + index]) }
    places[place]!.bufferCount = 0
  }

  private mutating func addCopies(_ direction: GrantCopy.Direction, _ place: Int) {
    for index in 0..<places[place]!.request.segmentCount {
      let segment = segments[place * maxSegmentCount + index]
      addCopy(
        direction, place, buffer: index, offset: Int(segment.offset), count: Int(segment.byteCount), segment.reference)
    }
  }

  private mutating func addCopy(
    _ direction: GrantCopy.Direction, _ place: Int, buffer index: Int, offset: Int, count: Int,
    _ reference: GrantReference
  ) {
    copies.append(
      GrantCopy(
        direction, local: buffer(place, index, offset: offset, count: count), reference: reference, of: frontend,
        offset: UInt16(offset)))
    copyPlaces.append(place)
  }

  private mutating func runCopies() {
    guard !copies.isEmpty else { return }
    let grants = grants
    var span = copies.mutableSpan
    grants.copy(&span)
    for index in copies.indices where copies[index].status != .okay { places[copyPlaces[index]]!.hasFailed = true }
    copies.removeAll(keepingCapacity: true)
    copyPlaces.removeAll(keepingCapacity: true)
  }

  /// Gives back memory that nobody has used for a while, and says when to look again.
  private mutating func giveBack() -> PollOutcome {
    guard let instant = trimsAt else { return .idle }
    if now < instant { return .idleUntil(Uptime(nanoseconds: instant)) }
    trimsAt = nil
    let oldest = oldestNumber
    persistent?.trim(before: now - min(now, Self.persistentLife) + 1, inUse: oldest)
    if inFlightCount == 0, now - min(now, busyAt) >= Self.bufferLife {
      buffers.squeeze()
    } else {
      trimsAt = now + Self.bufferLife
    }
    if let persistent, persistent.pageCount > 0 { trimsAt = trimsAt ?? now + Self.persistentLife / 4 }
    return trimsAt.map { .idleUntil(Uptime(nanoseconds: $0)) } ?? .idle
  }

  // MARK: The end

  /// Answers all that was taken, waiting for what the store still has, and takes nothing more; then has the store put what it
  /// may have in a memory of its own on the medium, waiting ten seconds for that.
  ///
  /// - Parameter deadline: in nanoseconds of the machine's clock: how long to wait for the store.
  /// - Returns: where the ring goes on.
  /// - Throws: when the guest's requests have not all got an answer, or the writes among them may be lost.
  mutating func finishAll(until deadline: UInt64) throws(DeviceError) -> RingIndex {
    while true {
      store.reap(into: &completions)
      finish()
      proceed()
      push()
      if inFlightCount == 0, replays.isEmpty { break }
      guard Uptime.now.nanoseconds < deadline, let descriptor = store.completionDescriptor else {
        throw .resource("the store does not complete what it was given, so some of the guest's requests have no answer")
      }
      Wakeup.wait(for: descriptor, timeout: 10)
    }
    if !rules.disk.isReadOnly { try flush() }
    return ring.index
  }

  /// A flush of our own, to be answered to nobody. Only when the store has nothing else.
  private mutating func flush() throws(DeviceError) {
    let deadline = Uptime.now.nanoseconds + 10_000_000_000
    // Taken until it is completed: the store may not be given up with it before.
    let place = freePlaces.removeLast()
    let request = StoreRequest(
      kind: .flush, sector: 0, sectorCount: 0, payload: .none, slot: place, owner: ObjectIdentifier(pieces))
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
    freePlaces.append(place)
    guard succeeded else { throw .resource(completions.failure.take() ?? "the store has failed a flush") }
  }

  /// The payload's memory belongs to the store until it has completed what it has: waits for that, and answers nobody.
  ///
  /// - Parameter deadline: in nanoseconds of the machine's clock.
  /// - Returns: false when the store has not done so by then; the memory is then its own for good.
  mutating func drain(until deadline: UInt64) -> Bool {
    // What never went to the store is nothing to wait for.
    for place in arrived { places[place] = nil }
    if let barrier, !barrierIsSubmitted { places[barrier] = nil }
    while places.contains(where: { $0 != nil }) {
      store.reap(into: &completions)
      for index in completions.list.indices { places[completions.list[index].slot] = nil }
      completions.list.removeAll(keepingCapacity: true)
      guard places.contains(where: { $0 != nil }) else { break }
      guard Uptime.now.nanoseconds < deadline, let descriptor = store.completionDescriptor else {
        // Memory that somebody may still write is never given back.
        _ = unsafe (Unmanaged.passRetained(buffers), Unmanaged.passRetained(pieces))
        persistent?.abandon()
        return false
      }
      Wakeup.wait(for: descriptor, timeout: 10)
    }
    return true
  }

  var statistics: BlkBackStatistics {
    var statistics = counts
    statistics.ring = ring.statistics
    return statistics
  }

  var ringDump: String { ring.dump }
}
