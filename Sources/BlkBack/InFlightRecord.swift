import BlkIf
import Glibc
import Synchronization
import SystemPackage
import XenBus
import XenRing

/// What a disk's queues have taken and not answered, in a file that outlives this process: who is started after a kill does again
/// what the guest has no answer to, and the guest notices only a pause.
///
/// For one request the steps are, in this order: (1) its slot's bytes and its index go into a free entry, which then is *taken*;
/// (2) `consumed` moves past it; (3) it is done; (4) its answer is put into the ring, over slots below `consumed`; (5) the
/// answer's index goes into the entry, which then is *answered*; (6) the ring's page shows the index of the next response;
/// (7) the entry is *free*. Whoever comes after a kill asks of each entry that is not free whether its request lies below
/// `consumed` and its answer, if it has one, not below the index that the page shows. Those are the requests to do again:
/// - before (2) the request is still in the ring, since answers only go below `consumed`: the entry does not count;
/// - from (2) to (6) the guest has seen no answer: the request counts, whatever was done of it. To do it again does no harm, as
///   the guest may not rely on anything about its sectors yet. All that is done again is done in the guest's order and before
///   anything new, and a barrier waits as ever, so what was ordered stays so;
/// - from (6) on the guest may have seen the answer: the entry is answered below the page's index, and does not count.
///
/// So those that count are just `consumed` less the page's index, and where they are not, the two do not belong together.
///
/// A kill falls between two instructions: what the process has stored before, whoever maps the file or the page afterwards
/// sees, and nothing after. It is therefore enough that the stores are made in this order. Each that matters is a releasing
/// one, so that none before it comes after it; the one that must also precede plain stores, (2) before (4), has a fence.
/// A crash of the whole machine is no kill: the guest's pages are gone as well.
///
/// The file is locked as long as the process lives, so that a disk has one process. It holds what a store may still be writing
/// for the process before: that one's own lock on its image keeps the two apart.
@safe final class InFlightRecord: @unchecked Sendable {
  // Sendable: the mapping's address never changes; each queue's part belongs to its thread.

  /// Tells this connection's record from an earlier one's.
  let name: String
  private let path: FilePath
  private let descriptor: FileDescriptor
  private let baseAddress: UnsafeMutableRawPointer
  private let byteCount: Int
  fileprivate let hook: RecordHook?

  private static let magic = "XenBlkInFlight01"
  private static let nameByteCount = 32
  fileprivate static let entryByteCount = 128

  private static func queueByteCount(entryCount: Int) -> Int { 64 + entryCount * entryByteCount }
  private static let headerByteCount = 64

  /// An empty one, in the place of whatever was there.
  ///
  /// All of it is allocated here: on a full file system a store into a hole of it would be the end of the process.
  ///
  /// - Parameters:
  ///   - entryCount: how many slots each queue's ring has.
  ///   - hook: told of each step, for tests that kill there.
  init(
    at path: FilePath, queueCount: Int, entryCount: Int, hook: RecordHook?
  ) throws(DeviceError) {
    self.path = path
    self.hook = hook
    let random = UInt128.random(in: 0...UInt128.max)
    name = String(repeating: "0", count: 32 - String(random, radix: 16).count) + String(random, radix: 16)
    byteCount = Self.headerByteCount + queueCount * Self.queueByteCount(entryCount: entryCount)
    descriptor = try Self.open(path, options: [.create, .closeOnExec, .noFollow])
    do throws(DeviceError) {
      guard ftruncate(descriptor.rawValue, 0) == 0 else { throw Self.failure("cannot be emptied", path, errno) }
      let error = posix_fallocate(descriptor.rawValue, 0, off_t(byteCount))
      guard error == 0 else { throw Self.failure("cannot be made as large as it has to be", path, error) }
      unsafe baseAddress = try Self.map(descriptor, byteCount, path)
    } catch {
      Self.letGo(of: descriptor)
      throw error
    }
    bytes(0, Self.magic.utf8.count).copy(from: Array(Self.magic.utf8).span)
    bytes(16, Self.nameByteCount).copy(from: Array(name.utf8).span)
  }

  /// The one that a killed process has left.
  ///
  /// - Parameter name: as it was called.
  /// - Throws: when it is another one, or its process lives.
  init(
    at path: FilePath, named name: String, queueCount: Int, entryCount: Int, hook: RecordHook?
  ) throws(DeviceError) {
    self.path = path
    self.name = name
    self.hook = hook
    byteCount = Self.headerByteCount + queueCount * Self.queueByteCount(entryCount: entryCount)
    descriptor = try Self.open(path, options: [.closeOnExec, .noFollow])
    do throws(DeviceError) {
      let size = (try? descriptor.seek(offset: 0, from: .end)) ?? 0
      guard size == byteCount else {
        throw .resource(
          "the record \(path) has \(size) bytes and not the \(byteCount) of a disk with \(queueCount) queues of "
            + "\(entryCount) slots")
      }
      unsafe baseAddress = try Self.map(descriptor, byteCount, path)
    } catch {
      Self.letGo(of: descriptor)
      throw error
    }
    guard bytes(0, 16).copied() == Array(Self.magic.utf8), bytes(16, Self.nameByteCount).copied() == Array(name.utf8)
    else { throw .resource("the record \(path) is not the one of this connection (\(name))") }
  }

  deinit {
    unsafe munmap(baseAddress, byteCount)
    Self.letGo(of: descriptor)
  }

  /// Nobody is to go on with it.
  func remove() { unsafe unlink(path.string) }

  /// The file of that name, locked.
  private static func open(_ path: FilePath, options: FileDescriptor.OpenOptions) throws(DeviceError) -> FileDescriptor
  {
    while true {
      let descriptor: FileDescriptor
      do {
        descriptor = try FileDescriptor.open(path, .readWrite, options: options, permissions: .ownerReadWrite)
      } catch { throw .resource("the record \(path) cannot be opened: \((error as? Errno) ?? .ioError)") }
      guard flock(descriptor.rawValue, LOCK_EX | LOCK_NB) == 0 else {
        try? descriptor.close()
        throw .unavailable("the record \(path) is in use: another process serves this disk")
      }
      var (locked, named) = (stat(), stat())
      // Safe: both are our own, and the path is a string for the time of the call.
      let isThere = unsafe fstat(descriptor.rawValue, &locked) == 0 && lstat(path.string, &named) == 0
      if isThere, locked.st_ino == named.st_ino, locked.st_dev == named.st_dev { return descriptor }
      // Whoever had it locked has removed it since it was opened.
      try? descriptor.close()
    }
  }

  private static func letGo(of descriptor: FileDescriptor) {
    // A program that another thread begins at this moment has a copy of the descriptor until it runs.
    _ = flock(descriptor.rawValue, LOCK_UN)
    try? descriptor.close()
  }

  private static func map(
    _ descriptor: FileDescriptor, _ byteCount: Int, _ path: FilePath
  ) throws(DeviceError) -> UnsafeMutableRawPointer {
    let address = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.rawValue, 0)
    guard unsafe address != MAP_FAILED, let base = unsafe address else {
      throw failure("cannot be mapped", path, errno)
    }
    return unsafe base
  }

  private static func failure(_ what: String, _ path: FilePath, _ error: CInt) -> DeviceError {
    .resource("the record \(path) \(what): \(Errno(rawValue: error))")
  }

  private func bytes(_ offset: Int, _ count: Int) -> SharedBytes {
    precondition(offset >= 0 && count >= 0 && offset + count <= byteCount, "the record's own bytes")
    return unsafe SharedBytes(baseAddress: baseAddress + offset, count: count)
  }

  /// The part of one queue.
  ///
  /// - Parameter number: below the count that the record was made for.
  func queue(_ number: Int, entryCount: Int) -> RecordedQueue {
    let size = Self.queueByteCount(entryCount: entryCount)
    let part = bytes(Self.headerByteCount + number * size, size)
    return unsafe RecordedQueue(baseAddress: part.baseAddress, entryCount: entryCount, record: self)
  }
}

/// What a record has just done: the instants between which a kill makes a difference.
package enum RecordStep: Hashable, Sendable, CaseIterable {
  /// A request has left the ring, and is written down.
  case recorded
  /// And the index up to which requests were taken.
  case consumed
  /// An answer lies in the ring, and its index is written down; nobody has been shown it.
  case put
  /// The answers are shown to the frontend, which has not been notified.
  case pushed
  /// The requests that are answered are crossed out.
  case cleared
}

package typealias RecordHook = @Sendable (RecordStep) -> Void

/// One queue's part of an ``InFlightRecord``: the index up to which requests were consumed, and an entry for each slot of the
/// in-flight table.
@safe struct RecordedQueue: @unchecked Sendable {
  // Sendable: the address never changes, and what lies there is the queue's thread's alone.

  private enum State {
    static let free: UInt32 = 0
    static let taken: UInt32 = 1
    /// And its answer has an index.
    static let answered: UInt32 = 2
  }

  private static let requestIndexOffset = 112
  private static let answerIndexOffset = 116
  private static let stateOffset = 120

  private let baseAddress: UnsafeMutableRawPointer
  let entryCount: Int
  private let record: InFlightRecord

  @unsafe fileprivate init(baseAddress: UnsafeMutableRawPointer, entryCount: Int, record: InFlightRecord) {
    unsafe self.baseAddress = baseAddress
    self.entryCount = entryCount
    self.record = record
  }

  private func entry(_ slot: Int) -> UnsafeMutableRawPointer {
    precondition(slot >= 0 && slot < entryCount, "slot out of range")
    return unsafe baseAddress + 64 + slot * InFlightRecord.entryByteCount
  }

  /// Releasing: what was written before survives a kill whenever this does.
  private func store(_ value: UInt32, at address: UnsafeMutableRawPointer) {
    // Safe: aligned to four bytes within the mapping.
    unsafe address.assumingMemoryBound(to: Atomic<UInt32>.self).pointee.store(value, ordering: .releasing)
  }

  private func load(_ address: UnsafeMutableRawPointer) -> UInt32 {
    unsafe address.assumingMemoryBound(to: Atomic<UInt32>.self).pointee.load(ordering: .acquiring)
  }

  /// Writes down what the ring gave at `index`.
  func take(_ request: BlkIfRequest, at index: RingIndex, slot: Int) {
    let entry = unsafe entry(slot)
    // Safe: a request has 112 bytes, an entry 128.
    unsafe entry.storeBytes(of: request, as: BlkIfRequest.self)
    unsafe store(index.rawValue, at: entry + Self.requestIndexOffset)
    unsafe store(State.taken, at: entry + Self.stateOffset)
    record.hook?(.recorded)
  }

  /// Up to where requests were consumed.
  var consumed: RingIndex {
    get { RingIndex(rawValue: unsafe load(baseAddress)) }
    nonmutating set {
      unsafe store(newValue.rawValue, at: baseAddress)
      // Before the plain stores that put an answer over slots below it.
      atomicMemoryFence(ordering: .acquiringAndReleasing)
      record.hook?(.consumed)
    }
  }

  /// - Parameter index: of the response, when it is in the ring.
  func answer(slot: Int, at index: RingIndex) {
    let entry = unsafe entry(slot)
    unsafe store(index.rawValue, at: entry + Self.answerIndexOffset)
    unsafe store(State.answered, at: entry + Self.stateOffset)
    record.hook?(.put)
  }

  func pushed() { record.hook?(.pushed) }

  func clear(slot: Int) { unsafe store(State.free, at: entry(slot) + Self.stateOffset) }

  func cleared() { record.hook?(.cleared) }

  /// What has no answer, in the order in which the guest asked for it. When the two belong together the rest is crossed out.
  ///
  /// - Parameter produced: the index of the next response, as the ring's page has it: the other end's word.
  /// - Throws: when the two do not belong together.
  func unanswered(produced: RingIndex) throws(DeviceError) -> [(slot: Int, request: BlkIfRequest)] {
    let consumed = consumed
    var found: [(age: UInt32, slot: Int, request: BlkIfRequest)] = []
    for slot in 0..<entryCount {
      let entry = unsafe entry(slot)
      let state = unsafe load(entry + Self.stateOffset)
      let answer = RingIndex(rawValue: unsafe load(entry + Self.answerIndexOffset))
      // One that is older than the ring is long counts as well: the others were faster.
      let age = consumed.distance(from: RingIndex(rawValue: unsafe load(entry + Self.requestIndexOffset)))
      guard age != 0, state == State.taken || (state == State.answered && !answer.isBefore(produced)) else { continue }
      found.append((age, slot, unsafe entry.load(as: BlkIfRequest.self)))
    }
    found.sort { $0.age > $1.age }
    let expected = consumed.distance(from: produced)
    guard found.count == Int(expected), zip(found, found.dropFirst()).allSatisfy({ $0.age != $1.age }) else {
      throw .protocolViolation(
        "its ring has \(expected) requests without an answer, and the record of what was in flight has \(found.count)")
    }
    // Not before: as long as the two do not belong together, somebody may still set them right.
    let slots = Set(found.map(\.slot))
    for slot in 0..<entryCount {
      unsafe store(slots.contains(slot) ? State.taken : State.free, at: entry(slot) + Self.stateOffset)
    }
    return found.map { ($0.slot, $0.request) }
  }
}

extension RingIndex {
  /// Of two that lie less than half of all indices apart.
  fileprivate func isBefore(_ other: RingIndex) -> Bool { other.distance(from: self) &- 1 < UInt32(Int32.max) }
}
