import Synchronization
import XenPlatform

/// One handle of one process on the ``EventSpace``.
final class LoopbackEventChannels: EventChannels {
  private let process: LoopbackProcess
  private let loopback: Loopback
  private let delivery: Mailbox<EventChannelPort>
  private let opened = Mutex<Set<EventChannelPort>>([])

  init(_ process: LoopbackProcess, in loopback: Loopback) throws(ResourceError) {
    delivery = try Mailbox()
    self.process = process
    self.loopback = loopback
  }

  deinit { for port in opened.withLock({ $0 }) { loopback.events.withLock { $0.close(key(port), on: delivery) } } }

  private func key(_ port: EventChannelPort) -> EventSpace.Key {
    EventSpace.Key(domain: process.domain, port: port)
  }

  var descriptor: CInt { delivery.wakeup.descriptor }

  func allocateUnbound(for remote: DomainID) throws(EventChannelError) -> EventChannelPort {
    let port = try loopback.events.withLock { (events) throws(EventChannelError) in
      try expectAlive("allocate a port")
      return events.allocateUnbound(by: process, for: remote, delivery)
    }
    _ = opened.withLock { $0.insert(port) }
    return port
  }

  func bindInterdomain(to remote: DomainID, port: EventChannelPort) throws(EventChannelError) -> EventChannelPort {
    let mine = try loopback.events.withLock { (events) throws(EventChannelError) in
      try expectAlive("bind a port")
      guard let mine = events.bindInterdomain(by: process, to: remote, port: port, delivery) else {
        throw .refused(port, of: remote)
      }
      return mine
    }
    _ = opened.withLock { $0.insert(mine) }
    return mine
  }

  private func expectAlive(_ call: String) throws(EventChannelError) {
    if process.isKilled { throw .system(call: call, reason: LoopbackProcess.wasKilled) }
  }

  // Of a process that was killed, no port is left for these to find.

  func notify(_ port: EventChannelPort) { loopback.events.withLock { $0.notify(key(port), on: delivery) }?.wake() }

  func nextPending() -> EventChannelPort? { delivery.take(by: process) }

  func unmask(_ port: EventChannelPort) { loopback.events.withLock { $0.unmask(key(port), on: delivery) }?.wake() }

  func close(_ port: EventChannelPort) {
    _ = opened.withLock { $0.remove(port) }
    loopback.events.withLock { $0.close(key(port), on: delivery) }
  }
}
