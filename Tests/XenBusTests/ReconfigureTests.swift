import TestSupport
import Testing
import XenBus

/// A frontend that changes what it wants of a connected device: Reconfiguring, Reconfigured, Connected.
struct ReconfigureTests {
  /// What a backend does for each of these states of its frontend, shown one after the other.
  private func actions(_ states: [XenbusState], isOnline: Bool = true) -> [BackendHandshake.Action] {
    var handshake = BackendHandshake(own: .initialising)
    for state in [XenbusState.initialising, .connected] { _ = handshake.observe(frontend: state, isOnline: true) }
    #expect(handshake.phase == .connected)
    return states.map { handshake.observe(frontend: $0, isOnline: isOnline) }
  }

  @Test func eachStepIsAnsweredOnce() {
    #expect(
      actions([.connected, .reconfiguring, .reconfiguring, .connected, .connected, .reconfiguring, .connected])
        == [.none, .reconfigure, .none, .write(.connected), .none, .reconfigure, .write(.connected)])
  }

  @Test func aReconfiguringThatNobodySawAsksForNothing() {
    #expect(actions([.connected, .connected]) == [.none, .none])
  }

  @Test func aFrontendMayCloseOnTheWay() {
    #expect(
      actions([.reconfiguring, .closing, .closed, .initialising])
        == [.reconfigure, .disconnect(.closing), .disconnect(.closed), .offer])
  }

  /// What an earlier connection was in the middle of says nothing about the next one.
  @Test func theNextConnectionBeginsAnew() {
    #expect(
      actions([.reconfiguring, .closed, .initialising, .connected, .connected, .reconfiguring])
        == [.reconfigure, .disconnect(.closed), .offer, .connect, .none, .reconfigure])
  }

  @Test func aDeviceThatIsWithdrawnIsClosedAndNotReconfigured() {
    #expect(actions([.reconfiguring], isOnline: false) == [.write(.closing)])
  }

  /// The driver has looked at the frontend's keys before the frontend hears of it.
  @Test(.onEachStore) func theBackendHasSeenTheKeysWhenItSaysSo() throws {
    let rig = try BusRig()
    let disk = try rig.addDisk()
    let back = FakeBackend()
    let buses = (front: try rig.frontBus(FakeFrontend()), back: try rig.backBus(back))
    #expect(settle(buses.front, buses.back))
    var stateWhenLooked: XenbusState?
    back.log.events[disk.backendPath] = [
      .otherEndChanged: { stateWhenLooked = stateWhenLooked ?? (try? rig.state(disk.backendPath)) }
    ]
    try rig.write(disk.frontendPath, .reconfiguring)
    #expect(settle(buses.back))
    #expect(stateWhenLooked == .connected)
    #expect(try rig.state(disk.backendPath) == .reconfigured && buses.back.isConnected)
    try rig.write(disk.frontendPath, .connected)
    #expect(settle(buses.front, buses.back))
    #expect(try rig.state(disk.backendPath) == .connected && buses.back.isConnected && buses.front.isConnected)
    #expect(back.log.count(of: .disconnect, at: disk.backendPath) == 0)
  }
}
