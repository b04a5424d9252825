import TestSupport
import Testing
import XenBus
import XenLoopback
import XenPlatform

/// A victim with two devices of one kind on one bus: the first one's other end is hostile, the second one's is honest. And
/// what has to hold whatever the hostile one did.
class Stage {
  let loopback: Loopback
  let control: LoopbackDomain
  let victim: LoopbackDomain
  let hostile: LoopbackDomain
  let bystander: LoopbackDomain
  let toolstack: Toolstack
  let scheduler: Scheduler
  /// The victim's bus, and that of the honest other end.
  let bus: Bus
  let bystanderBus: Bus
  private(set) var device: Toolstack.Device!
  private(set) var second: Toolstack.Device!
  private(set) var peer: HostilePeer!
  /// The control domain's connection.
  let store: any Xenstore

  enum End { case frontend, backend }

  private let end: End

  /// - Parameters:
  ///   - end: which end of the devices is attacked.
  ///   - queueHost: of the victim's queues; nil for the scheduler.
  init(seed: Seed, attacking end: End, queueHost: (any QueueHost)? = nil) throws {
    self.end = end
    loopback = Loopback(seed: seed.value)
    control = loopback.addDomain()
    victim = loopback.addDomain()
    hostile = loopback.addDomain()
    bystander = loopback.addDomain()
    toolstack = try Toolstack(on: control)
    store = try control.openXenstore()
    scheduler = Scheduler(seed: seed)
    scheduler.add(loopback)
    bus = try Bus(on: victim, queueHost: queueHost ?? scheduler.host(of: victim), log: .silent)
    bystanderBus = try Bus(on: bystander, queueHost: scheduler.host(of: bystander), log: .silent)
  }

  deinit { scheduler.removeAll() }

  /// Makes both devices, the hostile peer, and gives the buses their turns.
  ///
  /// - Parameter add: makes a device of this number for a guest and its backend's domain.
  func begin(add: (_ number: Int, _ guest: DomainID, _ backend: DomainID) throws -> Toolstack.Device) throws {
    switch end {
    case .backend:
      device = try add(0, hostile.domain, victim.domain)
      second = try add(1, bystander.domain, victim.domain)
      peer = try HostilePeer(hostile, own: device.frontendPath, other: device.backendPath, of: victim.domain)
    case .frontend:
      device = try add(0, victim.domain, hostile.domain)
      second = try add(1, victim.domain, bystander.domain)
      peer = try HostilePeer(hostile, own: device.backendPath, other: device.frontendPath, of: victim.domain)
    }
    scheduler.add(bus, of: victim, name: "victim's bus") { [bus] _ in bus.poll() }
    scheduler.add(bystanderBus, of: bystander, name: "bystander's bus") { [bystanderBus] _ in bystanderBus.poll() }
  }

  /// Whether the second device does its work: a subclass says what that is.
  func useSecond() throws -> Bool { false }

  @discardableResult
  func run(turns: Int = 2000, until condition: () throws -> Bool) rethrows -> Bool {
    try scheduler.run(turns: turns, until: condition)
  }

  func run(turns: Int) { _ = scheduler.run(turns: turns) { false } }

  /// The other end's state, as the store has it.
  func expectState(_ state: XenbusState, _ location: SourceLocation = #_sourceLocation) throws {
    let reached = try run { try peer.otherState == state }
    let now = try peer.otherState
    try #require(reached, "\(now) is not \(state): \(bus.report)", sourceLocation: location)
  }

  /// The message that the victim left about the first device, without the number before it; nil when there is none.
  var complaint: String? {
    get throws {
      let path = end == .backend ? device.backendPath : device.frontendPath
      let home = "/local/domain/\(victim.domain.rawValue)/"
      let text = try StoreDirectory("\(home)error/\(path.dropFirst(home.count))", in: store).optionalString("error")
      return text.map { String($0.dropFirst(3)) }
    }
  }

  var directory: StoreDirectory { StoreDirectory(device.backendPath, in: store) }

  /// Runs until the victim has closed the device, and says why it has.
  func expectClosed(_ location: SourceLocation = #_sourceLocation) throws -> String {
    let isClosed = try run { try complaint != nil && [.closing, .closed].contains(peer.otherState) }
    let now = try peer.otherState
    try #require(isClosed, "\(now): \(bus.report)", sourceLocation: location)
    return try complaint!
  }

  /// What has to hold after each attack: the process is alive, which this shows by running; the second device works; what
  /// the victim holds is bounded; and when both devices are gone, everything that was shared, mapped and bound is given back.
  ///
  /// - Parameter quarantined: pages that the hostile end was made to leave in use on purpose.
  func check(quarantined: Int = 0, _ location: SourceLocation = #_sourceLocation) throws {
    let works = try useSecond()
    #expect(works, "the second device stands still: \(bus.report + bystanderBus.report)", sourceLocation: location)
    expectBounded(location)
    try removeFirst()
    #expect(try useSecond(), "after the first is gone", sourceLocation: location)
    try checkEnd(quarantined: quarantined, location)
  }

  /// The last part of ``check(quarantined:_:)``.
  func checkEnd(quarantined: Int = 0, _ location: SourceLocation = #_sourceLocation) throws {
    try removeFirst()
    try toolstack.unplug(second)
    _ = try run { try toolstack.isClosed(second) }
    try toolstack.remove(second)
    let isGone = run { holdsNothing(quarantined: quarantined) }
    #expect(
      isGone, "left over: \(loopback.grantCounts), \(loopback.openPortCount) ports, \(loopback.storeCounts)",
      sourceLocation: location)
  }

  /// The device is gone, and whoever maps lets go before who shares.
  private func removeFirst() throws {
    if end == .frontend { peer.dropAll() }
    try toolstack.remove(device)
    run(turns: 20)
    peer.dropAll()
  }

  /// No table grows with what a peer sends.
  func expectBounded(_ location: SourceLocation = #_sourceLocation) {
    let (grants, store) = (loopback.grantCounts, loopback.storeCounts)
    #expect(grants.sharedPages <= 4096 && grants.mappedPages <= 2200, "\(grants)", sourceLocation: location)
    #expect(loopback.openPortCount <= 40, sourceLocation: location)
    #expect(store.watches <= 40 && store.openTransactions <= 1, "\(store)", sourceLocation: location)
    #expect(loopback.waitingWatchEventCount <= 4 * 1100, sourceLocation: location)
  }

  private func holdsNothing(quarantined: Int) -> Bool {
    let counts = loopback.grantCounts
    return counts.sharedPages == 0 && counts.mappedPages == 0 && counts.orphanedPages == 0
      && counts.quarantinedPages == quarantined && loopback.openPortCount == 0
      && loopback.storeCounts.openTransactions == 0
  }
}
