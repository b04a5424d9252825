/// One handle on event channels (xen/include/public/event_channel.h); each queue has its own.
///
/// The handle delivers the events of the ports bound on it, and can notify only through those. A delivered port stays
/// masked until ``unmask(_:)``, which comes after the work that the event asked for, so that a storm of events costs one
/// wake per round of work. Ports still open are closed when the handle goes away. Events are never lost: they coalesce.
public protocol EventChannels: AnyObject, Sendable {
  /// Readable while ``nextPending()`` would give a port.
  var descriptor: CInt { get }

  /// A new port that `remote` may bind to (`EVTCHNOP_alloc_unbound`).
  func allocateUnbound(for remote: DomainID) throws(EventChannelError) -> EventChannelPort

  /// Binds a new port to one that `remote` allocated for us (`EVTCHNOP_bind_interdomain`); it is pending at once.
  ///
  /// - Parameter port: the other end's number, taken as it is.
  func bindInterdomain(to remote: DomainID, port: EventChannelPort) throws(EventChannelError) -> EventChannelPort

  /// Raises an event at the other end; nothing happens when nobody is bound there.
  func notify(_ port: EventChannelPort)

  /// Takes the next pending port, masking it; nil when there is none. Never blocks.
  func nextPending() -> EventChannelPort?

  /// Lets the port's events through again; one that came meanwhile is delivered now.
  func unmask(_ port: EventChannelPort)

  /// Closes the port. The other end's port becomes unbound, for us to bind to anew. An event that was already waiting may
  /// still come out of ``nextPending()``, and the number may soon name a port opened later.
  func close(_ port: EventChannelPort)
}

/// Why an event channel could not be had.
@nonexhaustive public enum EventChannelError: Error, Hashable, Sendable, CustomStringConvertible {
  /// The other end named a port that it did not allocate for us, or that is bound already.
  case refused(EventChannelPort, of: DomainID)
  /// A call of the platform failed for another reason.
  case system(call: String, reason: String)

  public var description: String {
    switch self {
    case .refused(let port, let domain): "cannot bind to \(port) of \(domain): it is not there for us to bind"
    case .system(let call, let reason): "\(call): \(reason)"
    }
  }
}
