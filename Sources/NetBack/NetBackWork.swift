import NetIf
import XenRing

/// The two rings and everything their packets need, in one place so that a poll makes one access to it.
///
/// A sent packet's way: slot, validated request, its bytes copied in, response, the end. A received one's: the end, the
/// bounded queue, its bytes copied out, response. Each step is done for a whole batch, so that the platform is called
/// once for it.
struct NetBackWork: ~Copyable {
  /// How many sent packets one poll takes at most.
  private static let batchCount = 64
  /// How many frames may wait for pages of the guest's.
  private static let waitingCount = 256
  /// How long they wait at most when the guest does not say that it has given pages (`feature-rx-notify`).
  private static let retryNanoseconds: UInt64 = 30_000_000

  private var tx: BackRing<NetIfTxRequest, NetIfTxResponse>
  private var rx: BackRing<NetIfRxRequest, NetIfRxResponse>
  private(set) var channel: EventChannel
  let end: any NetworkEnd
  private let grants: any GrantTable
  private let frontend: DomainID
  private let frontendNotifies: Bool
  /// A page for each packet of a batch.
  private let buffers: PrivatePages
  /// Of the batch under way, in the guest's order, each with its copy at the same place in `copies`; emptied, never shrunk.
  private var requests: [NetTxRequest] = []
  private var copies: [GrantCopy] = []
  private var frames: [NetworkFrame] = []
  private var refusal = NetTxRefusal()
  private var waiting = FrameQueue(capacity: waitingCount)
  /// The ids of the receive requests that the batch under way fills, in ring order.
  private var receiving: [UInt16] = []
  private var counts = NetStatistics()

  init(
    tx: consuming BackRing<NetIfTxRequest, NetIfTxResponse>, rx: consuming BackRing<NetIfRxRequest, NetIfRxResponse>,
    channel: EventChannel, grants: any GrantTable, frontend: DomainID, frontendNotifies: Bool, end: any NetworkEnd
  ) {
    self.tx = tx
    self.rx = rx
    self.channel = channel
    self.grants = grants
    self.frontend = frontend
    self.frontendNotifies = frontendNotifies
    self.end = end
    buffers = PrivatePages(pageCount: Self.batchCount)
    requests.reserveCapacity(Self.batchCount)
    frames.reserveCapacity(Self.batchCount)
    copies.reserveCapacity(max(Self.batchCount, Self.waitingCount))
    receiving.reserveCapacity(Self.waitingCount)
  }

  mutating func poll(now: Uptime, budget: Int) throws(NetRingViolation) -> PollOutcome {
    channel.take()
    let limit = min(budget, Self.batchCount)
    let taken = try take(limit: limit)
    deliver()
    end.give(to: &waiting)
    let wasFull = !waiting.hasRoom
    let given = try give(limit: budget)
    push()
    // An end that found no room may have more.
    if taken == limit || given == budget || (wasFull && given > 0) { return .more }
    if try isWorkLeft() { return .more }
    channel.rearm()
    let retries = !waiting.isEmpty && !frontendNotifies
    return retries ? .idleUntil(Uptime(nanoseconds: now.nanoseconds + Self.retryNanoseconds)) : .idle
  }

  /// Looks at both rings for the last time before sleeping, and asks for the events that we need: receive requests are
  /// news only while frames wait for them.
  private mutating func isWorkLeft() throws(NetRingViolation) -> Bool {
    do throws(RingViolation) { if try tx.finalCheck() { return true } } catch { throw NetRingViolation(.tx, error) }
    guard !waiting.isEmpty else { return false }
    do throws(RingViolation) { return try rx.finalCheck() } catch { throw NetRingViolation(.rx, error) }
  }

  /// Whether more frames from the end could wait here.
  var hasRoom: Bool { waiting.hasRoom }

  // MARK: From the guest

  /// Slots to validated requests and their copies; what does not pass is answered at once.
  private mutating func take(limit: Int) throws(NetRingViolation) -> Int {
    let available: UInt32
    do throws(RingViolation) { available = try tx.available() } catch { throw NetRingViolation(.tx, error) }
    var left = min(Int(available), limit)
    let taken = left
    while left > 0, let raw = tx.next() {
      left -= 1
      if let response = refusal.response(to: raw) {
        tx.put(response)
        continue
      }
      do throws(NetTxRequestFault) {
        let request = try NetTxRequest(parsing: raw)
        copies.append(
          GrantCopy(
            .fromGrant, local: buffer(requests.count, Int(request.byteCount)), reference: request.reference,
            of: frontend, offset: request.offset))
        requests.append(request)
      } catch {
        refusal.begin(raw)
        answerError(raw.id)
      }
    }
    return taken
  }

  /// The batch's bytes are copied in, its slots answered, and its frames handed to the end.
  private mutating func deliver() {
    guard !requests.isEmpty else { return }
    runCopies()
    for index in requests.indices {
      let request = requests[index]
      guard copies[index].status == .okay else {
        answerError(request.id)
        continue
      }
      // From here on the frame is ours, whatever becomes of it.
      tx.put(NetIfTxResponse(id: request.id, status: NetIf.Status.okay))
      counts.tx.count(packetOf: Int(request.byteCount))
      frames.append(NetworkFrame(buffer(index, Int(request.byteCount))))
    }
    requests.removeAll(keepingCapacity: true)
    copies.removeAll(keepingCapacity: true)
    guard !frames.isEmpty else { return }
    // Lent to the end as a local, since a span of a part of us would lock all of us.
    var batch: [NetworkFrame] = []
    swap(&batch, &frames)
    end.take(batch.span, answering: &waiting)
    batch.removeAll(keepingCapacity: true)
    swap(&batch, &frames)
  }

  private mutating func answerError(_ id: UInt16) {
    counts.tx.errors &+= 1
    tx.put(NetIfTxResponse(id: id, status: NetIf.Status.error))
  }

  private func buffer(_ index: Int, _ byteCount: Int) -> SharedBytes {
    buffers.bytes.slice(from: index * xenPageSize, count: byteCount)
  }

  // MARK: To the guest

  /// Frames that wait, as many as the guest has pages for, are copied out. Every request that is taken is answered before
  /// the next batch, in ring order: so each response stands in the slot of its request.
  private mutating func give(limit: Int) throws(NetRingViolation) -> Int {
    guard !waiting.isEmpty else { return 0 }
    let available: UInt32
    do throws(RingViolation) { available = try rx.available() } catch { throw NetRingViolation(.rx, error) }
    let count = min(Int(available), waiting.count, limit)
    while receiving.count < count, let request = rx.next() {
      copies.append(
        GrantCopy(
          .toGrant, local: waiting[receiving.count].bytes, reference: GrantReference(rawValue: request.gref),
          of: frontend, offset: 0))
      receiving.append(request.id)
    }
    guard count > 0 else { return 0 }
    runCopies()
    for index in receiving.indices {
      let byteCount = waiting[index].bytes.count
      let succeeded = copies[index].status == .okay
      if succeeded { counts.rx.count(packetOf: byteCount) } else { counts.rx.errors &+= 1 }
      rx.put(NetIfRxResponse(id: receiving[index], status: succeeded ? Int16(byteCount) : NetIf.Status.error))
    }
    waiting.removeFirst(count)
    receiving.removeAll(keepingCapacity: true)
    copies.removeAll(keepingCapacity: true)
    return count
  }

  // MARK: Both ways

  private mutating func runCopies() {
    let grants = grants
    var span = copies.mutableSpan
    grants.copy(&span)
  }

  private mutating func push() {
    let notifyOfTx = tx.hasUnpushed && tx.pushAndCheckNotify()
    let notifyOfRx = rx.hasUnpushed && rx.pushAndCheckNotify()
    if notifyOfTx || notifyOfRx { channel.notify() }
  }

  /// What has been done; frames that wait count as dropped when asked for at the end.
  var statistics: NetStatistics {
    var statistics = counts
    statistics.rx.drops = waiting.dropCount + UInt64(waiting.count)
    statistics.txRing = tx.statistics
    statistics.rxRing = rx.statistics
    return statistics
  }

  var ringDump: String { "tx \(tx.dump()); rx \(rx.dump())" }
}
