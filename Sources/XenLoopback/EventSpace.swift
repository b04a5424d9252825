import XenPlatform

/// Every domain's event channel ports.
struct EventSpace {
  private enum Peer {
    case unbound(for: DomainID)
    /// Each knows the other, until one of them is closed.
    case bound(Port)
  }

  struct Key {
    let domain: DomainID
    let port: EventChannelPort
  }

  /// An object, so that an event changes it in place and allocates nothing.
  private final class Port {
    let key: Key
    let process: LoopbackProcess
    var peer: Peer
    /// Holds the port at most once, since a delivered port is masked.
    let delivery: Mailbox<EventChannelPort>
    var isPending = false
    var isMasked = false
    /// A fault holds its event back.
    var isHeld = false

    init(_ key: Key, of process: LoopbackProcess, _ peer: Peer, _ delivery: Mailbox<EventChannelPort>) {
      self.key = key
      self.process = process
      self.peer = peer
      self.delivery = delivery
    }

    /// - Returns: whom to wake when no lock is held, if anybody.
    func raise() -> Mailbox<EventChannelPort>? {
      isPending = true
      return deliver()
    }

    func unmask() -> Mailbox<EventChannelPort>? {
      isMasked = false
      return deliver()
    }

    private func deliver() -> Mailbox<EventChannelPort>? {
      guard isPending, !isMasked else { return nil }
      isPending = false
      isMasked = true
      return delivery.enqueue(key.port) ? delivery : nil
    }
  }

  /// By their domains' numbers, and their own; nil for one that has been closed, since none is given out twice.
  private var ports: [[Port?]] = []
  private(set) var openPortCount = 0
  /// What the next ``deliverHeld()`` raises, in the order in which it came.
  private var held: [Port] = []
  private var random: SplitMix64
  private(set) var faults = EventFaults()

  init(seed: UInt64) { random = SplitMix64(state: seed) }

  // MARK: Ports

  private mutating func open(
    by process: LoopbackProcess, _ peer: Peer, _ delivery: Mailbox<EventChannelPort>
  ) -> Port {
    let domain = Int(process.domain.rawValue)
    // None has the number 0.
    while ports.count <= domain { ports.append([nil]) }
    let number = EventChannelPort(rawValue: UInt32(ports[domain].count))
    let port = Port(Key(domain: process.domain, port: number), of: process, peer, delivery)
    ports[domain].append(port)
    openPortCount += 1
    return port
  }

  private func port(_ key: Key) -> Port? {
    let (domain, number) = (Int(key.domain.rawValue), Int(key.port.rawValue))
    return domain < ports.count && number < ports[domain].count ? ports[domain][number] : nil
  }

  mutating func allocateUnbound(
    by process: LoopbackProcess, for remote: DomainID, _ delivery: Mailbox<EventChannelPort>
  ) -> EventChannelPort { open(by: process, .unbound(for: remote), delivery).key.port }

  /// nil when there is no such port waiting for us.
  mutating func bindInterdomain(
    by process: LoopbackProcess, to remote: DomainID, port: EventChannelPort, _ delivery: Mailbox<EventChannelPort>
  ) -> EventChannelPort? {
    guard let other = self.port(Key(domain: remote, port: port)), case .unbound(process.domain) = other.peer else {
      return nil
    }
    let mine = open(by: process, .bound(other), delivery)
    other.peer = .bound(mine)
    // Xen marks the new port pending, for an event that came before the binding.
    raise(mine)?.wake()
    return mine.key.port
  }

  /// The port, if it is one of the handle's: each reaches its own only, and is known by where it has them delivered.
  private func port(_ key: Key, on delivery: Mailbox<EventChannelPort>) -> Port? {
    guard let port = port(key), port.delivery === delivery else { return nil }
    return port
  }

  /// - Returns: whom to wake when no lock is held, if anybody.
  mutating func notify(_ key: Key, on delivery: Mailbox<EventChannelPort>) -> Mailbox<EventChannelPort>? {
    guard case .bound(let other) = port(key, on: delivery)?.peer else { return nil }
    return raise(other)
  }

  /// - Returns: whom to wake when no lock is held, if anybody.
  func unmask(_ key: Key, on delivery: Mailbox<EventChannelPort>) -> Mailbox<EventChannelPort>? {
    port(key, on: delivery)?.unmask()
  }

  mutating func close(_ key: Key, on delivery: Mailbox<EventChannelPort>) {
    if let port = port(key, on: delivery) { close(port) }
  }

  /// The other end becomes unbound, and may be bound by us again.
  private mutating func close(_ port: Port) {
    ports[Int(port.key.domain.rawValue)][Int(port.key.port.rawValue)] = nil
    openPortCount -= 1
    guard case .bound(let other) = port.peer else { return }
    other.peer = .unbound(for: port.key.domain)
    port.peer = .unbound(for: other.key.domain)
  }

  /// Closes every port of `process`.
  mutating func end(_ process: LoopbackProcess) {
    guard Int(process.domain.rawValue) < ports.count else { return }
    for case let port? in ports[Int(process.domain.rawValue)] where port.process === process { close(port) }
  }

  // MARK: Faults

  /// Without faults nothing stays held.
  mutating func setFaults(_ faults: EventFaults) {
    self.faults = faults
    if faults == EventFaults() { deliverHeld() }
  }

  private mutating func raise(_ port: Port) -> Mailbox<EventChannelPort>? {
    // What is held back has not come yet: this event and that are one.
    if port.isHeld { return nil }
    if faults.delayed.strikes(&random) {
      port.isHeld = true
      held.append(port)
      return nil
    }
    let woken = port.raise()
    if faults.duplicated.strikes(&random) { held.append(port) }
    return woken
  }

  /// Raises what was held back, and says how many events that were.
  @discardableResult mutating func deliverHeld() -> Int {
    var due = held
    held = []
    if faults.spurious.strikes(&random) {
      let bound = ports.joined().compactMap(\.self).filter { if case .bound = $0.peer { true } else { false } }
      if let port = bound.randomElement(using: &random) { due.append(port) }
    }
    // Some may have been closed meanwhile.
    due = due.filter { port($0.key) === $0 }
    for port in due {
      port.isHeld = false
      port.raise()?.wake()
    }
    return due.count
  }
}
