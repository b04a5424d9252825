import Logging
import XenPlatform

/// What the facades of devices for async programs have in common: a ``BusThread``, and the mailbox of the client that works
/// on it.
package final class BusFacade<Call: BusCall, Facts: Sendable>: Sendable {
  private let mailbox: BusMailbox<Call, Facts>
  private let thread: BusThread

  /// Starts the thread, and waits for its device's connection.
  ///
  /// - Parameters:
  ///   - facts: what is shown before the client shows anything.
  ///   - setUp: as ``BusThread`` has it.
  /// - Throws: what the call's failures have as `notConnectedInTime`, with what was waited for, when there is no connection
  ///   after `timeout`; a ``DeviceError``; `CancellationError`. Nothing is left then.
  package static func connect(
    on platform: any Platform, log: Logger, name: String, facts: Facts, timeout: Duration,
    setUp: @Sendable (Bus, BusMailbox<Call, Facts>) throws(XenstoreError) -> any BusThreadClient
  ) async throws -> BusFacade {
    let facade = try BusFacade(on: platform, log: log, name: name, facts, setUp)
    let deadline = Uptime(nanoseconds: Uptime.now.nanoseconds + timeout.nanoseconds)
    do {
      try await facade.cancellable { id, continuation in
        facade.mailbox.put(BusMailbox<Call, Facts>.Connection(id: id, deadline: deadline, continuation: continuation))
      }
    } catch {
      await facade.close(within: .zero)
      throw error
    }
    return facade
  }

  private init(
    on platform: any Platform, log: Logger, name: String, _ facts: Facts,
    _ setUp: @Sendable (Bus, BusMailbox<Call, Facts>) throws(XenstoreError) -> any BusThreadClient
  ) throws(DeviceError) {
    let mailbox = BusMailbox<Call, Facts>(facts)
    self.mailbox = mailbox
    thread = try BusThread(on: platform, log: log, name: name) { (bus) throws(XenstoreError) in
      try setUp(bus, mailbox)
    }
  }

  deinit { thread.end(within: 10) }

  /// What the client has shown last.
  package var facts: Facts { mailbox.facts }

  /// Leaves the call that `makeCall` makes for the client, and waits for its end. A cancellation of the task is passed on to
  /// the client, which decides when the call ends.
  package func call(
    _ makeCall: (UInt64, CheckedContinuation<Call.Answer, any Error>) -> Call
  ) async throws -> Call.Answer {
    try await cancellable { id, continuation in mailbox.put(makeCall(id, continuation)) }
  }

  /// - Parameter put: leaves the call; gives whether the thread must be woken for it.
  private func cancellable<Answer: Sendable>(
    _ put: (UInt64, CheckedContinuation<Answer, any Error>) -> Bool
  ) async throws -> Answer {
    try Task.checkCancellation()
    let id = mailbox.newID()
    return try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        if put(id, continuation) { thread.wake() }
        // A cancellation that came between the check and the call found nothing to cancel.
        if Task.isCancelled { cancel(id) }
      }
    } onCancel: {
      cancel(id)
    }
  }

  private func cancel(_ id: UInt64) { if mailbox.cancel(id) { thread.wake() } }

  /// Returns when the thread polls nothing any more, until ``resume()``.
  package func pause() async {
    await withCheckedContinuation { continuation in thread.pause { continuation.resume() } }
  }

  package func resume() { thread.resume() }

  /// Takes no more calls, has the thread end as ``BusThread/end(within:)`` does, and waits for that.
  package func close(within timeout: Duration) async {
    mailbox.close()
    thread.end(within: Double(timeout.nanoseconds) / 1e9)
    await mailbox.end()
  }
}

extension Duration {
  /// At most some three hundred years.
  fileprivate var nanoseconds: UInt64 {
    let (seconds, attoseconds) = components
    guard seconds >= 0, attoseconds >= 0 else { return 0 }
    return UInt64(min(seconds, 1 << 33)) * 1_000_000_000 + UInt64(attoseconds / 1_000_000_000)
  }
}
