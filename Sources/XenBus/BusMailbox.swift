import Synchronization
import XenPlatform

/// What a task asks of the client of a ``BusThread``.
package protocol BusCall: Sendable {
  associatedtype Answer: Sendable
  associatedtype Failure: BusCallError
  var id: UInt64 { get }
  var continuation: CheckedContinuation<Answer, any Error> { get }
}

/// How calls fail, whatever they ask for.
package protocol BusCallError: Error {
  /// There is no thread any more.
  static var notConnected: Self { get }
  /// With what was waited for.
  static func notConnectedInTime(_ report: String) -> Self
}

/// What tasks ask of the client of a ``BusThread``, and the facts that it shows them.
package final class BusMailbox<Call: BusCall, Facts: Sendable>: Sendable {
  /// The one call that ends when the device is connected.
  struct Connection: Sendable {
    let id: UInt64
    let deadline: Uptime
    let continuation: CheckedContinuation<Void, any Error>
  }

  private struct Contents {
    var calls: [Call] = []
    var cancelledIDs: [UInt64] = []
    var connection: Connection?
    /// No call is taken any more.
    var isClosed = false
    var hasEnded = false
    var waitingForEnd: [CheckedContinuation<Void, Never>] = []
    var facts: Facts

    var isEmpty: Bool { calls.isEmpty && cancelledIDs.isEmpty && connection == nil }
  }

  private let contents: Mutex<Contents>
  private let lastID = Atomic<UInt64>(0)

  init(_ facts: Facts) {
    var contents = Contents(facts: facts)
    contents.calls.reserveCapacity(64)
    contents.cancelledIDs.reserveCapacity(64)
    self.contents = Mutex(contents)
  }

  package var facts: Facts { contents.withLock { $0.facts } }

  func newID() -> UInt64 { lastID.wrappingAdd(1, ordering: .relaxed).newValue }

  // MARK: From any task

  /// Leaves the call for the thread, or fails it when there is none.
  ///
  /// - Returns: whether the thread must be woken for it: it takes everything that has come since it was woken.
  func put(_ call: Call) -> Bool {
    let wake: Bool? = contents.withLock { contents in
      if contents.isClosed { return nil }
      defer { contents.calls.append(call) }
      return contents.isEmpty
    }
    if wake == nil { call.continuation.resume(throwing: Call.Failure.notConnected) }
    return wake ?? false
  }

  /// Otherwise as ``put(_:)-(Call)``; before the mailbox is anybody else's.
  func put(_ connection: Connection) -> Bool {
    contents.withLock { contents in
      defer { contents.connection = connection }
      return contents.isEmpty
    }
  }

  /// Otherwise as ``put(_:)-(Call)``.
  func cancel(_ id: UInt64) -> Bool {
    contents.withLock { contents in
      if contents.hasEnded { return false }
      defer { contents.cancelledIDs.append(id) }
      return contents.isEmpty
    }
  }

  func close() { contents.withLock { $0.isClosed = true } }

  /// Returns when the thread is over.
  func end() async {
    await withCheckedContinuation { continuation in
      let hasEnded = contents.withLock { contents in
        if !contents.hasEnded { contents.waitingForEnd.append(continuation) }
        return contents.hasEnded
      }
      if hasEnded { continuation.resume() }
    }
  }

  // MARK: From the thread

  /// Exchanges what has come for the two empty arrays, so that neither side allocates.
  ///
  /// - Returns: whether the mailbox has been closed, and whoever has begun to wait for the connection.
  fileprivate func take(_ calls: inout [Call], _ cancelledIDs: inout [UInt64]) -> (isClosed: Bool, Connection?) {
    contents.withLock { contents in
      swap(&contents.calls, &calls)
      swap(&contents.cancelledIDs, &cancelledIDs)
      return (contents.isClosed, contents.connection.take())
    }
  }

  fileprivate func show(_ change: (inout Facts) -> Void) { contents.withLock { change(&$0.facts) } }

  fileprivate func setEnded() {
    let waiting = contents.withLock { contents in
      contents.hasEnded = true
      defer { contents.waitingForEnd = [] }
      return contents.waitingForEnd
    }
    for continuation in waiting { continuation.resume() }
  }
}

/// The thread's side of a mailbox: what its client has of it.
package struct BusMail<Call: BusCall, Facts: Sendable> {
  private let mailbox: BusMailbox<Call, Facts>
  /// Exchanged with the mailbox's.
  private var newCalls: [Call] = []
  private var newCancelledIDs: [UInt64] = []
  private var connection: BusMailbox<Call, Facts>.Connection?
  /// Whether no more calls come.
  package private(set) var isClosed = false

  package init(_ mailbox: BusMailbox<Call, Facts>) {
    self.mailbox = mailbox
    newCalls.reserveCapacity(64)
    newCancelledIDs.reserveCapacity(64)
  }

  /// Whether a task waits for the connection.
  package var awaitsConnection: Bool { connection != nil }

  /// Takes what has come since the last time: calls, and then the ids of those that are cancelled, which may have ended
  /// meanwhile.
  package mutating func take(_ admit: (Call) -> Void, cancel: (UInt64) -> Void) {
    let (isClosed, newConnection) = mailbox.take(&newCalls, &newCancelledIDs)
    self.isClosed = isClosed
    if newConnection != nil { connection = newConnection }
    for index in newCalls.indices { admit(newCalls[index]) }
    newCalls.removeAll(keepingCapacity: true)
    for id in newCancelledIDs {
      if connection?.id == id { endConnection(.failure(CancellationError())) } else { cancel(id) }
    }
    newCancelledIDs.removeAll(keepingCapacity: true)
  }

  /// Ends the call that waits for the connection, if that is there or the time is up.
  ///
  /// - Returns: when to look again.
  package mutating func answerConnection(isConnected: Bool, _ bus: Bus, now: Uptime) -> Uptime? {
    guard let connection else { return nil }
    if isConnected {
      endConnection(.success(()))
    } else if now >= connection.deadline {
      let report = bus.report.isEmpty ? "there is no such device" : bus.report.joined(separator: "; ")
      endConnection(.failure(Call.Failure.notConnectedInTime(report)))
    } else {
      return connection.deadline
    }
    return nil
  }

  private mutating func endConnection(_ result: Result<Void, any Error>) {
    connection.take()?.continuation.resume(with: result)
  }

  package func show(_ change: (inout Facts) -> Void) { mailbox.show(change) }

  /// Takes the last mail.
  package mutating func takeLast(_ admit: (Call) -> Void, cancel: (UInt64) -> Void) {
    mailbox.close()
    take(admit, cancel: cancel)
    endConnection(.failure(Call.Failure.notConnected))
  }

  /// Every call has ended: tells whoever waits for that.
  package func setEnded() { mailbox.setEnded() }
}
