import BlkFront
import ExampleSupport
import Foundation
import NetFront
import XenLoopback

/// A machine whose guest's devices are used, and its bus polled, on the caller's thread.
final class Guest {
  let machine: Machine
  let bus: Bus
  private var devices: [Toolstack.Device] = []

  init(servedBy register: @Sendable (Bus) throws(XenstoreError) -> Void) throws {
    machine = try Machine(serving: register)
    // Two disks and a card at once have more than what xen-gntalloc allows unless told otherwise; the card would make do with
    // fewer packets on their way.
    machine.guest.sharedPageLimit = 4096
    bus = try Bus(on: machine.guest, log: .quiet)
  }

  /// A disk of the guest's, from the image that `params` names.
  func add(_ disk: BlkFrontDevice, number: Int, params: String, isReadOnly: Bool) throws {
    let device = try machine.toolstack.addVbd(
      number, to: machine.guest.domain, servedBy: machine.driverDomain.domain, params: params, isReadOnly: isReadOnly)
    devices.append(device)
    try bus.register(disk, at: device.frontendPath)
  }

  /// A network card of the guest's.
  func add(_ card: NetFrontDevice, mac: String) throws {
    let device = try machine.toolstack.addVif(
      to: machine.guest.domain, servedBy: machine.driverDomain.domain, mac: mac)
    devices.append(device)
    try bus.register(card, at: device.frontendPath)
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
  func shutDown() throws {
    let (toolstack, devices) = (machine.toolstack, devices)
    for device in devices { try toolstack.unplug(device) }
    guard bus.run(seconds: 10, until: { devices.allSatisfy { (try? toolstack.isClosed($0)) == true } }) else {
      throw ExampleError("the devices do not close:\n" + bus.report.joined(separator: "\n"))
    }
    for device in devices { try toolstack.remove(device) }
    machine.end()
  }
}
