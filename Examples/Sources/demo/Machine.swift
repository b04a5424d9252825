import BlkBack
import Foundation
import Synchronization
import XenLoopback

/// A driver domain at work: its bus on a thread of its own, and a thread more for each device's queue.
final class DriverDomain: Sendable {
  private let stopRequested = Atomic(false)
  private let stopped = DispatchSemaphore(value: 0)

  /// - Parameter register: says what the domain serves.
  init(_ platform: LoopbackDomain, register: @escaping @Sendable (Bus) throws -> Void) {
    Thread.detachNewThread { [self] in
      do {
        let bus = try Bus(on: platform, log: .quiet)
        try register(bus)
        bus.run { stopRequested.load(ordering: .relaxed) }
      } catch { say("the driver domain cannot start: \(error)") }
      stopped.signal()
    }
  }

  /// Ends the domain.
  func stop() {
    stopRequested.store(true, ordering: .relaxed)
    stopped.wait()
  }
}

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
  private let running: DriverDomain

  init(serving register: @escaping @Sendable (Bus) throws -> Void) throws {
    let loopback = Loopback()
    toolstack = try Toolstack(on: loopback.addDomain())
    driverDomain = loopback.addDomain()
    guest = loopback.addDomain()
    bus = try Bus(on: guest, log: .quiet)
    running = DriverDomain(driverDomain, register: register)
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
    running.stop()
  }
}
