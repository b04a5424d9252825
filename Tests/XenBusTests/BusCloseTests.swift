import TestSupport
import Testing
import XenBus
import XenPlatform

/// A bus that withdraws leaves every device closed.
@Suite(.onEachStore) struct BusCloseTests {
  let rig: BusRig
  let front = FakeFrontend()
  let back = FakeBackend()
  let disks: [Toolstack.Device]

  init() throws {
    rig = try BusRig()
    disks = [try rig.addDisk(51712), try rig.addDisk(51728)]
  }

  @Test func closedBackendBusHasClosedItsDevices() throws {
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    #expect(!backBus.isEmpty)
    backBus.close()
    #expect(settle(backBus, frontBus))
    #expect(backBus.isEmpty)
    for disk in disks {
      #expect(try rig.state(disk.backendPath) == .closed)
      #expect(try rig.state(disk.frontendPath) == .closed)
      #expect(back.log.calls(at: disk.backendPath).last == .disconnect)
    }
  }

  @Test func closedFrontendBusHasClosedItsDevices() throws {
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    #expect(!frontBus.isEmpty)
    frontBus.close()
    #expect(settle(frontBus, backBus))
    #expect(frontBus.isEmpty)
    for disk in disks {
      #expect(try rig.state(disk.frontendPath) == .closed)
      #expect(front.log.count(of: .release, at: disk.frontendPath) == 1)
    }
  }

  @Test func bothBusesMayCloseAtOnce() throws {
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    #expect(frontBus.isConnected && backBus.isConnected)
    frontBus.close()
    backBus.close()
    #expect(settle(frontBus, backBus))
    #expect(frontBus.isEmpty && backBus.isEmpty)
    for disk in disks {
      #expect(try rig.state(disk.frontendPath) == .closed && rig.state(disk.backendPath) == .closed)
    }
  }

  @Test func busClosesBeforeAnythingIsConnected() throws {
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    frontBus.poll()
    backBus.poll()
    frontBus.close()
    backBus.close()
    #expect(settle(frontBus, backBus))
    #expect(frontBus.isEmpty && backBus.isEmpty)
    for disk in disks { #expect(try rig.state(disk.backendPath) == .closed) }
  }

  @Test func closedBusTakesNoNewDevice() throws {
    let backBus = try rig.backBus(back)
    #expect(settle(backBus))
    backBus.close()
    let late = try rig.addDisk(51744)
    #expect(settle(backBus))
    #expect(back.log.calls(at: late.backendPath) == [])
  }

  @Test func deviceRemovedWhileItsBusClosesIsForgotten() throws {
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    frontBus.close()
    frontBus.poll()
    // The backend never answers: what is left is to take the device away.
    for disk in disks { try rig.store.remove(disk.frontendPath, in: nil) }
    #expect(settle(frontBus))
    #expect(frontBus.isEmpty)
    #expect(frontBus.report == [])
  }

  @Test func reopenedDevicesAreServedAgain() throws {
    let (frontBus, backBus) = (try rig.frontBus(front), try rig.backBus(back))
    #expect(settle(frontBus, backBus))
    backBus.close()
    #expect(settle(frontBus, backBus))
    let successor = try rig.backBus(FakeBackend())
    #expect(settle(frontBus, successor))
    #expect(successor.isConnected && frontBus.isConnected)
  }
}
