import BlkBack
import CLinux
import Glibc
import SystemPackage

/// What one queue submits to: an io_uring on the store's file.
///
/// Sendable: a queue's thread alone uses it, and whoever waits for what is left when that thread has ended.
final class FileQueue: BlockStore, @unchecked Sendable {
  private let image: ImageFile
  private var work: FileQueueWork
  let completionDescriptor: CInt?

  /// Why this machine, or what the process is allowed, does not do.
  static var reasonNotToWork: String? {
    do throws(ResourceError) { _ = try FileRing(file: -1, capacity: 1) } catch { return error.description }
    return nil
  }

  init(_ image: ImageFile, options: FileStoreOptions) throws(ResourceError) {
    let ring = try FileRing(
      file: image.descriptor, capacity: FileQueueWork.capacity, stopsHalfWay: options.stopsHalfWay)
    completionDescriptor = ring.descriptor
    self.image = image
    work = FileQueueWork(image, ring, mergesRequests: options.mergesRequests)
  }

  var geometry: BlockGeometry { image.geometry }
  /// How many operations the kernel has been given.
  var operationCount: UInt64 { work.operationCount }
  /// With how many system calls.
  var submissionCount: UInt64 { work.submissionCount }

  func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    work.submit(requests, to: &completions)
  }

  func reap(into completions: inout StoreCompletions) { work.reap(into: &completions) }
}

/// A queue's ring, and what of its requests is under way.
@safe struct FileQueueWork: ~Copyable {
  /// As many as a ring of 16 pages holds; more than are put before they are begun.
  static var capacity: UInt32 { 512 }
  /// Of a merged operation, at most.
  private static let maxVectorCount = 128
  private static let maxMergedByteCount = 1 << 20
  private static let tableCount = 64
  /// How many operations the kernel is given at once, when it needs time for them.
  private static let startCount = 8
  private static let maxDiscardByteCount: UInt64 = 1 << 30
  private static let maxAttempts = 100

  /// One request on its way.
  private struct Operation {
    enum Step { case transfer, flushBefore, transferBetween, flushAfter, flush, discard }

    var request: StoreRequest
    var step = Step.transfer
    /// Bytes that are done.
    var done = 0
    var attempts = 0
    /// The request merged behind this one: another operation's number, or -1.
    var next = -1
    /// Of the vectors of a merged operation, or -1.
    var table = -1
    var bounce: Bounce?
  }

  private let image: ImageFile
  private var ring: FileRing
  private let mergesRequests: Bool
  private var operations: [Operation] = []
  private var freeOperations: [Int] = []
  private var inFlightCount = 0
  private var hasPut = false
  /// All that was last submitted was done as soon as it had begun: to begin it in parts would be system calls and nothing else.
  private var endsAtOnce = false
  private let vectors: UnsafeMutablePointer<iovec>
  private var freeTables: [Int]

  init(_ image: ImageFile, _ ring: consuming FileRing, mergesRequests: Bool) {
    self.image = image
    self.ring = ring
    self.mergesRequests = mergesRequests
    operations.reserveCapacity(Int(Self.capacity))
    freeOperations.reserveCapacity(Int(Self.capacity))
    unsafe vectors = .allocate(capacity: Self.tableCount * Self.maxVectorCount)
    unsafe vectors.initialize(repeating: iovec(), count: Self.tableCount * Self.maxVectorCount)
    freeTables = Array((0..<Self.tableCount).reversed())
  }

  deinit {
    unsafe vectors.deallocate()
    if inFlightCount > 0 { image.abandon() }
  }

  var operationCount: UInt64 { ring.operationCount }
  var submissionCount: UInt64 { ring.submissionCount }

  mutating func submit(_ requests: Span<StoreRequest>, to completions: inout StoreCompletions) {
    var (index, putCount) = (0, 0)
    while index < requests.count {
      let request = requests[index]
      index += 1
      switch request.kind {
      case .read, .write:
        let first = admit(request, .transfer, &completions)
        guard first >= 0 else { continue }
        if mergesRequests, operations[first].bounce == nil, index < requests.count {
          index = merge(first, requests, from: index)
        }
        start(first)
        // A disk begins with the first ones while we put the others. What the page cache has is done when it has begun.
        putCount += 1
        if putCount >= Self.startCount, !endsAtOnce {
          (putCount, hasPut) = (0, false)
          ring.submit()
        }
      case .writeBarrier: begin(request, .flushBefore, &completions)
      case .flush: begin(request, .flush, &completions)
      case .discard, .secureDiscard: begin(request, .discard, &completions)
      }
    }
    reap(into: &completions)
    if index > 0 { endsAtOnce = inFlightCount == 0 }
  }

  /// What the kernel has done already is taken after each beginning, so that nobody has to be woken for it.
  mutating func reap(into completions: inout StoreCompletions) {
    repeat {
      if hasPut {
        hasPut = false
        ring.submit()
      }
      while let completion = ring.next() { finish(completion.number, completion.result, &completions) }
    } while hasPut
  }

  // MARK: Beginning

  /// - Returns: its operation's number, or -1 when it has failed at once.
  private mutating func admit(
    _ request: StoreRequest, _ step: Operation.Step, _ completions: inout StoreCompletions
  ) -> Int {
    if !image.contains(request) {
      completions.fail(request, because: FileFault.endOfFile.words(image.path))
      return -1
    }
    if step == .flush || step == .flushBefore, image.hasLostWrites {
      completions.fail(request, because: FileFault.lostWrites.words(image.path))
      return -1
    }
    var operation = Operation(request: request, step: step)
    if let bounce = image.bounce(for: request) {
      operation.bounce = bounce
      operation.request = bounce.request
    }
    inFlightCount += 1
    if let number = freeOperations.popLast() {
      operations[number] = operation
      return number
    }
    operations.append(operation)
    return operations.count - 1
  }

  private mutating func begin(
    _ request: StoreRequest, _ step: Operation.Step, _ completions: inout StoreCompletions
  ) {
    let number = admit(request, step, &completions)
    if number < 0 { return }
    if request.kind == .secureDiscard { discardByCall(number, &completions) } else { start(number) }
  }

  /// Takes the requests from `index` on that go on where the one before ends, and links them behind `first`.
  ///
  /// - Returns: the index of the first that was not taken.
  private mutating func merge(_ first: Int, _ requests: Span<StoreRequest>, from index: Int) -> Int {
    let head = operations[first].request
    var (end, vectorCount, byteCount) = (index, head.payload.count, head.payload.byteCount)
    var sector = head.sector + head.sectorCount
    while end < requests.count {
      let request = requests[end]
      vectorCount += request.payload.count
      byteCount += request.payload.byteCount
      guard request.kind == head.kind, request.sector == sector, vectorCount <= Self.maxVectorCount,
        byteCount <= Self.maxMergedByteCount, image.contains(request), image.suits(request)
      else { break }
      sector += request.sectorCount
      end += 1
    }
    guard end > index, let table = freeTables.popLast() else { return index }
    operations[first].table = table
    var (last, used) = (first, add(head.payload, to: table, at: 0))
    for position in index..<end {
      let request = requests[position]
      used = add(request.payload, to: table, at: used)
      // It lies on the disk, and fits: it cannot fail here.
      let number: Int
      inFlightCount += 1
      if let free = freeOperations.popLast() {
        number = free
        operations[number] = Operation(request: request)
      } else {
        number = operations.count
        operations.append(Operation(request: request))
      }
      operations[last].next = number
      last = number
    }
    return end
  }

  private func add(_ payload: SharedPieces, to table: Int, at start: Int) -> Int {
    // Safe: within the table, as whoever merges has counted; the slices themselves stay as each request has them.
    let place = unsafe vectors + (table * Self.maxVectorCount + start)
    for index in 0..<payload.count { unsafe place[index] = payload.vectors[index] }
    return start + payload.count
  }

  /// Puts what an operation has to do next.
  private mutating func start(_ number: Int) {
    hasPut = true
    let operation = operations[number]
    let (request, done) = (operation.request, operation.done)
    switch operation.step {
    case .flush, .flushBefore, .flushAfter: ring.putFlush(number: number)
    case .discard:
      let offset = request.offset + UInt64(done)
      ring.putAllocate(
        mode: linux_punch_hole_mode, at: offset,
        byteCount: min(request.sectorCount * 512 - UInt64(done), Self.maxDiscardByteCount), number: number)
    case .transfer, .transferBetween:
      let writing = request.kind != .read
      if operation.table >= 0 {
        let (count, _) = extent(number)
        // Safe: its own table, which is nobody else's before it completes.
        unsafe ring.put(
          vectors + operation.table * Self.maxVectorCount, count: count, writing: writing, at: request.offset,
          number: number)
      } else if done == 0, request.payload.isVectored {
        unsafe ring.put(
          request.payload.vectors, count: request.payload.count, writing: writing, at: request.offset, number: number)
      } else {
        ring.put(
          request.payload.piece(after: done), writing: writing, at: request.offset + UInt64(done), number: number)
      }
    }
  }

  /// How many slices and bytes the requests merged in this operation have.
  private func extent(_ number: Int) -> (vectorCount: Int, byteCount: Int) {
    var (vectorCount, byteCount, next) = (0, 0, number)
    while next >= 0 {
      vectorCount += operations[next].request.payload.count
      byteCount += operations[next].request.payload.byteCount
      next = operations[next].next
    }
    return (vectorCount, byteCount)
  }

  // MARK: Ending

  private mutating func finish(_ number: Int, _ result: Int, _ completions: inout StoreCompletions) {
    if operations[number].table >= 0 { return finishMerged(number, result, &completions) }
    // Ended by the end of the thread that began it, or never begun: nothing of it is done.
    if result == -Int(EINTR) || result == -Int(EAGAIN) || result == -Int(ECANCELED),
      operations[number].attempts < Self.maxAttempts
    {
      operations[number].attempts += 1
      return start(number)
    }
    let step = operations[number].step
    switch step {
    case .transfer, .transferBetween:
      guard result > 0 else {
        return fail(number, result == 0 ? .endOfFile : .system(Errno(rawValue: CInt(-result))), &completions)
      }
      operations[number].done += result
      if operations[number].done < operations[number].request.payload.byteCount { return start(number) }
      if step == .transfer { return complete(number, &completions) }
      operations[number].step = .flushAfter
      start(number)
    case .flush, .flushBefore, .flushAfter:
      if result < 0 {
        image.loseWrites()
        return fail(number, .system(Errno(rawValue: CInt(-result))), &completions)
      }
      guard step == .flushBefore, operations[number].request.payload.byteCount > 0 else {
        return complete(number, &completions)
      }
      operations[number].step = .transferBetween
      start(number)
    case .discard:
      if result == -Int(EOPNOTSUPP), image.isBlockDevice { return discardByCall(number, &completions) }
      if result < 0 { return fail(number, .system(Errno(rawValue: CInt(-result))), &completions) }
      let whole = operations[number].request.sectorCount * 512
      operations[number].done += Int(min(whole - UInt64(operations[number].done), Self.maxDiscardByteCount))
      if operations[number].done < Int(whole) { start(number) } else { complete(number, &completions) }
    }
  }

  /// All of them, or each by itself, so that the one that cannot be done fails alone.
  private mutating func finishMerged(_ first: Int, _ result: Int, _ completions: inout StoreCompletions) {
    let (_, byteCount) = extent(first)
    freeTables.append(operations[first].table)
    operations[first].table = -1
    var number = first
    while number >= 0 {
      let next = operations[number].next
      operations[number].next = -1
      if result == byteCount { complete(number, &completions) } else { start(number) }
      number = next
    }
  }

  private mutating func complete(_ number: Int, _ completions: inout StoreCompletions) {
    if let bounce = operations[number].bounce { bounce.finish() }
    completions.complete(operations[number].request)
    release(number)
  }

  private mutating func fail(_ number: Int, _ fault: FileFault, _ completions: inout StoreCompletions) {
    completions.fail(operations[number].request, because: fault.words(image.path))
    release(number)
  }

  private mutating func release(_ number: Int) {
    if let bounce = operations[number].bounce {
      bounce.deallocate()
      operations[number].bounce = nil
    }
    inFlightCount -= 1
    freeOperations.append(number)
  }

  // MARK: Discards that io_uring does not do

  /// A secure one, or one on a device that can forget bytes and not zero them at the same time.
  private mutating func discardByCall(_ number: Int, _ completions: inout StoreCompletions) {
    let request = operations[number].request
    let securely: CInt = request.kind == .secureDiscard ? 1 : 0
    if linux_block_discard(image.descriptor, request.offset, request.sectorCount * 512, securely) == 0 {
      complete(number, &completions)
    } else {
      fail(number, .system(Errno(rawValue: errno)), &completions)
    }
  }
}
