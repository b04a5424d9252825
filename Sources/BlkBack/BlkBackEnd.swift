import BlkIf
import XenRing

/// What is left to do when nobody polls any more.
extension BlkBackWork {
  /// Answers all that was taken, waiting for what the store still has, and takes nothing more; then has the store put what it
  /// may have in a memory of its own on the medium, waiting ten seconds for that.
  ///
  /// - Parameter deadline: in nanoseconds of the machine's clock: how long to wait for the store.
  /// - Returns: where the ring goes on.
  /// - Throws: when the guest's requests have not all got an answer, or the writes among them may be lost: `unavailable` where the
  ///   store takes too long for them, as it is left by a kill.
  mutating func finishAll(until deadline: UInt64) throws(DeviceError) -> RingIndex {
    while true {
      store.reap(into: &completions)
      finish()
      proceed()
      push()
      if inFlightCount == 0, replays.isEmpty { break }
      guard Uptime.now.nanoseconds < deadline, let descriptor = store.completionDescriptor else {
        throw .unavailable(
          "the store does not complete what it was given, so some of the guest's requests have no answer")
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
    flushPlace = place
    let request = StoreRequest(
      kind: .flush, sector: 0, sectorCount: 0, payload: .none, slot: place, owner: ObjectIdentifier(pieces))
    store.submit([request].span, to: &completions)
    while completions.list.isEmpty {
      guard Uptime.now.nanoseconds < deadline, let descriptor = store.completionDescriptor else {
        throw .unavailable("the store does not complete a flush, so some of the guest's writes may be lost")
      }
      Wakeup.wait(for: descriptor, timeout: 10)
      store.reap(into: &completions)
    }
    let succeeded = completions.list[0].succeeded
    completions.list.removeAll(keepingCapacity: true)
    freePlaces.append(place)
    flushPlace = nil
    guard succeeded else { throw .resource(completions.failure.take() ?? "the store has failed a flush") }
  }

  /// The payload's memory belongs to the store until it has completed what it has: what is to be waited for.
  mutating func leave() -> BlkBackRemainder {
    // What never went to the store is nothing to wait for.
    for place in arrived { places[place] = nil }
    if let barrier, !barrierIsSubmitted { places[barrier] = nil }
    return BlkBackRemainder(
      of: Set(places.indices.filter { places[$0] != nil || $0 == flushPlace }), in: store, buffers, pieces, persistent)
  }
}
