import TestSupport
import Testing
import XenBus
import XenPlatform

/// Drivers that know only what every driver has to: what their bus asks for besides is refused, or done without them.
@Suite(.onEachStore) struct PlainDriverTests {
  private let rig: BusRig
  private let disk: Toolstack.Device

  init() throws {
    rig = try BusRig()
    disk = try rig.addDisk()
  }

  private final class PlainBackend: BackendDriver, Backend {
    let type = "vbd"
    let negotiation = Negotiation()
    private(set) var isConnected = false
    private(set) var attention: (@Sendable () -> Void)?

    func probe(_ device: XenbusDevice) -> any Backend { self }
    func offer(_ device: XenbusDevice) -> [StoreEntry] { [] }
    func connect(_ device: XenbusDevice) -> [StoreEntry] {
      attention = device.attention
      return []
    }
    func start(_ device: XenbusDevice) { isConnected = true }
    func disconnect(_ device: XenbusDevice) { isConnected = false }
  }

  private final class PlainFrontend: FrontendDriver, Frontend {
    let type = "vbd"
    let publishedState = XenbusState.initialised
    let negotiation = Negotiation()
    private(set) var isShared = false

    func probe(_ device: XenbusDevice) -> any Frontend { self }
    func publish(_ device: XenbusDevice) -> [StoreEntry] {
      isShared = true
      return [StoreEntry("ring-ref", 8)]
    }
    func connect(_ device: XenbusDevice) {}
    func stop(_ device: XenbusDevice) {}
    func release(_ device: XenbusDevice) { isShared = false }
  }

  @Test func deviceIsConnectedWithoutMore() throws {
    let (back, front) = (PlainBackend(), PlainFrontend())
    let (backBus, frontBus) = (try rig.backBus(back), try rig.frontBus(front))
    #expect(settle(frontBus, backBus) && backBus.isConnected && frontBus.isConnected)
    // Nothing that it calls its bus for, or that the frontend writes, is anything to it.
    back.attention?()
    frontBus.callForAttention()
    try rig.directory(disk.frontendPath).write([StoreEntry("state", XenbusState.connected.rawValue)])
    #expect(settle(frontBus, backBus) && backBus.isConnected && frontBus.isConnected)
    #expect(frontBus.negotiations[disk.frontendPath]?.lines.isEmpty == true)
    #expect(try rig.toolstack.exists(disk))
    frontBus.close()
    #expect(settle(frontBus, backBus) && !front.isShared && !back.isConnected)
    try rig.toolstack.remove(disk)
    #expect(try !rig.toolstack.exists(disk))
  }

  /// It says so; the next process begins anew.
  @Test func backendThatCannotBeLeftConnectedSaysSo() throws {
    let back = PlainBackend()
    let (backBus, frontBus) = (try rig.backBus(back), try rig.frontBus(PlainFrontend()))
    #expect(settle(frontBus, backBus) && backBus.isConnected)
    #expect(
      backBus.detach() == [disk.backendPath: .unsupported("this driver's devices cannot be left connected")])
    #expect(!back.isConnected)
  }

  /// Another program has left word of where it stopped: the device is held for that.
  @Test func backendThatCannotGoOnWithAnothersDeviceHoldsIt() throws {
    let (backBus, frontBus) = (try rig.backBus(FakeBackend()), try rig.frontBus(PlainFrontend()))
    #expect(settle(frontBus, backBus) && backBus.isConnected)
    #expect(backBus.detach().isEmpty)
    let next = try rig.backBus(PlainBackend())
    #expect(settle(frontBus, next))
    let reason = "this driver cannot go on with a device that another process has left connected"
    #expect(next.givenUpDevices == [disk.backendPath: .unsupported(reason)])
    #expect(frontBus.isConnected)
  }

  /// Its pages end with it: nobody can go on with them.
  @Test func frontendsBusThatDetachesLetsGo() throws {
    let front = PlainFrontend()
    let (backBus, frontBus) = (try rig.backBus(PlainBackend()), try rig.frontBus(front))
    #expect(settle(frontBus, backBus) && front.isShared)
    #expect(frontBus.detach().isEmpty && !front.isShared)
  }
}
