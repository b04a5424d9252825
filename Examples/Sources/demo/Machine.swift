import BlkBack
import Foundation
import Synchronization
import XenLoopback

/// What a device's backend has counted, told by its thread.
final class Told<Value: Sendable>: Sendable {
  private let values = Mutex<[Value]>([])

  func tell(_ value: Value) { values.withLock { $0.append(value) } }

  var all: [Value] { values.withLock { $0 } }
}

/// A Xen of three domains, one of which serves the guest's devices.
struct Machine {
  let toolstack: Toolstack
  let guest: LoopbackDomain
  let driverDomain: LoopbackDomain
  /// The guest's; polled by whoever uses its devices.
  let bus: Bus
  /// The driver domain at work; each device's queue has a thread more.
  private let running: BusThread

  init(serving register: @Sendable (Bus) throws(XenstoreError) -> Void) throws {
    let loopback = Loopback()
    toolstack = try Toolstack(on: loopback.addDomain())
    driverDomain = loopback.addDomain()
    guest = loopback.addDomain()
    bus = try Bus(on: guest, log: .quiet)
    running = try BusThread(on: driverDomain, log: .quiet) { (bus) throws(XenstoreError) in
      try register(bus)
      return nil
    }
  }

  func connect(until isConnected: () -> Bool) throws {
    guard bus.run(seconds: 10, until: isConnected) else {
      throw DemoError("the devices do not connect:\n" + bus.report.joined(separator: "\n"))
    }
  }

  /// Until a backend answers, or something changes in the store.
  func sleep(_ descriptors: CInt?...) {
    var waits = (bus.descriptors + descriptors.compactMap { $0 }).map {
      pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
    }
    _ = Wakeup.wait(for: &waits, timeout: 1000)
    bus.poll()
  }

  /// Unplugs the devices, and ends the driver domain when it has let go of them.
  func shutDown(_ devices: [Toolstack.Device]) throws {
    for device in devices { try toolstack.unplug(device) }
    guard bus.run(seconds: 10, until: { devices.allSatisfy { (try? toolstack.isClosed($0)) == true } }) else {
      throw DemoError("the devices do not close:\n" + bus.report.joined(separator: "\n"))
    }
    for device in devices { try toolstack.remove(device) }
    running.end(within: 0)
    running.join()
  }
}
