import Synchronization
import XenPlatform

/// Every domain's event channel ports.
struct EventSpace {
  private enum Peer: Hashable {
    case unbound(for: DomainID)
    case bound(Key)
  }

  struct Key: Hashable {
    let domain: DomainID
    let port: EventChannelPort
  }

  /// An object, so that an event changes it in place and allocates nothing.
  private final class Port {
    let key: Key
    var peer: Peer
    /// Holds the port at most once, since a delivered port is masked.
    let delivery: Mailbox<EventChannelPort>
    var isPending = false
    var isMasked = false

    init(_ key: Key, _ peer: Peer, _ delivery: Mailbox<EventChannelPort>) {
      self.key = key
      self.peer = peer
      self.delivery = delivery
    }

    func raise() {
      isPending = true
      deliver()
    }

    func unmask() {
      isMasked = false
      deliver()
    }

    private func deliver() {
      guard isPending, !isMasked else { return }
      isPending = false
      isMasked = true
      delivery.put(key.port)
    }
  }

  private var ports: [Key: Port] = [:]
  private var nextPort: [DomainID: UInt32] = [:]

  var openPortCount: Int { ports.count }

  private mutating func open(_ domain: DomainID, _ peer: Peer, _ delivery: Mailbox<EventChannelPort>) -> Port {
    let number = nextPort[domain, default: 1]
    nextPort[domain] = number + 1
    let port = Port(Key(domain: domain, port: EventChannelPort(rawValue: number)), peer, delivery)
    ports[port.key] = port
    return port
  }

  mutating func allocateUnbound(
    by domain: DomainID, for remote: DomainID, _ delivery: Mailbox<EventChannelPort>
  ) -> EventChannelPort { open(domain, .unbound(for: remote), delivery).key.port }

  /// nil when there is no such port waiting for us.
  mutating func bindInterdomain(
    by domain: DomainID, to remote: DomainID, port: EventChannelPort, _ delivery: Mailbox<EventChannelPort>
  ) -> EventChannelPort? {
    guard let other = ports[Key(domain: remote, port: port)], other.peer == .unbound(for: domain) else { return nil }
    let mine = open(domain, .bound(other.key), delivery)
    other.peer = .bound(mine.key)
    // Xen marks the new port pending, for an event that came before the binding.
    mine.raise()
    return mine.key.port
  }

  /// The port, if it is one of the handle's: each reaches its own only, and is known by where it has them delivered.
  private func port(_ key: Key, on delivery: Mailbox<EventChannelPort>) -> Port? {
    guard let port = ports[key], port.delivery === delivery else { return nil }
    return port
  }

  func notify(_ key: Key, on delivery: Mailbox<EventChannelPort>) {
    if case .bound(let other) = port(key, on: delivery)?.peer { ports[other]?.raise() }
  }

  func unmask(_ key: Key, on delivery: Mailbox<EventChannelPort>) { port(key, on: delivery)?.unmask() }

  /// The other end becomes unbound, and may be bound by us again.
  mutating func close(_ key: Key, on delivery: Mailbox<EventChannelPort>) {
    guard let port = port(key, on: delivery) else { return }
    ports[key] = nil
    if case .bound(let other) = port.peer { ports[other]?.peer = .unbound(for: key.domain) }
  }
}

/// One handle of one domain on the ``EventSpace``.
final class LoopbackEventChannels: EventChannels {
  private let domain: DomainID
  private let loopback: Loopback
  private let delivery: Mailbox<EventChannelPort>
  private let opened = Mutex<Set<EventChannelPort>>([])

  init(_ domain: DomainID, in loopback: Loopback) throws(ResourceError) {
    delivery = try Mailbox()
    self.domain = domain
    self.loopback = loopback
  }

  deinit { for port in opened.withLock({ $0 }) { loopback.events.withLock { $0.close(key(port), on: delivery) } } }

  private func key(_ port: EventChannelPort) -> EventSpace.Key { EventSpace.Key(domain: domain, port: port) }

  var descriptor: CInt { delivery.wakeup.descriptor }

  func allocateUnbound(for remote: DomainID) throws(EventChannelError) -> EventChannelPort {
    let port = loopback.events.withLock { $0.allocateUnbound(by: domain, for: remote, delivery) }
    _ = opened.withLock { $0.insert(port) }
    return port
  }

  func bindInterdomain(to remote: DomainID, port: EventChannelPort) throws(EventChannelError) -> EventChannelPort {
    guard
      let mine = loopback.events.withLock({ $0.bindInterdomain(by: domain, to: remote, port: port, delivery) })
    else { throw .refused(port, of: remote) }
    _ = opened.withLock { $0.insert(mine) }
    return mine
  }

  func notify(_ port: EventChannelPort) { loopback.events.withLock { $0.notify(key(port), on: delivery) } }

  func nextPending() -> EventChannelPort? { delivery.take() }

  func unmask(_ port: EventChannelPort) { loopback.events.withLock { $0.unmask(key(port), on: delivery) } }

  func close(_ port: EventChannelPort) {
    _ = opened.withLock { $0.remove(port) }
    loopback.events.withLock { $0.close(key(port), on: delivery) }
  }
}
