import Logging
import Synchronization
import XenBus
import XenLoopback
import XenPlatform

/// A queue host that polls nothing by itself: the benchmark's loop does, so that nothing else is counted.
final class HandPolled: QueueHost {
  private let queues = Mutex<[any DataQueue]>([])

  /// A card's control ring carries nothing here.
  func start(_ queue: any DataQueue, name: String, whenStopped: @escaping @Sendable () -> Void) {
    if !name.hasSuffix("-control") { queues.withLock { $0.append(queue) } }
  }

  let now = Uptime(nanoseconds: 0)

  func stop(_ queue: any DataQueue) { queues.withLock { $0.removeAll { $0 === queue } } }

  /// The only queue there is.
  var queue: any DataQueue { queues.withLock { $0[0] } }

  var allQueues: [any DataQueue] { queues.withLock { $0 } }
}

/// Two domains on an in-process Xen, with a bus each.
struct Domains {
  let loopback = Loopback()
  let host = HandPolled()
  let toolstack: Toolstack
  let guest: LoopbackDomain
  let driverDomain: LoopbackDomain
  let frontBus: Bus
  let backBus: Bus

  init() throws {
    let log = Logger(label: "benchmark") { _ in SwiftLogNoOpLogHandler() }
    driverDomain = loopback.addDomain()
    guest = loopback.addDomain()
    toolstack = try Toolstack(on: driverDomain)
    frontBus = try Bus(on: guest, queueHost: host, log: log)
    backBus = try Bus(on: driverDomain, queueHost: host, log: log)
  }

  func connect() {
    let connected = frontBus.run(seconds: 10) {
      backBus.poll()
      return frontBus.isConnected && backBus.isConnected
    }
    precondition(connected, "\(frontBus.report + backBus.report)")
  }
}
