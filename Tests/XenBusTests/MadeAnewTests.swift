import Synchronization
import TestSupport
import Testing
import XenBus
import XenPlatform

/// X3: a toolstack that removes a device and makes it again while an end is at work on it.
@Suite(.onEachStore) struct MadeAnewTests {
  enum End: CaseIterable { case front, back }

  /// Removes the device at one call to the store, and makes it again some calls later.
  private final class Remover: Sendable {
    private let calls = Mutex(Int.min)
    private let times: (removal: Int, making: Int)
    private let disk: Toolstack.Device
    private let guest: any Platform
    private let driverDomain: any Platform
    private let control: any Platform

    init(_ rig: BusRig, _ disk: Toolstack.Device, removal: Int, making: Int) {
      (self.disk, times) = (disk, (removal, making))
      (guest, driverDomain, control) = (rig.guest, rig.driverDomain, rig.control)
    }

    /// From now on calls count.
    func begin() { calls.withLock { $0 = 0 } }

    /// Whether there were so many calls that the device was made again.
    var isDone: Bool { calls.withLock { $0 > times.making } }

    func look() {
      let call = calls.withLock { count in
        defer { count += 1 }
        return count
      }
      do {
        if call == times.removal { try Toolstack(on: control).remove(disk) }
        if call == times.making { try make() }
      } catch { Issue.record(error) }
    }

    func make() throws {
      _ = try Toolstack(on: control).add(
        Toolstack.Disk(params: "disk.img"), to: guest.domain, servedBy: driverDomain.domain)
    }
  }

  /// At every call of that end's, during the first handshake or during that with a backend that has begun anew.
  @Test(arguments: End.allCases, [false, true])
  func deviceConnectsWheneverItIsMadeAnew(end: End, isLater: Bool) throws {
    for gap in 0..<3 {
      var isBeyond = false
      for removal in 0..<100 where !isBeyond {
        let rig = try BusRig()
        let disk = try rig.addDisk()
        let remover = Remover(rig, disk, removal: removal, making: removal + gap)
        let log = CollectedLog()
        func bus(_ platform: any Platform, _ own: End) throws -> Bus {
          try Bus(on: own == end ? ObservedPlatform(platform) { remover.look() } : platform, log: log.logger)
        }
        let (frontBus, backBus) = (try bus(rig.guest, .front), try bus(rig.driverDomain, .back))
        if !isLater { remover.begin() }
        try frontBus.register(FakeFrontend())
        try backBus.register(FakeBackend())
        if isLater {
          #expect(settle(frontBus, backBus) && frontBus.isConnected)
          remover.begin()
          // The guest has the disk made anew, as when it was suspended.
          frontBus.resume()
        }
        #expect(settle(frontBus, backBus))
        isBeyond = !remover.isDone
        if isBeyond { continue }
        let name = Comment("removed at call \(removal) of the \(end) end, made \(gap) later: \(log.lines)")
        #expect(try rig.state(disk.frontendPath) == .connected, name)
        #expect(try rig.state(disk.backendPath) == .connected, name)
        #expect(frontBus.isConnected && backBus.isConnected, name)
        #expect(try rig.error(of: rig.driverDomain, disk.backendPath) == nil, name)
        #expect(try rig.error(of: rig.guest, disk.frontendPath) == nil, name)
      }
      #expect(isBeyond)
    }
  }
}
