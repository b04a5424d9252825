import Synchronization

/// The first fault of its kind in one connection, on its way from the queue's thread to the bus's, which says it once: a peer
/// that has many fills nobody's log.
package final class FirstFault<Fault: Sendable>: Sendable {
  private struct Told {
    var isTold = false
    var fault: Fault?
  }

  private let told = Mutex(Told())
  private let attention: @Sendable () -> Void

  /// - Parameter attention: has the bus come and ``take()`` it (``XenbusDevice/attention``).
  package init(attention: @escaping @Sendable () -> Void) { self.attention = attention }

  /// Only the first counts.
  package func tell(_ fault: Fault) {
    let isFirst = told.withLock { told in
      guard !told.isTold else { return false }
      told = Told(isTold: true, fault: fault)
      return true
    }
    if isFirst { attention() }
  }

  /// What has been told, once.
  package func take() -> Fault? {
    told.withLock { told in
      defer { told.fault = nil }
      return told.fault
    }
  }
}
