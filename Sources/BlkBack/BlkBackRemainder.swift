import BlkIf
import XenRing

/// What a store still has of a queue that is no more, and the queue's memory, which is the store's until it has completed that.
final class BlkBackRemainder {
  private let store: any BlockStore
  private let memory: (BufferPages, SharedPieceTable, PersistentGrants?)
  private var slots: Set<Int>
  private var completions: StoreCompletions

  init(
    of slots: Set<Int>, in store: any BlockStore, _ buffers: BufferPages, _ pieces: SharedPieceTable,
    _ persistent: PersistentGrants?
  ) {
    (self.store, self.slots, memory) = (store, slots, (buffers, pieces, persistent))
    completions = StoreCompletions(owner: ObjectIdentifier(pieces), capacity: slots.count)
  }

  // Memory that somebody may still write is never given back.
  deinit { if !slots.isEmpty { _ = unsafe Unmanaged.passRetained(Kept(store: store, memory: memory)) } }

  private final class Kept {
    let store: any BlockStore
    let memory: (BufferPages, SharedPieceTable, PersistentGrants?)

    init(store: any BlockStore, memory: (BufferPages, SharedPieceTable, PersistentGrants?)) {
      (self.store, self.memory) = (store, memory)
    }
  }

  /// Takes what the store has completed since, and answers nobody.
  ///
  /// - Returns: how many requests it still has.
  func settle() -> Int {
    if slots.isEmpty { return 0 }
    store.reap(into: &completions)
    for index in completions.list.indices { slots.remove(completions.list[index].slot) }
    completions.list.removeAll(keepingCapacity: true)
    return slots.count
  }

  /// Waits for the rest of it.
  ///
  /// - Parameter deadline: in nanoseconds of the machine's clock.
  /// - Returns: false when the store has not completed all of it by then.
  func settle(until deadline: UInt64) -> Bool {
    while settle() > 0 {
      guard Uptime.now.nanoseconds < deadline, let descriptor = store.completionDescriptor else { return false }
      Wakeup.wait(for: descriptor, timeout: 10)
    }
    return true
  }
}

/// The remainders of a driver's disks: none is served again before its last connection's is settled, so that there is one at most.
final class BlkBackRemainders {
  private var remainders: [String: [BlkBackRemainder]] = [:]

  func keep(_ remainder: BlkBackRemainder, of path: String) { remainders[path, default: []].append(remainder) }

  /// Lets go of what stores have completed meanwhile, of all disks.
  ///
  /// - Returns: how many requests of the disk at `path` its store still has.
  func settle(for path: String) -> Int {
    for disk in remainders.keys {
      remainders[disk]!.removeAll { $0.settle() == 0 }
      if remainders[disk]!.isEmpty { remainders[disk] = nil }
    }
    return remainders[path, default: []].reduce(0) { $0 + $1.settle() }
  }
}
