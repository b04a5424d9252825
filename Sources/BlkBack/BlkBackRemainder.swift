import BlkIf
import Glibc
import Synchronization
import XenRing

/// What a store still has of a queue that is no more, and the queue's memory, which is the store's until it has completed that.
///
/// Sendable: all of it is under a lock, and of the memory nobody but the store has anything.
final class BlkBackRemainder: ThreadWork, @unchecked Sendable {
  private struct Contents: ~Copyable {
    var slots: Set<Int>
    var completions: StoreCompletions
  }

  private let contents: Mutex<Contents>
  /// These are let go of by whoever takes the last completion, before anybody hears that there is none left: an image's lock is
  /// free, and memory is given back, when the disk is served again. Under the lock, too.
  private var store: (any BlockStore)?
  private var memory: (BufferPages, SharedPieceTable, PersistentGrants?)?

  init(
    of slots: Set<Int>, in store: any BlockStore, _ buffers: BufferPages, _ pieces: SharedPieceTable,
    _ persistent: PersistentGrants?
  ) {
    contents = Mutex(
      Contents(
        slots: slots, completions: StoreCompletions(owner: ObjectIdentifier(pieces), capacity: slots.count)))
    if slots.isEmpty { return }
    (self.store, memory) = (store, (buffers, pieces, persistent))
    store.abandon()
  }

  /// Takes what the store has completed since, and answers nobody.
  ///
  /// - Returns: how many requests it still has.
  func settle() -> Int {
    contents.withLock { contents in
      guard let store else { return 0 }
      store.reap(into: &contents.completions)
      for index in contents.completions.list.indices {
        contents.slots.remove(contents.completions.list[index].slot)
      }
      contents.completions.list.removeAll(keepingCapacity: true)
      if contents.slots.isEmpty { (self.store, memory) = (nil, nil) }
      return contents.slots.count
    }
  }

  /// Waits for the rest of it, as long as nobody else has it.
  ///
  /// - Parameter deadline: in nanoseconds of the machine's clock.
  /// - Returns: false when the store has not completed all of it by then.
  func settle(until deadline: UInt64) -> Bool {
    while settle() > 0 {
      let descriptor = contents.withLock { _ in store?.completionDescriptor }
      guard Uptime.now.nanoseconds < deadline, let descriptor else { return false }
      Wakeup.wait(for: descriptor, timeout: 10)
    }
    return true
  }

  /// Has all of it live until it is settled, on a thread that looks for that ten times in a second: whoever asks for the disk again
  /// settles it, too, and the store's descriptor is no more then. Where there is no thread it lives until somebody asks: memory
  /// that somebody may still write is never given back.
  func settleByItself() {
    // Safe: a reference too many, for good.
    guard let handle = try? start(name: "blk-remainder") else {
      _ = unsafe Unmanaged.passRetained(self)
      return
    }
    pthread_detach(handle)
  }

  func run() { while settle() > 0 { usleep(100_000) } }
}

/// The remainders of a driver's disks: none is served again before its last connection's is settled, so that there is one for each
/// of its queues at most.
final class BlkBackRemainders {
  private struct Entry { weak var remainder: BlkBackRemainder? }

  private var entries: [String: [Entry]] = [:]

  func keep(_ remainder: BlkBackRemainder, of path: String) {
    entries = entries.compactMapValues { entries in
      let unsettled = entries.filter { $0.remainder != nil }
      return unsettled.isEmpty ? nil : unsettled
    }
    entries[path, default: []].append(Entry(remainder: remainder))
    remainder.settleByItself()
  }

  /// - Returns: how many requests of the disk at `path` its store still has.
  func requestCount(of path: String) -> Int {
    entries[path, default: []].reduce(0) { $0 + ($1.remainder?.settle() ?? 0) }
  }
}
