import BlkIf

/// The calls of a ``BlkFrontDisk`` on their way through its device; it lives on the disk's thread.
///
/// A part's tag is its call's place in the table, and the sector of the call with which it begins.
final class BlkFrontCalls: BusThreadClient {
  private let device: BlkFrontDevice
  private var mail: BusMail<BlkFrontCall, BlkFrontFacts>
  private var calls: [BlkFrontCall?] = []
  private var freePlaces: [Int] = []
  /// The calls with parts to put, in their order, from `lineStart` on. One that has ended meanwhile stays until its turn,
  /// when its place may be another's.
  private var line: [(place: Int, id: UInt64)] = []
  private var lineStart = 0
  private var shown = BlkFrontFacts()
  private var workDone: UInt64 = 0

  init(_ device: BlkFrontDevice, _ mailbox: BusMailbox<BlkFrontCall, BlkFrontFacts>) {
    (self.device, mail) = (device, BusMail(mailbox))
  }

  var workCount: UInt64? { workDone }

  var isIdle: Bool { freePlaces.count == calls.count && !mail.awaitsConnection }

  var hasWork: Bool { device.hasWork }

  func appendDescriptors(to list: inout [CInt]) { if let descriptor = device.descriptor { list.append(descriptor) } }

  func poll(_ bus: Bus, now: Uptime, looks: Bool) -> PollOutcome {
    device.poll(looks: looks) { complete($0) }
    showConnection()
    mail.take({ admit($0) }, cancel: { cancel($0) })
    let deadline = mail.answerConnection(isConnected: device.isConnected, bus, now: now)
    if mail.isClosed, !device.isConnected { giveUpWaiting() }
    if mail.isClosed || (!device.isConnected && bus.isEmpty && !mail.awaitsConnection) { failLine(.notConnected) }
    putParts()
    device.push()
    return deadline.map { .idleUntil($0) } ?? .idle
  }

  private func showConnection() {
    guard let geometry = device.geometry, geometry != shown.geometry || device.negotiation != shown.negotiation
    else { return }
    shown = BlkFrontFacts(geometry: geometry, negotiation: device.negotiation)
    mail.show { $0 = shown }
  }

  private func admit(_ call: BlkFrontCall) {
    workDone &+= 1
    let place: Int
    if let free = freePlaces.popLast() {
      place = free
      calls[place] = call
    } else {
      place = calls.count
      calls.append(call)
    }
    line.append((place, call.id))
  }

  /// One that has ended meanwhile is in nobody's way.
  private func cancel(_ id: UInt64) {
    guard let place = calls.firstIndex(where: { $0?.id == id }) else { return }
    calls[place]!.inFlightCount -= device.withdrawKept { $0 >> 32 == UInt64(place) }
    fail(place, CancellationError())
    // Its turn may never come: whoever asks with a time limit, and again, must not leave more in the line each time.
    if let index = line[lineStart...].firstIndex(where: { $0.id == id }) { line.remove(at: index) }
  }

  // MARK: Parts

  /// Puts parts of the calls in their order until the ring or the pool is full.
  private func putParts() {
    guard device.isConnected else { return }
    while lineStart < line.count {
      let (place, id) = line[lineStart]
      guard calls[place]?.id != id || putParts(of: place) else { break }
      lineStart += 1
    }
    // Not each time: the line may never be empty.
    guard lineStart == line.count || lineStart > 256 else { return }
    line.removeSubrange(..<lineStart)
    lineStart = 0
  }

  /// - Returns: false when the ring or the pool is full and the call has parts left.
  private func putParts(of place: Int) -> Bool {
    while let call = calls[place], call.failure == nil, !call.isPut {
      // What a request may carry can be another number after each connection.
      let part = call.nextPart(maxByteCount: device.maxByteCount)
      do throws(BlkFrontError) { try put(call, part, place) } catch {
        if case .busy = error { return false }
        fail(place, error)
        return true
      }
      calls[place]!.isPut = part.upperBound == call.byteCount
      calls[place]!.putByteCount = part.upperBound
      calls[place]!.inFlightCount += 1
    }
    return true
  }

  private func put(_ call: BlkFrontCall, _ part: Range<Int>, _ place: Int) throws(BlkFrontError) {
    let first = UInt64(part.lowerBound / BlkIf.sectorByteCount)
    let tag = UInt64(place) << 32 | first
    let sector = call.sector + first
    switch call.kind {
    case .read: try device.read(sector: sector, byteCount: part.count, tag: tag)
    case .write: try device.write(sector: sector, call.bytes.span.extracting(part), tag: tag)
    case .flush: try device.flush(tag: tag)
    case .discard(let count, let isSecure):
      try device.discard(sector: sector, sectorCount: count, isSecure: isSecure, tag: tag)
    }
  }

  private func complete(_ completion: BlkFrontCompletion) {
    workDone &+= 1
    let (place, sector) = (Int(completion.tag >> 32), Int(completion.tag & 0xFFFF_FFFF))
    calls[place]!.inFlightCount -= 1
    switch completion.result {
    case .succeeded: calls[place]!.keep(completion, at: sector * BlkIf.sectorByteCount)
    case .failed: stop(place, BlkFrontError.failed)
    case .notSupported: stop(place, BlkFrontError.notSupported("the operation"))
    case .disconnected: stop(place, BlkFrontError.disconnected)
    }
    endIfDone(place)
  }

  // MARK: Ends

  /// Puts no more of the call; it ends with `error`, or with what it failed with before, when nothing of it is in flight.
  private func fail(_ place: Int, _ error: any Error) {
    stop(place, error)
    endIfDone(place)
  }

  private func stop(_ place: Int, _ error: any Error) {
    if calls[place]!.failure == nil { calls[place]!.failure = error }
  }

  private func endIfDone(_ place: Int) {
    guard let call = calls[place], call.inFlightCount == 0, call.failure != nil || call.isPut
    else { return }
    end(place)
  }

  private func end(_ place: Int) {
    guard let call = calls[place] else { return }
    calls[place] = nil
    freePlaces.append(place)
    if let failure = call.failure {
      call.continuation.resume(throwing: failure)
    } else {
      call.continuation.resume(returning: call.result)
    }
  }

  /// Whoever closes the disk does not wait for a backend to come back.
  private func giveUpWaiting() {
    for place in calls.indices where calls[place] != nil {
      let count = device.withdrawKept { $0 >> 32 == UInt64(place) }
      guard count > 0 else { continue }
      calls[place]!.inFlightCount -= count
      fail(place, BlkFrontError.disconnected)
    }
  }

  /// Fails everything that still has parts to put.
  private func failLine(_ error: BlkFrontError) {
    for (place, id) in line[lineStart...] where calls[place]?.id == id { fail(place, error) }
    line.removeAll(keepingCapacity: true)
    lineStart = 0
  }

  func ended() {
    mail.takeLast({ admit($0) }, cancel: { cancel($0) })
    for place in calls.indices {
      guard let call = calls[place] else { continue }
      stop(place, call.inFlightCount > 0 ? BlkFrontError.disconnected : .notConnected)
      end(place)
    }
    mail.setEnded()
  }
}

/// What a disk's thread shows of it.
struct BlkFrontFacts: Sendable {
  var geometry = BlockGeometry(sectorCount: 0)
  var negotiation = Negotiation()
}

extension BlkFrontError: BusCallError {}

/// One call on a ``BlkFrontDisk``, and how far it has come.
struct BlkFrontCall: BusCall {
  typealias Failure = BlkFrontError

  enum Kind {
    case read, write, flush
    case discard(sectorCount: UInt64, isSecure: Bool)
  }

  let id: UInt64
  let kind: Kind
  let sector: UInt64
  let byteCount: Int
  /// A write's payload; what a read has brought so far.
  private(set) var bytes: [UInt8]
  let continuation: CheckedContinuation<[UInt8], any Error>
  /// Of its bytes, those that parts have been put for; and whether there is nothing more to put.
  var putByteCount = 0
  var isPut = false
  /// Parts that have not completed.
  var inFlightCount = 0
  /// Why no further part is put, and what the call ends with when none is in flight.
  var failure: (any Error)?

  init(
    id: UInt64, kind: Kind, sector: UInt64, byteCount: Int, bytes: [UInt8],
    continuation: CheckedContinuation<[UInt8], any Error>
  ) {
    (self.id, self.kind, self.sector, self.byteCount) = (id, kind, sector, byteCount)
    (self.bytes, self.continuation) = (bytes, continuation)
  }

  /// The bytes of the part to put next: as many as a request can carry. A flush is one part without bytes.
  func nextPart(maxByteCount: Int) -> Range<Int> { putByteCount..<min(byteCount, putByteCount + maxByteCount) }

  /// Takes in what a part of a read has brought.
  ///
  /// - Parameter start: where in the call it begins, in bytes.
  mutating func keep(_ completion: BlkFrontCompletion, at start: Int) {
    guard completion.byteCount > 0, failure == nil else { return }
    if completion.byteCount == byteCount {
      bytes = completion.copied()
      return
    }
    if bytes.isEmpty { bytes = [UInt8](repeating: 0, count: byteCount) }
    var whole = bytes.mutableSpan
    completion.copy(to: &whole, at: start)
  }

  /// What the call gives when it succeeds.
  var result: [UInt8] { if case .read = kind { bytes } else { [] } }
}
