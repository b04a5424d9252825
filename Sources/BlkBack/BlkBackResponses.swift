import BlkIf
import XenRing

/// From the store back to the ring.
extension BlkBackWork {
  /// What the store has completed, reads with their payload copied out, is answered.
  mutating func finish() {
    guard !completions.list.isEmpty else { return }
    if timedCount > 0 { timedAt = clock().nanoseconds }
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

  mutating func answer(_ place: Int, succeeded: Bool) {
    let request = places[place]!.request
    if succeeded { count(request) }
    answer(
      place, id: request.id, operation: request.operation,
      status: succeeded ? BlkIf.Status.okay : BlkIf.Status.error)
  }

  /// Puts the response of the request at `place`, which nobody else gets before the response is shown.
  @inline(__always) mutating func answer(_ place: Int, id: UInt64, operation: UInt8, status: Int16) {
    if let former = places[place] {
      if former.takenAt > 0 {
        counts.latency.add(nanoseconds: timedAt &- former.takenAt)
        timedCount -= 1
      }
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

  mutating func push() {
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
}
