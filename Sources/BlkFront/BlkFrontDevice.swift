@_exported import BlkIf
@_exported import XenRing

/// A disk of ours that a backend serves (io/blkif.h), used from one thread: the one that polls its bus.
///
/// Register it with a bus, poll that until ``isConnected``, then put requests, ``push()`` them together, and take
/// completions with ``poll(looks:_:)``.
///
/// When a backend goes away the device connects again as soon as it comes back, and what was in flight is then put again,
/// in the order in which it was asked for and before anything new: it completes once, after a pause. What cannot be asked
/// of the disk that came back fails. When the device is removed, or the bus takes leave of it, nobody will answer, and it
/// completes as ``BlkFrontCompletion/Result/disconnected``. With ``BlkFrontOptions/requeuesRequests`` off it completes so
/// at once.
///
/// What a backend has completed must stay done for that: what a killed one had in a memory of its own, not flushed, no
/// later flush can make durable.
public final class BlkFrontDevice: FrontendDriver, Frontend {
  /// The most that a direct request can carry, in bytes, and so every connected device.
  public static let maxDirectByteCount = BlkIf.maxSegmentCount * xenPageSize

  public let type = "vbd"
  public let publishedState = XenbusState.initialised
  public let options: BlkFrontOptions
  /// The disk as the backend describes it; nil before the first connection. Its sector count may change while it is
  /// connected.
  public private(set) var geometry: BlockGeometry?
  /// What the two ends agreed on, at the last connection.
  public private(set) var negotiation = Negotiation()
  /// The most that one request can carry, in bytes: at the last connection, but never less than ``maxDirectByteCount``.
  public private(set) var maxByteCount = BlkFrontDevice.maxDirectByteCount
  private var offersFlush = false
  private var offersBarrier = false
  private var queues: BlkFrontQueues?
  /// Shared with the backend, but not in use: before it has connected, and until it has let go.
  private var idleQueues: BlkFrontQueues?
  private var isPolling = false
  /// Nothing of one request is to be seen in a page of another.
  private var isUntrusted = false
  private var kept = BlkFrontKept()
  private var lastSequence: UInt64 = 0
  private let keptPieces = SharedPieceTable(capacity: 1)
  /// Requests that nobody will answer, for the next poll to report.
  private var lostTags: [UInt64] = []
  /// Whether there is either: a plain word, since a poll has to look each time.
  private var hasUnfinished = false
  private var refusedChange: DeviceError?
  private var device: XenbusDevice?

  /// - Precondition: the options are within their ranges.
  public init(_ options: BlkFrontOptions = BlkFrontOptions()) {
    precondition(options.areValid, "options within their ranges")
    self.options = options
  }

  public var isConnected: Bool { queues != nil }

  // MARK: Requests

  /// Asks for `byteCount` bytes from `sector` on. The completion with this tag brings them.
  ///
  /// - Parameters:
  ///   - sector: in 512-byte sectors, a multiple of the disk's own.
  ///   - byteCount: a positive multiple of the disk's sector size, up to ``maxByteCount``.
  public func read(sector: UInt64, byteCount: Int, tag: UInt64) throws(BlkFrontError) {
    try put(BlkFrontRequest(operation: BlkIf.Operation.read, sector: sector, byteCount: byteCount, tag: tag))
  }

  /// Writes `bytes` from `sector` on; they are copied before this returns. Done is not durable: see ``flush(tag:)``.
  public func write(sector: UInt64, _ bytes: Span<UInt8>, tag: UInt64) throws(BlkFrontError) {
    try put(
      BlkFrontRequest(operation: BlkIf.Operation.write, sector: sector, byteCount: bytes.count, tag: tag), bytes)
  }

  /// The same without a copy: `fill` puts the bytes where the backend takes them from.
  ///
  /// - Parameter fill: is called once, unless this throws, with `byteCount` bytes, all of which it sets: what is there before
  ///   are bytes of other requests. It uses no call of this device.
  public func write(
    sector: UInt64, byteCount: Int, tag: UInt64, fill: (SharedPieces) -> Void
  ) throws(BlkFrontError) {
    try put(BlkFrontRequest(operation: BlkIf.Operation.write, sector: sector, byteCount: byteCount, tag: tag), fill)
  }

  /// As ``write(sector:_:tag:)``, after all that was asked for before, and before all that is asked for after it; when it
  /// completes, its bytes and all that was written before are on the medium. At most ``maxDirectByteCount``. On several
  /// queues it is `.busy` while more than one of them has requests in flight.
  public func writeBarrier(sector: UInt64, _ bytes: Span<UInt8>, tag: UInt64) throws(BlkFrontError) {
    try checkBarrier(byteCount: bytes.count)
    try put(
      BlkFrontRequest(operation: BlkIf.Operation.writeBarrier, sector: sector, byteCount: bytes.count, tag: tag), bytes)
  }

  /// The same without a copy, as ``write(sector:byteCount:tag:fill:)``.
  public func writeBarrier(
    sector: UInt64, byteCount: Int, tag: UInt64, fill: (SharedPieces) -> Void
  ) throws(BlkFrontError) {
    try checkBarrier(byteCount: byteCount)
    try put(
      BlkFrontRequest(operation: BlkIf.Operation.writeBarrier, sector: sector, byteCount: byteCount, tag: tag), fill)
  }

  /// Completes when all writes that completed before are on the medium.
  public func flush(tag: UInt64) throws(BlkFrontError) {
    guard offersFlush || queues == nil else { throw .notSupported("feature-flush-cache") }
    try put(BlkFrontRequest(operation: BlkIf.Operation.flushDiskCache, tag: tag))
  }

  /// Says that sectors are not needed any more; what they read as afterwards is anything (`BLKIF_OP_DISCARD`).
  ///
  /// - Parameters:
  ///   - sector: in 512-byte sectors, a multiple of the disk's own.
  ///   - sectorCount: the same, positive, and as many as there are.
  ///   - isSecure: what they hold must not be readable by anybody afterwards (`discard-secure`).
  public func discard(sector: UInt64, sectorCount: UInt64, isSecure: Bool = false, tag: UInt64) throws(BlkFrontError) {
    guard let geometry, isConnected else { throw .notConnected }
    if geometry.isReadOnly { throw .readOnlyDisk }
    guard let limits = geometry.discard else { throw .notSupported("feature-discard") }
    guard !isSecure || limits.isSecure else { throw .notSupported("discard-secure") }
    try geometry.check(sector: sector, sectorCount: sectorCount)
    try put(
      BlkFrontRequest(
        operation: BlkIf.Operation.discard, flag: isSecure ? BlkIf.discardSecure : 0, sector: sector,
        sectorCount: sectorCount, tag: tag))
  }

  private func checkBarrier(byteCount: Int) throws(BlkFrontError) {
    guard offersBarrier || queues == nil else { throw .notSupported("feature-barrier") }
    guard byteCount <= Self.maxDirectByteCount else { throw .length(byteCount: byteCount) }
  }

  // Inlined, as what it calls: for a read there is no payload to look for.
  @inline(__always) private func put(
    _ request: BlkFrontRequest, _ payload: Span<UInt8>? = nil
  ) throws(BlkFrontError) {
    let put: Void? = try queues?.put(request, payload: payload)
    if put == nil { throw .notConnected }
  }

  @inline(__always) private func put(
    _ request: BlkFrontRequest, _ fill: (SharedPieces) -> Void
  ) throws(BlkFrontError) {
    let put: Void? = try queues?.put(request, fill: fill)
    if put == nil { throw .notConnected }
  }

  /// Shows the backend what was put since the last time, and notifies it unless it is awake.
  public func push() { queues?.push() }

  /// Hands over what has completed, in the backend's order. Never waits.
  ///
  /// - Parameters:
  ///   - looks: whether the caller goes on looking at ``hasWork`` when there is nothing more. Then the backend is not asked for an
  ///     event, which it would send for nothing; so poll without this before you sleep on ``descriptor``.
  ///   - body: may make requests and push them, but neither poll nor let the bus poll.
  /// - Returns: how many there were.
  @discardableResult
  public func poll(looks: Bool = false, _ body: (BlkFrontCompletion) -> Void) -> Int {
    precondition(!isPolling, "a completion's receiver does not poll")
    isPolling = true
    defer { isPolling = false }
    takeResponses(looks)
    let completed = handOver(body)
    return hasUnfinished ? completed + handOverUnfinished(body) : completed
  }

  /// Each completion is handed over outside of every access to the queues, so that its receiver may make the next request.
  private func handOver(_ body: (BlkFrontCompletion) -> Void) -> Int {
    var count = 0
    while let completion = queues?.nextCompletion() ?? nil {
      if completion.request.partOffset != nil {
        kept.settle(completion)
        continue
      }
      body(completion)
      count += 1
    }
    return count
  }

  @inline(__always) private func takeResponses(_ looks: Bool) {
    do throws(DeviceError) { try queues?.takeResponses(looks: looks) } catch {
      stopUsing()
      device?.report(error)
    }
  }

  /// Whether ``poll(looks:_:)`` would find something, by a look at memory alone: for whoever waits without asking for events.
  public var hasWork: Bool { queues?.hasWork ?? false }

  /// What was in flight with another backend, and what nobody will answer.
  private func handOverUnfinished(_ body: (BlkFrontCompletion) -> Void) -> Int {
    let completed = kept.isEmpty ? 0 : goOnWithKept(body)
    let lost = lostTags
    lostTags = []
    noteUnfinished()
    for tag in lost { body(BlkFrontCompletion(lost: tag)) }
    return completed + lost.count
  }

  private func noteUnfinished() { hasUnfinished = !kept.isEmpty || !lostTags.isEmpty }

  /// Readable when ``poll(looks:_:)`` would hand something over; nil when not connected.
  public var descriptor: CInt? { queues?.descriptor }

  /// Requests put and not completed.
  public var inFlightCount: Int {
    let parts = kept.isEmpty ? 0 : kept.partsInFlight
    return (queues?.inFlightCount ?? 0) - parts + kept.count + lostTags.count
  }

  /// What the rings have counted, together; nil when not connected.
  public var statistics: RingStatistics? { queues?.statistics }

  // MARK: What was in flight with another backend

  /// Puts what there is room for now, and hands over what has ended.
  private func goOnWithKept(_ body: (BlkFrontCompletion) -> Void) -> Int {
    putKept()
    var count = 0
    while let (completion, memory) = kept.nextEnded(keptPieces) {
      body(completion)
      withExtendedLifetime(memory) {}
      count += 1
    }
    return count
  }

  private func putKept() {
    guard var queues = queues.take() else { return }
    kept.put(on: &queues, maxByteCount: maxByteCount) { objection(to: $0) }
    queues.isHeldBack = !kept.isPut
    queues.push()
    self.queues = consume queues
  }

  /// What the disk as it is now has against a request that another backend had taken.
  private func objection(to request: BlkFrontRequest) -> BlkFrontCompletion.Result? {
    guard let geometry else { return .failed }
    if geometry.isReadOnly, request.isWrite || request.operation == BlkIf.Operation.discard { return .failed }
    switch request.operation {
    case BlkIf.Operation.flushDiskCache: return offersFlush ? nil : .notSupported
    case BlkIf.Operation.writeBarrier where !offersBarrier: return .notSupported
    case BlkIf.Operation.discard:
      guard let limits = geometry.discard, request.flag & BlkIf.discardSecure == 0 || limits.isSecure else {
        return .notSupported
      }
      return (try? geometry.check(sector: request.sector, sectorCount: request.sectorCount)) == nil ? .failed : nil
    default: return (try? geometry.check(sector: request.sector, byteCount: request.byteCount)) == nil ? .failed : nil
    }
  }

  /// Waits no longer for those that wait for a backend, and whose tags `isUnwanted`; they complete no more.
  ///
  /// - Returns: how many those are.
  func withdrawKept(_ isUnwanted: (UInt64) -> Bool) -> Int {
    defer { noteUnfinished() }
    return kept.isEmpty ? 0 : kept.remove(isUnwanted)
  }

  // MARK: Frontend

  public func probe(_ device: XenbusDevice) throws(DeviceError) -> any Frontend {
    if let other = self.device, other !== device, queues != nil || idleQueues != nil {
      throw .unsupported("this disk is \(other.own.path) already; each device needs an object of its own")
    }
    return self
  }

  public func publish(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    self.device = device
    negotiation = Negotiation()
    negotiation.add("protocol", frontend: options.layout.rawValue, backend: "any", agreed: options.layout.rawValue)
    isUntrusted = try device.own.optionalNumber("trusted", as: UInt32.self) ?? 1 == 0
    let rings = try BlkFrontRings(device, options, offered: try BlkBackendOffer(from: device.other))
    rings.report(in: &negotiation)
    let entries = try rings.staleEntries(device.own) + rings.entries
    idleQueues = rings.makeQueues(lastSequence: lastSequence)
    return entries
  }

  public func connect(_ device: XenbusDevice) throws(DeviceError) {
    let keys = try BlkBackendKeys(from: device.other, in: options.sectorUnits)
    guard var queues = idleQueues.take() else { preconditionFailure("published before it is connected") }
    let asked = options.maxIndirectSegmentCount
    let carried = min(asked, BlkFrontQueue.maxSegmentCount(poolPageCount: queues.poolPageCount))
    let segmentCount = min(carried, keys.maxIndirectSegmentCount)
    let maxSegmentCount = max(segmentCount, BlkIf.maxSegmentCount)
    queues.begin(
      keys.geometry,
      BlkFrontLimits(
        keys.geometry, maxSegmentCount: maxSegmentCount, units: options.sectorUnits, isUntrusted: isUntrusted))
    geometry = keys.geometry
    (offersFlush, offersBarrier) = (keys.offersFlush, keys.offersBarrier)
    maxByteCount = maxSegmentCount * xenPageSize
    refusedChange = nil
    self.queues = consume queues
    report(keys, segmentCount: segmentCount, carried: carried)
    if !kept.isEmpty { putKept() }
  }

  private func report(_ keys: BlkBackendKeys, segmentCount: Int, carried: Int) {
    let asked = options.maxIndirectSegmentCount
    negotiation.add("feature-persistent", frontend: options.usesPersistentGrants, backend: keys.offersPersistentGrants)
    let isIndirect = segmentCount > BlkIf.maxSegmentCount
    let reason =
      if asked <= BlkIf.maxSegmentCount {
        "the frontend does not use it"
      } else if keys.maxIndirectSegmentCount == 0 {
        "the backend does not offer it"
      } else if keys.maxIndirectSegmentCount <= BlkIf.maxSegmentCount, carried > keys.maxIndirectSegmentCount {
        "the backend offers no more than a direct request carries"
      } else if segmentCount == carried, carried < asked {
        "the pool has pages for no more"
      } else if keys.maxIndirectSegmentCount < asked {
        "the backend offers no more"
      } else if keys.maxIndirectSegmentCount > asked {
        "the frontend asks for no more"
      } else {
        ""
      }
    negotiation.add(
      "feature-max-indirect-segments", frontend: "\(asked)", backend: "\(keys.maxIndirectSegmentCount)",
      agreed: isIndirect ? "\(segmentCount)" : "off", reason: reason)
    negotiation.add("feature-flush-cache", frontend: true, backend: keys.offersFlush)
    negotiation.add("feature-barrier", frontend: true, backend: keys.offersBarrier)
    negotiation.add("feature-discard", frontend: true, backend: keys.geometry.discard != nil)
    negotiation.add("discard-secure", frontend: true, backend: keys.geometry.discard?.isSecure == true)
    negotiation.add(
      "trusted", frontend: isUntrusted ? "0" : "1", backend: "not asked", agreed: isUntrusted ? "0" : "1",
      reason: isUntrusted ? "the toolstack does not trust the backend: each page is cleared before it is used" : "")
    if keys.hasLargeSectorSize {
      negotiation.add(
        "feature-large-sector-size", frontend: "no", backend: "yes", agreed: "off",
        reason: "it is deprecated, and means another thing to each who has it: give sectorUnits if the disk needs it")
    }
  }

  /// The disk has another size (io/blkif.h, `sectors`), or so its backend says.
  public func otherEndChanged(_ device: XenbusDevice) throws(DeviceError) {
    guard isConnected, let geometry else { return }
    do throws(DeviceError) {
      let now = try BlockGeometry(from: device.other, in: options.sectorUnits)
      guard now.sectorByteCount == geometry.sectorByteCount else {
        throw .unsupported(
          "the backend has changed sector-size from \(geometry.sectorByteCount) to \(now.sectorByteCount) while connected"
        )
      }
      refusedChange = nil
      guard now.sectorCount != geometry.sectorCount else { return }
      device.log.notice("\(device.own.path): the disk has \(now.sectorCount) sectors, and had \(geometry.sectorCount)")
      self.geometry?.sectorCount = now.sectorCount
      queues?.geometry.sectorCount = now.sectorCount
    } catch {
      // Said once, and the disk stays as it was.
      if refusedChange != error { device.warn(error) }
      refusedChange = error
    }
  }

  public func stop(_ device: XenbusDevice) { stopUsing() }

  public func release(_ device: XenbusDevice) { idleQueues = nil }

  public func forget(_ device: XenbusDevice) {
    lostTags += kept.tags
    kept.removeAll()
    noteUnfinished()
  }

  private func stopUsing() {
    guard let queues = queues.take() else { return }
    lastSequence = queues.lastSequence
    kept.take(queues)
    idleQueues = consume queues
    if !options.requeuesRequests {
      lostTags += kept.tags
      kept.removeAll()
    }
    noteUnfinished()
  }
}

extension BlockGeometry {
  /// - Throws: `.length` or `.outsideDisk` when these are no sectors of the disk's.
  func check(sector: UInt64, byteCount: Int) throws(BlkFrontError) {
    guard byteCount > 0, byteCount % Int(sectorByteCount) == 0 else { throw .length(byteCount: byteCount) }
    let count = byteCount / BlkIf.sectorByteCount
    guard contains(sector: sector, count: UInt64(count)), isAligned(sector: sector, count: 0) else {
      throw .outsideDisk(sector: sector, count: count)
    }
  }

  /// - Throws: `.outsideDisk` when these are no sectors of the disk's.
  func check(sector: UInt64, sectorCount: UInt64) throws(BlkFrontError) {
    guard sectorCount > 0, contains(sector: sector, count: sectorCount), isAligned(sector: sector, count: sectorCount)
    else { throw .outsideDisk(sector: sector, count: Int(clamping: sectorCount)) }
  }
}
