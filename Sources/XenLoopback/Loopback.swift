import Synchronization
import XenPlatform

/// A whole Xen inside the process: domains, grants, event channels and a xenstore.
///
/// It refuses what Xen refuses. Every domain it gives is a platform of its own, and what one of them shares, another
/// really maps: its pages are memfds, so a read-only mapping is read-only and an unmapped page faults. Safe to use from
/// several threads; for a run that repeats exactly, let a ``Scheduler`` do everything on one.
///
/// It does what can go wrong on a Xen when a test asks for it: ``eventFaults``, ``grantFaults``, ``storeQuotas``,
/// ``LoopbackDomain/sharedPageLimit``, ``LoopbackDomain/kill()`` and ``destroy(_:)``.
public final class Loopback: Sendable {
  let grants: GrantLock<GrantSpace>
  let events: Mutex<EventSpace>
  let store = Mutex(SharedStore())
  /// The processes of each domain that have not been killed.
  private let processes = Mutex<[DomainID: [LoopbackProcess]]>([:])
  private let domainCount = Mutex<UInt16>(0)

  /// - Parameter seed: what faults that strike at random are drawn from; the same one over the same program gives the same
  ///   faults.
  public init(seed: UInt64 = 0) {
    var seeds = SplitMix64(state: seed)
    grants = GrantLock(GrantSpace(seed: seeds.next()))
    events = Mutex(EventSpace(seed: seeds.next()))
  }

  // MARK: Domains

  /// A new domain, numbered from 0 up: the first one is the control domain, which may read and write every node of the
  /// store. Each one's home directory in the store exists and belongs to it. Of any but the first, the watches of
  /// `@introduceDomain` hear.
  public func addDomain() -> LoopbackDomain {
    let number = domainCount.withLock { count in
      precondition(count < DomainID.firstReserved, "no domain numbers are left")
      defer { count += 1 }
      return count
    }
    let domain = DomainID(rawValue: number)
    processes.withLock { $0[domain] = [] }
    grants.withLock { $0.introduce(domain) }
    store.withLock { $0.introduce(domain) }
    return addProcess(in: domain)
  }

  /// Another process of a domain that is there: what it shares, maps, binds and watches is its own, and outlives the
  /// domain's other processes. This is how a driver comes back after ``LoopbackDomain/kill()``.
  public func addProcess(in domain: DomainID) -> LoopbackDomain {
    let process = LoopbackProcess(of: domain)
    processes.withLock { processes in
      precondition(processes[domain] != nil, "\(domain) is not there")
      processes[domain]?.append(process)
    }
    return LoopbackDomain(process, in: self)
  }

  /// Whether the domain has been added, and not destroyed since.
  func has(_ domain: DomainID) -> Bool { processes.withLock { $0[domain] != nil } }

  func kill(_ process: LoopbackProcess) {
    guard process.kill() else { return }
    processes.withLock { $0[process.domain]?.removeAll { $0 === process } }
    // What it did before it was killed is in its spaces now; what it does from now on finds that it was.
    store.withLock { $0.end(process) }
    events.withLock { $0.end(process) }
    grants.withLock { $0.end(process) }
  }

  /// Suspends a domain and resumes it, as a migration does: what its processes shared, mapped and bound is gone, as after a
  /// kill, but they live on and may share and bind anew. Their connections to the store stay, with their watches, as the kernel
  /// sees to; the device directories are the toolstack's to make anew.
  func suspendAndResume(_ domain: DomainID) {
    for process in processes.withLock({ $0[domain] ?? [] }) {
      events.withLock { $0.end(process) }
      grants.withLock { $0.end(process) }
    }
  }

  /// Destroys a domain, as `xl destroy` does: its processes are killed, its references and ports name nothing any more,
  /// and what it owned in the store is removed, as xenstored does, but for its home, which the toolstack removes. The
  /// watches of `@releaseDomain` hear of it.
  ///
  /// - Parameter domain: not the control domain.
  public func destroy(_ domain: DomainID) {
    precondition(domain != .zero, "the control domain lives as long as Xen does")
    let last = processes.withLock { $0.removeValue(forKey: domain) }
    guard let last else { preconditionFailure("\(domain) is not there") }
    for process in last { kill(process) }
    grants.withLock { $0.destroy(domain) }
    store.withLock { $0.release(domain) }
  }

  // MARK: Faults

  /// What befalls events from now on.
  public var eventFaults: EventFaults {
    get { events.withLock { $0.faults } }
    set { events.withLock { $0.setFaults(newValue) } }
  }

  /// What befalls grants from now on.
  public var grantFaults: GrantFaults {
    get { grants.withLock { $0.faults } }
    set { grants.withLock { $0.faults = newValue } }
  }

  /// What any domain but the control domain may have in the store. A lower one takes nothing away that is there.
  public var storeQuotas: StoreQuotas {
    get { store.withLock { $0.quotas } }
    set { store.withLock { $0.quotas = newValue } }
  }

  /// Raises the events that ``eventFaults`` held back, and spurious ones where they are due.
  ///
  /// - Returns: how many those were.
  @discardableResult public func deliverHeldEvents() -> Int { events.withLock { $0.deliverHeld() } }

  // MARK: Counts

  /// What is shared and mapped right now, and what went wrong with it.
  public var grantCounts: GrantCounts { grants.withReadLock { $0.counts } }

  /// What connections to the store hold right now, in all domains.
  public var storeCounts: StoreCounts { store.withLock { $0.counts } }

  /// Events of watches that nobody has taken yet, of all connections.
  public var waitingWatchEventCount: Int { store.withLock { $0.waitingEventCount } }

  /// Event channel ports open right now, in all domains.
  public var openPortCount: Int { events.withLock { $0.openPortCount } }
}
