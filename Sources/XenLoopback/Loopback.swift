import Synchronization
import XenPlatform

/// A whole Xen inside the process: domains, grants, event channels and a xenstore.
///
/// It refuses what Xen refuses. Every domain it gives is a platform of its own, and what one of them shares, another
/// really maps: its pages are memfds, so a read-only mapping is read-only and an unmapped page faults. Safe to use from
/// several threads; for a run that repeats exactly, let a ``Scheduler`` do everything on one.
public final class Loopback: Sendable {
  let grants = Mutex(GrantSpace())
  let events = Mutex(EventSpace())
  let store = Mutex(SharedStore())
  private let domainCount = Mutex<UInt16>(0)

  public init() {}

  /// A new domain, numbered from 0 up: the first one is the control domain, which may read and write every node of the
  /// store. Each one's home directory in the store exists and belongs to it.
  public func addDomain() -> LoopbackDomain {
    let number = domainCount.withLock { count in
      precondition(count < DomainID.firstReserved, "no domain numbers are left")
      defer { count += 1 }
      return count
    }
    let domain = DomainID(rawValue: number)
    grants.withLock { $0.introduce(domain) }
    store.withLock { $0.tree.introduce(domain) }
    return LoopbackDomain(domain, in: self)
  }

  /// What is shared and mapped right now, and what went wrong with it.
  public var grantCounts: GrantCounts { grants.withLock { $0.counts } }

  /// Event channel ports open right now, in all domains.
  public var openPortCount: Int { events.withLock { $0.openPortCount } }
}

/// A domain of a ``Loopback``: the platform that drivers of this domain are given.
public final class LoopbackDomain: Platform {
  public let domain: DomainID
  public let grants: any GrantTable
  let loopback: Loopback

  init(_ domain: DomainID, in loopback: Loopback) {
    self.domain = domain
    self.loopback = loopback
    grants = LoopbackGrantTable(domain, in: loopback)
  }

  public func openEventChannels() throws(EventChannelError) -> any EventChannels {
    do throws(ResourceError) { return try LoopbackEventChannels(domain, in: loopback) } catch {
      throw .system(call: "eventfd", reason: error.description)
    }
  }

  public func openXenstore() throws(XenstoreError) -> any Xenstore {
    do throws(ResourceError) { return try LoopbackXenstore(domain, in: loopback) } catch {
      throw XenstoreError(.system(error.description), "connect to", "")
    }
  }
}
