import BlkFront
import ExampleSupport
import Foundation
import XenLoopback

/// A machine whose guest's devices are used, and its bus polled, on the caller's thread.
struct Guest {
  let machine: Machine
  let bus: Bus

  init(servedBy register: @Sendable (Bus) throws(XenstoreError) -> Void) throws {
    machine = try Machine(serving: register)
    bus = try Bus(on: machine.guest, log: .quiet)
  }

  func connect(until isConnected: () -> Bool) throws {
    guard bus.run(seconds: 10, until: isConnected) else {
      throw ExampleError("the devices do not connect:\n" + bus.report.joined(separator: "\n"))
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
    let toolstack = machine.toolstack
    for device in devices { try toolstack.unplug(device) }
    guard bus.run(seconds: 10, until: { devices.allSatisfy { (try? toolstack.isClosed($0)) == true } }) else {
      throw ExampleError("the devices do not close:\n" + bus.report.joined(separator: "\n"))
    }
    for device in devices { try toolstack.remove(device) }
    machine.end()
  }
}
