import XenPlatform

/// A domain of a ``Loopback`` as one process in it sees it: the platform that the process's drivers are given.
public final class LoopbackDomain: Platform {
  public let grants: any GrantTable
  let process: LoopbackProcess
  private let loopback: Loopback

  init(_ process: LoopbackProcess, in loopback: Loopback) {
    self.process = process
    self.loopback = loopback
    grants = LoopbackGrantTable(process, in: loopback)
  }

  public var domain: DomainID { process.domain }

  public func openEventChannels() throws(EventChannelError) -> any EventChannels {
    do throws(ResourceError) { return try LoopbackEventChannels(process, in: loopback) } catch {
      throw .system(call: "eventfd", reason: error.description)
    }
  }

  public func openXenstore() throws(XenstoreError) -> any Xenstore {
    do throws(ResourceError) { return try LoopbackXenstore(process, in: loopback) } catch {
      throw XenstoreError(.system(error.description), "connect to", "")
    }
  }

  /// How many pages all processes of the domain together may share at once: 1024 unless set, as with xen-gntalloc's
  /// parameter `limit`. A lower one takes nothing away that is shared.
  public var sharedPageLimit: Int {
    get { loopback.grants.withLock { $0.sharedPageLimit(of: domain) } }
    set { loopback.grants.withLock { $0.setSharedPageLimit(of: domain, to: newValue) } }
  }

  /// Changes what the domain has granted under `reference`, as a guest can that writes into its grant table: whether the page may
  /// be written from now on. Who has it mapped, keeps it mapped as it is.
  ///
  /// - Precondition: the reference is in use.
  public func setWritable(_ writable: Bool, _ reference: GrantReference) {
    loopback.grants.withLock { $0.setWritable(writable, reference, of: domain) }
  }

  /// Kills the process, as `kill -9` does: it takes leave of nobody.
  ///
  /// The other ends of its ports are unbound, what it had mapped is no longer in use, what it shared is shared no more,
  /// its watches and transactions are gone, and a ``Scheduler`` gives its tasks no more turns. From then on nothing that
  /// its objects do reaches anybody, their ends included: calls that throw say that the process was killed, the others do
  /// nothing. Memory that it shared or mapped stays readable and writable, for itself alone, until those objects end.
  /// The domain lives on; ``Loopback/addProcess(in:)`` starts another process in it.
  public func kill() { loopback.kill(process) }

  /// Suspends the whole domain and resumes it, as a migration to another host does (`xl migrate`): everything that its
  /// processes had shared, mapped and bound is gone, and what was shared or mapped is memory of their own from then on.
  /// Whoever has a bus in it then calls its `resume()`, before it is polled again.
  ///
  /// On the other host the toolstack has made the device directories anew: remove the devices before the bus resumes, and
  /// add them with the backend that serves them there.
  public func suspendAndResume() { loopback.suspendAndResume(domain) }

  public var isKilled: Bool { process.isKilled }
}
