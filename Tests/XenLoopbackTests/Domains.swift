import XenLoopback
import XenPlatform

/// A Xen with a control domain (0) and two others (1 and 2).
struct Domains {
  let loopback: Loopback
  let control: LoopbackDomain
  let one: LoopbackDomain
  let two: LoopbackDomain

  init(seed: UInt64 = 0) {
    loopback = Loopback(seed: seed)
    control = loopback.addDomain()
    one = loopback.addDomain()
    two = loopback.addDomain()
  }
}

/// An event channel from one process to another.
struct Channel {
  let near: any EventChannels
  let far: any EventChannels
  let nearPort: EventChannelPort
  let farPort: EventChannelPort

  /// The event that comes with the binding has been taken.
  init(from one: LoopbackDomain, to two: LoopbackDomain) throws {
    near = try one.openEventChannels()
    far = try two.openEventChannels()
    nearPort = try near.allocateUnbound(for: two.domain)
    farPort = try far.bindInterdomain(to: one.domain, port: nearPort)
    _ = takeFar()
  }

  func notify(times: Int = 1) { for _ in 0..<times { near.notify(nearPort) } }

  /// How many events come out at the far end, each unmasked when it has been taken.
  func takeFar() -> Int {
    var count = 0
    while let port = far.nextPending() {
      count += 1
      far.unmask(port)
    }
    return count
  }
}

extension Xenstore {
  /// Every report that waits.
  func takeEvents() -> [XenstoreWatchEvent] {
    var events: [XenstoreWatchEvent] = []
    while let event = nextWatchEvent() { events.append(event) }
    return events
  }

  func takePaths() -> [String] { takeEvents().map(\.path) }
}

/// Why an operation on the store is refused; nil when it is not.
func refusal(_ body: () throws -> Void) throws -> XenstoreError.Code? {
  do {
    try body()
    return nil
  } catch let error as XenstoreError { return error.code }
}
