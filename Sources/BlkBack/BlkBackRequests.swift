import BlkIf
import XenRing

/// From the ring to the store.
extension BlkBackWork {
  // MARK: Taking

  /// Nothing before has to complete first.
  var takesMore: Bool { barrier == nil && arrived.isEmpty && !isReplaying }

  /// Slots to validated requests; those that do not pass are answered at once.
  mutating func take(budget: Int) throws(RingViolation) -> Int {
    guard takesMore else { return 0 }
    try countWaited()
    let limit = min(Int(try ring.available()), budget, freePlaces.count)
    let takenAt = limit > 0 ? timeTurn() : 0
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
      admit(raw, place, takenAt: takenAt)
    }
    return taken
  }

  /// - Returns: when the turn takes its requests, or zero when they are not timed.
  private mutating func timeTurn() -> UInt64 {
    untimedTurns += 1
    guard untimedTurns == Self.turnsPerMeasurement else { return 0 }
    untimedTurns = 0
    timedAt = clock().nanoseconds
    return timedAt
  }

  /// Everything that has been taken goes as far as it does without waiting for the store: what a store completes at once
  /// may be what others wait for, a barrier or buffers.
  mutating func proceed() {
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
      admit(replays[count].request, replays[count].slot, takenAt: 0)
      count += 1
    }
    replays.removeFirst(count)
    isReplaying = !replays.isEmpty || inFlightCount > 0
  }

  @inline(__always) private mutating func admit(_ raw: BlkIfRequest, _ place: Int, takenAt: UInt64) {
    do throws(BlkRequestFault) {
      let (rules, start) = (rules, place * maxSegmentCount)
      var span = segments.mutableSpan
      let request = try BlkRequest(parsing: raw, by: rules, segments: &span, at: start)
      places[place] = Place(request: request, takenAt: takenAt, isParsed: request.indirectPageCount == 0)
      inFlightCount += 1
      if takenAt > 0 { timedCount += 1 }
      if request.kind == .writeBarrier { barrier = place } else { arrived.append(place) }
    } catch { answer(place, id: raw.id, operation: raw.answeredOperation, status: error.status) }
  }

  /// What is in the ring when a barrier ends has waited for it.
  mutating func countWaited() throws(RingViolation) {
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
    var areAllThere = true
    for index in 0..<count where !parse(arrived[index]) { areAllThere = false }
    if !areAllThere {
      // Answered: not to stay among those that wait for buffers.
      let formerCount = arrived.count
      arrived.removeAll { places[$0] == nil }
      count -= formerCount - arrived.count
    }
    var ready = 0
    while ready < count, provide(arrived[ready]) { ready += 1 }
    runCopies()
    for index in 0..<ready {
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
}
