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

  private struct Port {
    var peer: Peer
    /// Holds the port at most once, since a delivered port is masked.
    let delivery: Mailbox<EventChannelPort>
    var isPending = false
    var isMasked = false
  }

  private var ports: [Key: Port] = [:]
  private var nextPort: [DomainID: UInt32] = [:]

  var openPortCount: Int { ports.count }

  private mutating func open(_ domain: DomainID, _ peer: Peer, _ delivery: Mailbox<EventChannelPort>) -> Key {
    let number = nextPort[domain, default: 1]
    nextPort[domain] = number + 1
    let key = Key(domain: domain, port: EventChannelPort(rawValue: number))
    ports[key] = Port(peer: peer, delivery: delivery)
    return key
  }

  mutating func allocateUnbound(by domain: DomainID, for remote: DomainID, _ delivery: Mailbox<EventChannelPort>) -> Key
  {
    open(domain, .unbound(for: remote), delivery)
  }

  /// nil when there is no such port waiting for us.
  mutating func bindInterdomain(
    by domain: DomainID, to remote: DomainID, port: EventChannelPort, _ delivery: Mailbox<EventChannelPort>
  ) -> Key? {
    let other = Key(domain: remote, port: port)
    guard ports[other]?.peer == .unbound(for: domain) else { return nil }
    let mine = open(domain, .bound(other), delivery)
    ports[other]?.peer = .bound(mine)
    // Xen marks the new port pending, for an event that came before the binding.
    raise(mine)
    return mine
  }

  /// Each handle reaches its own ports only, and is known by where it has them delivered.
  private func isOpen(_ key: Key, on delivery: Mailbox<EventChannelPort>) -> Bool { ports[key]?.delivery === delivery }

  mutating func notify(_ key: Key, on delivery: Mailbox<EventChannelPort>) {
    guard isOpen(key, on: delivery) else { return }
    if case .bound(let other) = ports[key]?.peer { raise(other) }
  }

  private mutating func raise(_ key: Key) {
    guard ports[key]?.isPending == false else { return }
    ports[key]?.isPending = true
    deliver(key)
  }

  private mutating func deliver(_ key: Key) {
    guard let port = ports[key], port.isPending, !port.isMasked else { return }
    ports[key]?.isPending = false
    ports[key]?.isMasked = true
    port.delivery.put(key.port)
  }

  mutating func unmask(_ key: Key, on delivery: Mailbox<EventChannelPort>) {
    guard isOpen(key, on: delivery) else { return }
    ports[key]?.isMasked = false
    deliver(key)
  }

  /// The other end becomes unbound, and may be bound by us again.
  mutating func close(_ key: Key, on delivery: Mailbox<EventChannelPort>) {
    guard isOpen(key, on: delivery), let port = ports.removeValue(forKey: key) else { return }
    if case .bound(let other) = port.peer { ports[other]?.peer = .unbound(for: key.domain) }
  }
}

/// One handle of one domain on the ``EventSpace``.
final class LoopbackEventChannels: EventChannels {
  private let domain: DomainID
  private let loopback: Loopback
  private let delivery = Mailbox<EventChannelPort>()
  private let opened = Mutex<Set<EventChannelPort>>([])

  init(_ domain: DomainID, in loopback: Loopback) {
    self.domain = domain
    self.loopback = loopback
  }

  deinit { for port in opened.withLock({ $0 }) { loopback.events.withLock { $0.close(key(port), on: delivery) } } }

  private func key(_ port: EventChannelPort) -> EventSpace.Key { EventSpace.Key(domain: domain, port: port) }

  var descriptor: CInt { delivery.wakeup.descriptor }

  func allocateUnbound(for remote: DomainID) throws(EventChannelError) -> EventChannelPort {
    let port = loopback.events.withLock { $0.allocateUnbound(by: domain, for: remote, delivery) }.port
    _ = opened.withLock { $0.insert(port) }
    return port
  }

  func bindInterdomain(to remote: DomainID, port: EventChannelPort) throws(EventChannelError) -> EventChannelPort {
    guard
      let mine = loopback.events.withLock({ $0.bindInterdomain(by: domain, to: remote, port: port, delivery) })?.port
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
