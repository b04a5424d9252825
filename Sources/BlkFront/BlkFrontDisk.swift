import Logging
import Synchronization

/// A disk of ours for async programs: a ``BlkFrontDevice`` and its bus on a thread of their own.
///
/// Calls may be made from any number of tasks. Each is split into requests as large as the ring carries, and as many
/// of all calls are in flight together as the ring has slots and the pool has pages; what does not fit waits for its turn,
/// in the order of the calls. Calls that are under way together may be carried out in any order.
///
/// When the backend goes away, calls of which it had a part fail with ``BlkFrontError/disconnected``: whether that part
/// was carried out is not known, and whoever asked knows whether it may be repeated. Calls that it had nothing of, and later
/// ones, wait until it is back, because a backend that restarts is a pause to a disk and no fault; cancel a call to wait
/// no longer. They fail with ``BlkFrontError/notConnected`` when the device is removed.
///
/// A cancelled call withdraws what the backend does not have yet, waits for what it does, and then throws
/// `CancellationError`: when it has thrown, nothing of it is in flight.
///
/// When the last reference goes, the disk is closed as by ``close(within:)`` without anybody waiting for it.
public final class BlkFrontDisk: Sendable {
  private let mailbox: BlkFrontMailbox
  private let thread: BusThread

  /// Connects to the disk whose frontend directory this is, such as `/local/domain/1/device/vbd/51712`.
  ///
  /// - Throws: ``BlkFrontError/notConnectedInTime(_:)``, which says what was waited for, when the backend has not connected
  ///   after `timeout`; a ``DeviceError`` when there is no store to look at.
  public static func connect(
    to frontendPath: String, on platform: any Platform, timeout: Duration = .seconds(10),
    log: Logger = Logger(label: "blkfront")
  ) async throws -> BlkFrontDisk {
    let disk = try BlkFrontDisk(frontendPath, on: platform, log: log)
    let deadline = Uptime(nanoseconds: Uptime.now.nanoseconds + timeout.nanoseconds)
    do { _ = try await disk.call(.connection(before: deadline)) } catch {
      await disk.close(within: .zero)
      throw error
    }
    return disk
  }

  private init(_ frontendPath: String, on platform: any Platform, log: Logger) throws(DeviceError) {
    let mailbox = BlkFrontMailbox()
    self.mailbox = mailbox
    thread = try BusThread(on: platform, log: log, name: "blkfront") { (bus) throws(XenstoreError) in
      let device = BlkFrontDevice()
      try bus.register(device, at: frontendPath)
      return BlkFrontCalls(device, mailbox)
    }
  }

  deinit { thread.end(within: 1) }

  /// The disk as the backend described it at the last connection.
  public var geometry: BlockGeometry { mailbox.geometry }

  /// What the two ends agreed on, at the last connection.
  public var negotiation: Negotiation { mailbox.negotiation }

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
  /// ``BlkFrontError/notConnected``; what is in flight ends first. When this returns, nothing is shared and the thread is
  /// over.
  ///
  /// - Parameter timeout: how long the backend may take to answer and to let go; after that everything is taken back, and
  ///   what was in flight fails with ``BlkFrontError/disconnected``.
  public func close(within timeout: Duration = .seconds(10)) async {
    mailbox.close()
    thread.end(within: Double(timeout.nanoseconds) / 1e9)
    await mailbox.end()
  }

  private func call(
    _ kind: BlkFrontCall.Kind, sector: UInt64 = 0, byteCount: Int = 0, _ bytes: [UInt8] = []
  ) async throws -> [UInt8] {
    try Task.checkCancellation()
    let id = mailbox.newID()
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        put(
          BlkFrontCall(
            id: id, kind: kind, sector: sector, byteCount: byteCount, bytes: bytes, continuation: continuation))
        // A cancellation that came between the check and the call found nothing to cancel.
        if Task.isCancelled { cancel(id) }
      }
    } onCancel: {
      cancel(id)
    }
  }

  private func put(_ call: BlkFrontCall) { if mailbox.put(call) { thread.wake() } }

  private func cancel(_ id: UInt64) { if mailbox.cancel(id) { thread.wake() } }
}

extension Duration {
  /// At most some three hundred years.
  fileprivate var nanoseconds: UInt64 {
    let (seconds, attoseconds) = components
    guard seconds >= 0, attoseconds >= 0 else { return 0 }
    return UInt64(min(seconds, 1 << 33)) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
  }
}
