import NetIf
import Synchronization

/// The first packet of a connection that was refused, on its way from the queue's thread to the bus's.
final class NetBackRefusal: Sendable {
  private struct Told {
    var isTold = false
    var fault: NetTxPacketFault?
  }

  private let told = Mutex(Told())
  private let attention: @Sendable () -> Void

  init(attention: @escaping @Sendable () -> Void) { self.attention = attention }

  /// Only the first counts: no frontend fills the host's log.
  func tell(_ fault: NetTxPacketFault) {
    let isFirst = told.withLock { told in
      guard !told.isTold else { return false }
      told = Told(isTold: true, fault: fault)
      return true
    }
    if isFirst { attention() }
  }

  /// What has been told, once.
  func take() -> NetTxPacketFault? {
    told.withLock { told in
      defer { told.fault = nil }
      return told.fault
    }
  }
}
