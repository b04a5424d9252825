import BlkIf
import XenRing

/// One ring and everything its requests need, in one place so that a poll makes one access to it.
///
/// A request's way: slot, written down, validated, its segments found (an indirect request's pages are copied first), its
/// payload where the store reaches it (the frontend's own pages, mapped, or buffers into which a write is copied), the
/// store, a read's payload copied out of buffers, response, shown, crossed out. Each step is done for a whole batch, so that the
/// platform is called once for it.
struct BlkBackWork: ~Copyable {
  /// A place in the in-flight table: what it holds is somebody's from when its request is taken until its answer is shown.
  struct Place {
    var request: BlkRequest
    /// When it was taken, in nanoseconds; zero where that is not timed.
    var takenAt: UInt64 = 0
    var number: RequestNumber = 0
    /// Its payload lies in this many buffers, and must be copied; in none when it lies in mapped pages.
    var bufferCount = 0
    var pieces = SharedPieces.none
    /// Its segments are known.
    var isParsed: Bool
    var hasFailed = false
  }

  var ring: BlkBackRing
  var channel: EventChannel
  let store: any BlockStore
  let grants: any GrantTable
  let frontend: DomainID
  var rules: BlkRules
  let size: DiskSize
  let clock: @Sendable () -> Uptime
  let failure: FirstFault<String>
  let record: RecordedQueue?
  /// What was taken up with the ring and has not begun again; and whether some of it has no answer yet: nothing new is taken
  /// before.
  var replays: [(slot: Int, request: BlkIfRequest)] = []
  var isReplaying: Bool

  /// The in-flight table: as many places as the ring has slots, so it never overflows; and the places that nobody has.
  var places: [Place?]
  var inFlightCount = 0
  var freePlaces: [Int] = []
  /// That of a flush of our own, while the store has it.
  var flushPlace: Int?
  /// Answered, and not shown yet: nobody else's place before that.
  var answered: [Int] = []
  /// `maxSegmentCount` for each place, as for `buffersOf` and the pieces.
  var segments: [BlkRequest.Segment]
  let maxSegmentCount: Int
  let pieces: SharedPieceTable
  var descriptors: [BlkIfSegment]

  let buffers: BufferPages
  var buffersOf: [UInt32]
  var freeBuffers: [UInt32]
  var persistent: PersistentGrants?
  var lastNumber: RequestNumber = 0

  /// In nanoseconds, when the poll under way began.
  var now: UInt64 = 0
  /// In nanoseconds, when something was last taken or answered that is timed.
  var timedAt: UInt64 = 0
  /// Of the requests in flight.
  var timedCount = 0
  /// Turns that have taken something since one was timed. The first one is.
  var untimedTurns = Self.turnsPerMeasurement - 1
  /// When memory is next looked through for what can be given back; and when the queue last had something to do.
  var trimsAt: UInt64?
  var busyAt: UInt64 = 0
  /// Of the batch under way and of those before that found no buffers, in the guest's order; emptied, never shrunk.
  var arrived: [Int] = []
  /// Of these, those that have been counted as waiting.
  var waitingCount = 0
  var batch: [StoreRequest] = []
  var completions: StoreCompletions
  /// A barrier that has been taken: what was taken before it completes first, and nothing is taken after it until it has.
  var barrier: Int?
  var barrierIsSubmitted = false
  var barrierHasEnded = false
  /// Grant copies of the batch; the place of each stands at the same index in `copyPlaces`.
  var copies: [GrantCopy] = []
  var copyPlaces: [Int] = []
  var counts = BlkBackStatistics()
  /// The store completes what it is given before it returns: then the guest is shown the first answers of a full ring while the
  /// store is busy with the others, and neither waits for the other.
  var answersAtOnce = false

  /// Of so many turns that take requests, those of one are timed: the clock is a system call on many a Xen.
  static var turnsPerMeasurement: Int { 8 }
  /// How many requests such a store is given in one turn.
  static var turnCount: Int { 16 }
  /// Pages of the frontend's that nobody used for so long are unmapped, as Linux's backend does it.
  static var persistentLife: UInt64 { 60_000_000_000 }
  /// Buffers are given back when the queue has had nothing to do for so long.
  static var bufferLife: UInt64 { 1_000_000_000 }

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

  mutating func poll(now: Uptime, budget: Int, looks: Bool) throws(RingViolation) -> PollOutcome {
    self.now = now.nanoseconds
    rules.disk.sectorCount = size.sectorCount
    channel.take()
    store.reap(into: &completions)
    let hasCompleted = !completions.list.isEmpty
    finish()
    // Who waits for these may go on while the store is given the next ones.
    if hasCompleted { push() }
    let budget = answersAtOnce ? min(budget, Self.turnCount) : budget
    let taken = try take(budget: budget)
    proceed()
    try countWaited()
    push()
    if taken > 0 || hasCompleted { channel.noteWork() }
    if taken == budget { return .more }
    if looks { return hasWork ? .more : .idle }
    // What holds the others back completes first; the ring is not what to wait for.
    if takesMore, try ring.finalCheck() { return .more }
    let held = channel.rearm(at: now, worked: taken > 0 || hasCompleted || !takesMore)
    let outcome = giveBack()
    guard let held else { return outcome }
    if case .idleUntil(let instant) = outcome, instant < held { return outcome }
    return .idleUntil(held)
  }

  /// Whether the ring holds something to do now.
  var hasWork: Bool { takesMore && ring.hasUnconsumed }

  var statistics: BlkBackStatistics {
    var statistics = counts
    statistics.ring = ring.statistics
    return statistics
  }

  var ringDump: String { ring.dump }
}
