import BlkIf
import Synchronization
import XenRing

/// What is left to do when nobody polls any more.
extension BlkBackWork {
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
        keepForGood(buffers)
        keepForGood(pieces)
        persistent?.abandon()
        return false
      }
      Wakeup.wait(for: descriptor, timeout: 10)
    }
    return true
  }
}

/// Has an object live as long as the process, for a store that may still use its memory.
func keepForGood(_ object: any AnyObject & Sendable) { keptForGood.withLock { $0.append(object) } }

private let keptForGood = Mutex<[any AnyObject & Sendable]>([])
