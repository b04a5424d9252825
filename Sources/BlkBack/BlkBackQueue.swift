import BlkIf
import XenRing

/// What a block backend has done, in the terms of Linux's /sys/bus/xen-backend.
public struct BlkBackStatistics: Hashable, Sendable {
  /// Requests by kind: read, write (barriers included), flush.
  public var readRequests: UInt64 = 0
  public var writeRequests: UInt64 = 0
  public var flushRequests: UInt64 = 0
  /// 512-byte sectors.
  public var sectorsRead: UInt64 = 0
  public var sectorsWritten: UInt64 = 0
  /// Requests answered with an error, for whatever reason.
  public var failedRequests: UInt64 = 0
  public var ring = RingStatistics()
}

/// The data plane of one block backend ring, as whoever polls it holds it.
///
/// Sendable: its host polls it from one thread; the bus's thread touches it only before the host starts it and after the
/// host has stopped it.
final class BlkBackQueue: DataQueue, @unchecked Sendable {
  private var work: BlkBackWork
  private(set) var violation: RingViolation?
  let descriptors: [CInt]

  init(_ work: consuming BlkBackWork) {
    descriptors = [work.channel.descriptor] + (work.store.completionDescriptor.map { [$0] } ?? [])
    self.work = work
  }

  func poll(now: Uptime, budget: Int) -> PollOutcome {
    do throws(RingViolation) { return try work.poll(budget: budget) } catch {
      violation = error
      return .stopped
    }
  }

  /// Waits for what the store still has. Only after the host has stopped the queue.
  func drain() { work.drain() }

  /// Only when nobody polls.
  var statistics: BlkBackStatistics { work.statistics }
  var ringDump: String { work.ringDump }
}

/// One ring and everything its requests need, in one place so that a poll makes one access to it.
///
/// A request's way: slot, validated request, its payload copied in (writes), the store, its payload copied out (reads),
/// response. Each step is done for a whole batch, so that the platform is called once for it.
struct BlkBackWork: ~Copyable {
  private var ring: BackRing<BlkIfRequest, BlkIfResponse>
  private(set) var channel: EventChannel
  let store: any BlockStore
  private let grants: any GrantTable
  private let frontend: DomainID
  private let geometry: BlockGeometry
  /// Each slot of the in-flight table has a buffer as large as a request can be.
  private let buffers: PrivatePages
  private let bufferBytes: SharedBytes
  /// The in-flight table: as many slots as the ring, so it never overflows.
  private var requests: [BlkRequest?]
  private var freeSlots: [Int] = []
  /// Of the batch under way, in the guest's order; emptied, never shrunk.
  private var arrived: [Int] = []
  private var batch: [BlockRequest] = []
  private var completions: BlockCompletions
  /// Grant copies of the batch; the slot of each stands at the same place in `copySlots`.
  private var copies: [GrantCopy] = []
  private var copySlots: [Int] = []
  private var copyFailed: [Bool]
  private var responsesPut = false
  private var counts = BlkBackStatistics()

  private static var bufferByteCount: Int { BlkIf.maxSegmentCount * xenPageSize }

  init(
    ring: consuming BackRing<BlkIfRequest, BlkIfResponse>, channel: EventChannel, grants: any GrantTable,
    frontend: DomainID, store: any BlockStore, geometry: BlockGeometry
  ) {
    let count = ring.entryCount
    self.ring = ring
    self.channel = channel
    self.grants = grants
    self.frontend = frontend
    self.store = store
    self.geometry = geometry
    buffers = PrivatePages(pageCount: count * BlkIf.maxSegmentCount)
    // Valid as long as `buffers`, which ends with us.
    bufferBytes = buffers.region().bytes
    requests = Array(repeating: nil, count: count)
    copyFailed = Array(repeating: false, count: count)
    completions = BlockCompletions(capacity: count)
    freeSlots.append(contentsOf: (0..<count).reversed())
    arrived.reserveCapacity(count)
    batch.reserveCapacity(count)
    copies.reserveCapacity(count * BlkIf.maxSegmentCount)
    copySlots.reserveCapacity(count * BlkIf.maxSegmentCount)
  }

  mutating func poll(budget: Int) throws(RingViolation) -> PollOutcome {
    channel.take()
    store.reap(into: &completions)
    let taken = try take(budget: budget)
    submit()
    finish()
    push()
    if taken == budget { return .more }
    if try ring.finalCheck() { return .more }
    channel.rearm()
    return .idle
  }

  /// Slots to validated requests; those that do not pass are answered at once.
  private mutating func take(budget: Int) throws(RingViolation) -> Int {
    var left = min(Int(try ring.available()), budget)
    let taken = left
    while left > 0, let raw = ring.next() {
      left -= 1
      do throws(BlkRequestFault) {
        let request = try BlkRequest(parsing: raw, for: geometry)
        let slot = freeSlots.removeLast()
        requests[slot] = request
        arrived.append(slot)
      } catch { answer(id: raw.id, operation: raw.operation, status: error.status) }
    }
    return taken
  }

  /// The arrived requests, writes with their payload copied in, go to the store together.
  private mutating func submit() {
    guard !arrived.isEmpty else { return }
    for index in arrived.indices where requests[arrived[index]]!.kind != .read { addCopies(.fromGrant, arrived[index]) }
    runCopies()
    for index in arrived.indices {
      let slot = arrived[index]
      if copyFailed[slot] { answer(slot, succeeded: false) } else { batch.append(blockRequest(slot)) }
    }
    arrived.removeAll(keepingCapacity: true)
    // Lent to the store as a local, since a span of a part of us would lock all of us.
    var requests: [BlockRequest] = []
    swap(&requests, &batch)
    store.submit(requests.span, to: &completions)
    requests.removeAll(keepingCapacity: true)
    swap(&requests, &batch)
  }

  /// What the store has completed, reads with their payload copied out, is answered.
  private mutating func finish() {
    guard !completions.list.isEmpty else { return }
    for index in completions.list.indices {
      let completion = completions.list[index]
      guard let request = requests[completion.slot] else { preconditionFailure("a store completes a request once") }
      if completion.succeeded, request.kind == .read { addCopies(.toGrant, completion.slot) }
    }
    runCopies()
    for index in completions.list.indices {
      let completion = completions.list[index]
      answer(completion.slot, succeeded: completion.succeeded && !copyFailed[completion.slot])
    }
    completions.list.removeAll(keepingCapacity: true)
  }

  private mutating func push() {
    guard responsesPut else { return }
    responsesPut = false
    if ring.pushAndCheckNotify() { channel.notify() }
  }

  // MARK: One request

  private func buffer(_ slot: Int) -> SharedBytes {
    bufferBytes.slice(from: slot * Self.bufferByteCount, count: Self.bufferByteCount)
  }

  private func blockRequest(_ slot: Int) -> BlockRequest {
    let request = requests[slot]!
    let kind: BlockRequest.Kind =
      switch request.kind {
      case .read: .read
      case .write: .write
      case .writeBarrier: .writeBarrier
      case .flush: .flush
      }
    return BlockRequest(
      kind: kind, sector: request.sector, buffer: buffer(slot).slice(from: 0, count: request.byteCount), slot: slot)
  }

  private mutating func addCopies(_ direction: GrantCopy.Direction, _ slot: Int) {
    let request = requests[slot]!
    let buffer = buffer(slot)
    var position = 0
    for index in 0..<request.segmentCount {
      let segment = request.segment(index)
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
    requests[slot] = nil
    copyFailed[slot] = false
    freeSlots.append(slot)
    answer(
      id: request.id, operation: request.operation, status: succeeded ? BlkIf.Status.okay : BlkIf.Status.error)
  }

  private mutating func answer(id: UInt64, operation: UInt8, status: Int16) {
    if status != BlkIf.Status.okay { counts.failedRequests &+= 1 }
    ring.put(BlkIfResponse(id: id, operation: operation, status: status))
    responsesPut = true
  }

  private mutating func count(_ request: BlkRequest) {
    let sectors = UInt64(request.byteCount / BlkIf.sectorByteCount)
    switch request.kind {
    case .read:
      counts.readRequests &+= 1
      counts.sectorsRead &+= sectors
    case .write, .writeBarrier:
      counts.writeRequests &+= 1
      counts.sectorsWritten &+= sectors
    case .flush: counts.flushRequests &+= 1
    }
  }

  // MARK: The end

  /// The buffers belong to the store until it has completed them: waits for that, and answers nobody.
  mutating func drain() {
    while freeSlots.count < requests.count {
      store.reap(into: &completions)
      for completion in completions.list where requests[completion.slot] != nil {
        requests[completion.slot] = nil
        freeSlots.append(completion.slot)
      }
      completions.list.removeAll(keepingCapacity: true)
      guard freeSlots.count < requests.count, let descriptor = store.completionDescriptor else { return }
      Wakeup.wait(for: descriptor)
    }
  }

  var statistics: BlkBackStatistics {
    var statistics = counts
    statistics.ring = ring.statistics
    return statistics
  }

  var ringDump: String { ring.dump() }
}
