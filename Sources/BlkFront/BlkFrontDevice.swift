@_exported import BlkIf
@_exported import XenRing

/// A disk of ours that a backend serves (io/blkif.h), used from one thread: the one that polls its bus.
///
/// Register it with a bus, poll that until ``isConnected``, then put requests, ``push()`` them together, and take
/// completions with ``poll(_:)``. When a backend goes away, what was in flight completes as
/// ``BlkFrontCompletion/Result/disconnected``; the device connects again when the backend comes back.
public final class BlkFrontDevice: FrontendDriver, Frontend {
  /// The most that one request can carry, in bytes.
  public static let maxByteCount = BlkIf.maxSegmentCount * xenPageSize

  public let type = "vbd"
  public let publishedState = XenbusState.initialised
  /// The disk as the backend describes it; nil before the first connection.
  public private(set) var geometry: BlockGeometry?
  /// What the two ends agreed on, at the last connection.
  public private(set) var negotiation = Negotiation()
  private var offersFlush = false
  private var offersBarrier = false
  private var queue: BlkFrontQueue?
  /// Shared with the backend, but not in use: before it has connected, and until it has let go.
  private var idleQueue: BlkFrontQueue?
  private var isPolling = false
  /// Requests whose backend went away, for the next poll to report.
  private var lostTags: [UInt64] = []
  private var device: XenbusDevice?

  public init() {}

  public var isConnected: Bool { queue != nil }

  // MARK: Requests

  /// Asks for `byteCount` bytes from `sector` on. The completion with this tag brings them.
  ///
  /// - Parameters:
  ///   - sector: in 512-byte sectors, a multiple of the disk's own.
  ///   - byteCount: a positive multiple of the disk's sector size, up to ``maxByteCount``.
  public func read(sector: UInt64, byteCount: Int, tag: UInt64) throws(BlkFrontError) {
    try check(sector: sector, byteCount: byteCount)
    try put(BlkIf.Operation.read, sector, byteCount, tag)
  }

  /// Writes `bytes` from `sector` on; they are copied before this returns. Done is not durable: see ``flush(tag:)``.
  public func write(sector: UInt64, _ bytes: Span<UInt8>, tag: UInt64) throws(BlkFrontError) {
    try write(BlkIf.Operation.write, sector, bytes, tag)
  }

  /// As ``write(sector:_:tag:)``, after all that completed before is on the medium; it is there itself when it completes.
  public func writeBarrier(sector: UInt64, _ bytes: Span<UInt8>, tag: UInt64) throws(BlkFrontError) {
    guard offersBarrier || queue == nil else { throw .notSupported("feature-barrier") }
    try write(BlkIf.Operation.writeBarrier, sector, bytes, tag)
  }

  /// Completes when all writes that completed before are on the medium.
  public func flush(tag: UInt64) throws(BlkFrontError) {
    guard offersFlush || queue == nil else { throw .notSupported("feature-flush-cache") }
    try put(BlkIf.Operation.flushDiskCache, 0, 0, tag)
  }

  private func write(_ operation: UInt8, _ sector: UInt64, _ bytes: Span<UInt8>, _ tag: UInt64) throws(BlkFrontError) {
    if geometry?.isReadOnly == true { throw .readOnlyDisk }
    try check(sector: sector, byteCount: bytes.count)
    try put(operation, sector, bytes.count, tag, bytes)
  }

  private func check(sector: UInt64, byteCount: Int) throws(BlkFrontError) {
    guard let geometry else { throw .notConnected }
    guard byteCount <= Self.maxByteCount else { throw .length(byteCount: byteCount) }
    try geometry.check(sector: sector, byteCount: byteCount)
  }

  private func put(
    _ operation: UInt8, _ sector: UInt64, _ byteCount: Int, _ tag: UInt64, _ payload: Span<UInt8>? = nil
  ) throws(BlkFrontError) {
    let put: Void? = try queue?.put(
      operation: operation, sector: sector, byteCount: byteCount, tag: tag, payload: payload)
    if put == nil { throw .notConnected }
  }

  /// Shows the backend what was put since the last time, and notifies it unless it is awake.
  public func push() { queue?.push() }

  /// Hands over what has completed, in the backend's order. Never waits.
  ///
  /// - Parameter body: may make requests and push them, but neither poll nor let the bus poll.
  /// - Returns: how many there were.
  @discardableResult
  public func poll(_ body: (BlkFrontCompletion) -> Void) -> Int {
    precondition(!isPolling, "a completion's receiver does not poll")
    isPolling = true
    defer { isPolling = false }
    let completed = handOver(body)
    guard !lostTags.isEmpty else { return completed }
    let lost = lostTags
    lostTags = []
    for tag in lost { body(BlkFrontCompletion(tag: tag, result: .disconnected, bytes: .none)) }
    return completed + lost.count
  }

  /// Each completion is handed over outside of every access to the queue, so that its receiver may make the next request.
  private func handOver(_ body: (BlkFrontCompletion) -> Void) -> Int {
    do throws(DeviceError) { try queue?.takeResponses() } catch {
      stopUsing()
      device?.report(error)
    }
    var count = 0
    while let completion = queue?.nextCompletion() {
      body(completion)
      count += 1
    }
    return count
  }

  /// Readable when ``poll(_:)`` would hand something over; nil when not connected.
  public var descriptor: CInt? { queue?.channel.descriptor }

  /// Requests put and not completed.
  public var inFlightCount: Int { (queue?.inFlightCount ?? 0) + lostTags.count }

  /// What the ring has counted; nil when not connected.
  public var statistics: RingStatistics? { queue?.statistics }

  // MARK: Frontend

  public func probe(_ device: XenbusDevice) throws(DeviceError) -> any Frontend {
    if let other = self.device, other !== device, queue != nil || idleQueue != nil {
      throw .unsupported("this disk is \(other.own.path) already; each device needs an object of its own")
    }
    return self
  }

  public func publish(_ device: XenbusDevice) throws(DeviceError) -> [StoreEntry] {
    self.device = device
    negotiation = Negotiation()
    negotiation.add("protocol", frontend: BlkIf.nativeProtocol, backend: "any", agreed: BlkIf.nativeProtocol)
    let entryCount = RingLayout.entryCount(
      byteCount: xenPageSize, stride: RingLayout.stride(BlkIfRequest.self, BlkIfResponse.self))
    let channel = try device.allocateEventChannel()
    let ringPages = try device.share(pageCount: 1)
    let dataPages = try device.share(pageCount: entryCount * BlkIf.maxSegmentCount)
    let reference = ringPages.references[0]
    idleQueue = BlkFrontQueue(
      ring: FrontRing(initialising: ringPages.takeRegion()), channel: channel, pages: dataPages)
    negotiation.add("ring slots", frontend: "\(entryCount)", backend: "any", agreed: "\(entryCount)")
    return [
      StoreEntry("ring-ref", reference.rawValue), StoreEntry("event-channel", channel.port.rawValue),
      StoreEntry("protocol", BlkIf.nativeProtocol),
    ]
  }

  public func connect(_ device: XenbusDevice) throws(DeviceError) {
    geometry = try BlockGeometry(from: device.other)
    // Not before: Linux's backend opens its device late, and offers with Connected what that can do.
    offersFlush = try device.other.flag("feature-flush-cache")
    offersBarrier = try device.other.flag("feature-barrier")
    negotiation.add("feature-flush-cache", frontend: true, backend: offersFlush)
    negotiation.add("feature-barrier", frontend: true, backend: offersBarrier)
    queue = idleQueue.take()
  }

  public func stop(_ device: XenbusDevice) { stopUsing() }

  public func release(_ device: XenbusDevice) { idleQueue = nil }

  private func stopUsing() {
    guard queue != nil else { return }
    lostTags += queue!.unansweredTags()
    idleQueue = queue.take()
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
}
