import TestSupport
import Testing
import XenBus
import XenLoopback

/// X8: a backend that was killed after its offer, and whose successor cannot serve the rings that were made for that.
struct InheritedOfferTests {
  private struct Run {
    let rig: BusRig
    let disk: Toolstack.Device
    let front: (bus: Bus, driver: FakeFrontend)

    /// The frontend has published; the first backend is no more.
    init() throws {
      rig = try BusRig()
      disk = try rig.addDisk()
      let driver = FakeFrontend()
      front = (try rig.frontBus(driver), driver)
      let first = try rig.backBus(FakeBackend())
      first.poll()
      #expect(try rig.state(disk.backendPath) == .initWait)
      front.bus.poll()
      #expect(try rig.state(disk.frontendPath) == .initialised)
    }

    /// Turns until neither end has anything to do.
    func settle(_ back: Bus) {
      for _ in 0..<50 {
        front.bus.poll()
        back.poll()
      }
    }
  }

  private static let refusal = DeviceError.unsupported("too many rings")

  @Test func ringsThatWereMadeForAnotherOfferAreMadeAnewForOurs() throws {
    let run = try Run()
    let backend = FakeBackend()
    let path = run.disk.backendPath
    // The offer that comes after the refusal has rings made for it.
    backend.log.failures[path] = [.connect: Self.refusal]
    backend.log.events[path] = [
      .offer: { if backend.log.count(of: .offer, at: path) == 2 { backend.log.failures[path] = [:] } }
    ]
    let back = try run.rig.backBus(backend)
    run.settle(back)
    #expect(back.isConnected && run.front.bus.isConnected, "\(back.report) \(run.front.bus.report)")
    #expect(backend.log.count(of: .connect, at: path) == 2)
    #expect(
      run.front.driver.log.calls(at: run.disk.frontendPath) == [
        .probe, .publish, .stop, .release, .probe, .publish, .connect,
      ])
    #expect(try run.rig.error(of: run.rig.driverDomain, path) == nil)
  }

  /// Rings that were made for ours and are refused all the same are the frontend's fault.
  @Test func thatIsTriedOnce() throws {
    let run = try Run()
    let backend = FakeBackend()
    backend.log.failures[run.disk.backendPath] = [.connect: Self.refusal]
    let back = try run.rig.backBus(backend)
    run.settle(back)
    #expect(backend.log.count(of: .connect, at: run.disk.backendPath) == 2)
    #expect(try run.rig.error(of: run.rig.driverDomain, run.disk.backendPath) == "22 too many rings")
    #expect(
      back.report == [
        "\(run.disk.backendPath): waits for the frontend to begin again (Initialising); it is Closed (6); too many rings"
      ])
  }
}
