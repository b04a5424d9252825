import BlkIf
import Glibc
import Synchronization
import SystemPackage
import XenBus
import XenRing

/// What a disk's queues have taken and not answered, in a file that outlives this process: who is started after a kill does again
/// what the guest has no answer to, and the guest notices only a pause.
///
/// Each request is written down before the index up to which requests were consumed, and that before anything is done. Its
/// answer's index is written down before the answer is shown, and it is crossed out afterwards: so whatever step a kill falls
/// on, the requests that are written down, less those whose answers the ring shows, are just those without an answer.
///
/// The file is locked as long as the process lives, so that a disk has one process.
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
      guard ftruncate(descriptor.rawValue, 0) == 0, ftruncate(descriptor.rawValue, off_t(byteCount)) == 0 else {
        throw Self.failure("cannot be made as large as it has to be", path)
      }
      unsafe baseAddress = try Self.map(descriptor, byteCount, path)
    } catch {
      try? descriptor.close()
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
      try? descriptor.close()
      throw error
    }
    guard bytes(0, 16).copied() == Array(Self.magic.utf8), bytes(16, Self.nameByteCount).copied() == Array(name.utf8)
    else { throw .resource("the record \(path) is not the one of this connection (\(name))") }
  }

  deinit {
    unsafe munmap(baseAddress, byteCount)
    try? descriptor.close()
  }

  /// Nobody is to go on with it.
  func remove() { unsafe unlink(path.string) }

  private static func open(_ path: FilePath, options: FileDescriptor.OpenOptions) throws(DeviceError) -> FileDescriptor
  {
    let descriptor: FileDescriptor
    do { descriptor = try FileDescriptor.open(path, .readWrite, options: options, permissions: .ownerReadWrite) } catch
    {
      throw .resource("the record \(path) cannot be opened: \((error as? Errno) ?? .ioError)")
    }
    guard flock(descriptor.rawValue, LOCK_EX | LOCK_NB) == 0 else {
      try? descriptor.close()
      throw .resource("the record \(path) is in use: another process serves this disk")
    }
    return descriptor
  }

  private static func map(
    _ descriptor: FileDescriptor, _ byteCount: Int, _ path: FilePath
  ) throws(DeviceError) -> UnsafeMutableRawPointer {
    let address = unsafe mmap(nil, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor.rawValue, 0)
    guard unsafe address != MAP_FAILED, let base = unsafe address else { throw failure("cannot be mapped", path) }
    return unsafe base
  }

  private static func failure(_ what: String, _ path: FilePath) -> DeviceError {
    .resource("the record \(path) \(what): \(Errno(rawValue: errno))")
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
  /// All requests of a batch are, and the index up to which they were taken.
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

  /// What has no answer, in the order in which the guest asked for it; the rest is crossed out.
  ///
  /// - Parameter produced: the index of the next response, as the ring's page has it: the other end's word.
  /// - Throws: when the two do not belong together.
  func unanswered(produced: RingIndex) throws(DeviceError) -> [(slot: Int, request: BlkIfRequest)] {
    let consumed = consumed
    var found: [(distance: UInt32, slot: Int, request: BlkIfRequest)] = []
    for slot in 0..<entryCount {
      let entry = unsafe entry(slot)
      let state = unsafe load(entry + Self.stateOffset)
      let index = RingIndex(rawValue: unsafe load(entry + Self.requestIndexOffset))
      let answer = RingIndex(rawValue: unsafe load(entry + Self.answerIndexOffset))
      // One that was answered was shown when the ring's index has passed it; one that was taken counts when the index that
      // says so was written, too.
      let age = consumed.distance(from: index)
      let isShown = state == State.answered && produced.distance(from: answer) &- 1 < UInt32(Int32.max)
      guard state == State.taken || state == State.answered, !isShown, age >= 1, age <= UInt32(entryCount) else {
        clear(slot: slot)
        continue
      }
      unsafe store(State.taken, at: entry + Self.stateOffset)
      found.append((age, slot, unsafe entry.load(as: BlkIfRequest.self)))
    }
    let expected = consumed.distance(from: produced)
    guard found.count == Int(expected) else {
      throw .protocolViolation(
        "its ring has \(expected) requests without an answer, and the record of what was in flight has \(found.count)")
    }
    return found.sorted { $0.distance > $1.distance }.map { ($0.slot, $0.request) }
  }
}
