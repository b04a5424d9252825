import Logging

/// A disk of ours for async programs: a ``BlkFrontDevice`` and its bus on a thread of their own.
///
/// Calls may be made from any number of tasks. Each is split into requests as large as the ring carries, and as many
/// of all calls are in flight together as the ring has slots and the pool has pages; what does not fit waits for its turn,
/// in the order of the calls. Calls that are under way together may be carried out in any order.
///
/// A backend that goes away and comes back, because it restarts or because it broke the protocol and the disk took leave of
/// it, is a pause to a disk and no fault: calls wait, and what the backend had of them is put again, in its place, as
/// ``BlkFrontDevice`` does it; cancel a call to wait no longer. What the disk that comes back cannot do fails. With
/// ``BlkFrontOptions/requeuesRequests`` off, calls of which the backend had a part fail with ``BlkFrontError/disconnected``
/// instead. When the device is removed, these calls fail with that, and all others with ``BlkFrontError/notConnected``.
///
/// A cancelled call withdraws what the backend does not have, waits for what it does, and then throws
/// `CancellationError`: when it has thrown, nothing of it is in flight.
///
/// A call costs two allocations, its continuation and what a read gives, however many requests it takes, and one or two more
/// that the runtime makes to resume its task (Benchmarks, `block-async`). The disk's thread takes one lock and makes no
/// allocation for everything that has come since it last looked, and is woken once for it.
///
/// When the last reference goes, the disk is closed as by ``close(within:)`` without anybody waiting for it.
public final class BlkFrontDisk: Sendable {
  private let facade: BusFacade<BlkFrontCall, BlkFrontFacts>

  /// Connects to the disk whose frontend directory this is, such as `/local/domain/1/device/vbd/51712`.
  ///
  /// - Parameters:
  ///   - options: what is asked of the backend.
  ///   - timeout: how long the connection may take.
  /// - Throws: ``BlkFrontError/notConnectedInTime(_:)``, which says what was waited for, when the backend has not connected
  ///   after `timeout`; a ``DeviceError`` when there is no store to look at.
  public static func connect(
    to frontendPath: String, on platform: any Platform, options: BlkFrontOptions = BlkFrontOptions(),
    timeout: Duration = .seconds(10), log: Logger = Logger(label: "blkfront")
  ) async throws -> BlkFrontDisk {
    let facade = try await BusFacade<BlkFrontCall, BlkFrontFacts>.connect(
      on: platform, log: log, name: "blkfront", facts: BlkFrontFacts(), timeout: timeout
    ) { (bus, mailbox) throws(XenstoreError) in
      let device = BlkFrontDevice(options)
      try bus.register(device, at: frontendPath)
      return BlkFrontCalls(device, mailbox)
    }
    return BlkFrontDisk(facade)
  }

  private init(_ facade: BusFacade<BlkFrontCall, BlkFrontFacts>) { self.facade = facade }

  /// The disk as the backend describes it, or did at the last connection. Its sector count may change.
  public var geometry: BlockGeometry { facade.facts.geometry }

  /// What the two ends agreed on, at the last connection.
  public var negotiation: Negotiation { facade.facts.negotiation }

  /// Reads `byteCount` bytes from `sector` on.
  ///
  /// - Parameters:
  ///   - sector: in 512-byte sectors, a multiple of the disk's own.
  ///   - byteCount: any positive multiple of the disk's sector size.
  /// - Throws: ``BlkFrontError``; `CancellationError`. It has then read nothing.
  public func read(sector: UInt64, byteCount: Int) async throws -> [UInt8] {
    try geometry.check(sector: sector, byteCount: byteCount)
    return try await call(.read, sector: sector, byteCount: byteCount)
  }

  /// Writes `bytes`, any positive multiple of the disk's sector size, from `sector` on. Done is not durable: see ``flush()``.
  ///
  /// - Throws: ``BlkFrontError``; `CancellationError`. Any part of it may then have been written.
  public func write(sector: UInt64, _ bytes: [UInt8]) async throws {
    let geometry = geometry
    if geometry.isReadOnly { throw BlkFrontError.readOnlyDisk }
    try geometry.check(sector: sector, byteCount: bytes.count)
    _ = try await call(.write, sector: sector, byteCount: bytes.count, bytes)
  }

  /// Returns when all writes that had returned before are on the medium.
  ///
  /// - Throws: ``BlkFrontError``, with ``BlkFrontError/notSupported(_:)`` when the backend offers no `feature-flush-cache`;
  ///   `CancellationError`.
  public func flush() async throws { _ = try await call(.flush) }

  /// Says that sectors are not needed any more, as ``BlkFrontDevice/discard(sector:sectorCount:isSecure:tag:)``.
  ///
  /// - Throws: ``BlkFrontError``, with ``BlkFrontError/notSupported(_:)`` when the backend does not offer it;
  ///   `CancellationError`.
  public func discard(sector: UInt64, sectorCount: UInt64, isSecure: Bool = false) async throws {
    _ = try await call(.discard(sectorCount: sectorCount, isSecure: isSecure), sector: sector)
  }

  /// Has the disk stand still because its domain is about to be suspended, until ``resume()``: when this returns, nothing looks at
  /// its device or its rings.
  public func suspend() async { await facade.pause() }

  /// The domain was suspended and has been resumed, here or elsewhere: the disk gives up what it had shared, which is gone, and
  /// connects again as soon as its device's directory is there. Calls wait, and what was in flight is put again, as after a restart of the backend.
  ///
  /// Without ``suspend()`` before, it may be too late for what was under way: see ``BusThread/resume()``. XenLoopback's domains
  /// can be suspended (`LoopbackDomain.suspendAndResume()`); on a real Xen nothing announces that to userspace.
  public func resume() { facade.resume() }

  /// Closes the disk from our side, as the protocol asks. Later calls and those that still wait for their turn fail with
  /// ``BlkFrontError/notConnected``, also a call whose first parts have been carried out; what is in flight ends first, but
  /// what waits for a backend to come back fails with ``BlkFrontError/disconnected``. When this returns, nothing is shared
  /// and the thread is over.
  ///
  /// - Parameter timeout: how long the backend may take to answer and to let go; after that everything is taken back, and
  ///   what was in flight fails with ``BlkFrontError/disconnected``.
  public func close(within timeout: Duration = .seconds(10)) async {
    await facade.close(within: timeout)
  }

  private func call(
    _ kind: BlkFrontCall.Kind, sector: UInt64 = 0, byteCount: Int = 0, _ bytes: [UInt8] = []
  ) async throws -> [UInt8] {
    try await facade.call { id, continuation in
      BlkFrontCall(id: id, kind: kind, sector: sector, byteCount: byteCount, bytes: bytes, continuation: continuation)
    }
  }
}
