import Synchronization
import XenPlatform

/// Who uses one ``LoopbackDomain``: whatever is shared, mapped, bound or connected belongs to a process, and is taken from
/// it when it is killed.
final class LoopbackProcess: Sendable {
  static let wasKilled = "this process was killed"

  let domain: DomainID
  private let killed = Atomic(false)

  init(of domain: DomainID) { self.domain = domain }

  /// Each space asks with its lock held: what it lets through before this is true, ``Loopback/kill(_:)`` then takes away.
  var isKilled: Bool { killed.load(ordering: .acquiring) }

  /// False when it had been killed before.
  func kill() -> Bool { !killed.exchange(true, ordering: .acquiringAndReleasing) }
}
