import Logging

/// A disk of ours for async programs: a ``BlkFrontDevice`` and its bus on a thread of their own.
///
/// Calls may be made from any number of tasks. Each is split into requests as large as the ring carries, and as many
/// of all calls are in flight together as the ring has slots and the pool has pages; what does not fit waits for its turn,
/// in the order of the calls. Calls that are under way together may be carried out in any order.
///
/// When the backend goes away, calls of which it had a part fail with ``BlkFrontError/disconnected``: whether that part
/// was carried out is not known, and whoever asked knows whether it may be repeated. Calls that it had nothing of, and later
/// ones, wait until it is back, because a backend that restarts is a pause to a disk and no fault; cancel a call to wait
/// no longer. The same goes for a backend that breaks the protocol, which the disk takes leave of: it is back when it offers
/// the device anew. They fail with ``BlkFrontError/notConnected`` when the device is removed.
///
/// A cancelled call withdraws what the backend does not have yet, waits for what it does, and then throws
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
  ///   - layout: as ``BlkFrontDevice/init(protocol:poolPageCount:)`` takes it.
  ///   - poolPageCount: as well.
  /// - Throws: ``BlkFrontError/notConnectedInTime(_:)``, which says what was waited for, when the backend has not connected
  ///   after `timeout`; a ``DeviceError`` when there is no store to look at.
  public static func connect(
    to frontendPath: String, on platform: any Platform, protocol layout: BlkProtocol = .native,
    poolPageCount: Int = BlkFrontDevice.defaultPoolPageCount, timeout: Duration = .seconds(10),
    log: Logger = Logger(label: "blkfront")
  ) async throws -> BlkFrontDisk {
    let facade = try await BusFacade<BlkFrontCall, BlkFrontFacts>.connect(
      on: platform, log: log, name: "blkfront", facts: BlkFrontFacts(), timeout: timeout
    ) { (bus, mailbox) throws(XenstoreError) in
      let device = BlkFrontDevice(protocol: layout, poolPageCount: poolPageCount)
      try bus.register(device, at: frontendPath)
      return BlkFrontCalls(device, mailbox)
    }
    return BlkFrontDisk(facade)
  }

  private init(_ facade: BusFacade<BlkFrontCall, BlkFrontFacts>) { self.facade = facade }

  /// The disk as the backend described it at the last connection.
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

  /// Closes the disk from our side, as the protocol asks. Later calls and those that still wait for their turn fail with
  /// ``BlkFrontError/notConnected``, also a call whose first parts have been carried out; what is in flight ends first. When this returns, nothing is shared and the thread is
  /// over.
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
