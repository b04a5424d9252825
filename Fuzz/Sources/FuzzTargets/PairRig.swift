import Logging
import XenBus
import XenLoopback
import XenPlatform

/// One device with both its ends. Whose turn it is the input decides, of those that have reason to have one: an event, or an
/// instant that they asked for. So a wake-up that is lost leaves somebody asleep, and what he owes is missing at the end.
final class PairRig {
  let loopback = Loopback()
  let control: LoopbackDomain
  let guest: LoopbackDomain
  let driverDomain: LoopbackDomain
  let toolstack: Toolstack
  let host = InputHost()
  let device: Toolstack.Device
  private let frontend: any FrontendDriver
  private let backend: any BackendDriver
  private var buses: (front: Bus, back: Bus)?
  private var sleepers: (front: Sleeper, back: Sleeper)?
  /// The guest's, on the thread of its bus, and whoever else uses the device.
  private var users: [Sleeper] = []
  var frontBus: Bus { buses!.front }
  var backBus: Bus { buses!.back }
  /// Whether an end has been taken away, or something made to fail: then requests may fail.
  private(set) var isDisturbed = false
  /// Whether it may be for good: the device was withdrawn, or what it needs to connect was refused.
  private(set) var isPerhapsGone = false

  init(
    frontend: any FrontendDriver, backend: any BackendDriver,
    add: (Toolstack, _ guest: DomainID, _ driverDomain: DomainID) throws(DeviceError) -> Toolstack.Device
  ) throws {
    (control, guest, driverDomain) = (loopback.addDomain(), loopback.addDomain(), loopback.addDomain())
    toolstack = try Toolstack(on: control)
    device = try add(toolstack, guest.domain, driverDomain.domain)
    (self.frontend, self.backend) = (frontend, backend)
    let (front, back) = (try Self.bus(of: guest, host), try Self.bus(of: driverDomain, host))
    buses = (front, back)
    sleepers = (
      Sleeper(
        descriptors: { front.descriptors },
        poll: { [unowned self] _, _ in
          defer { users.first?.wake() }
          return front.poll()
        }), Self.sleeper(of: back)
    )
    try front.register(frontend)
    try back.register(backend)
  }

  private static func sleeper(of bus: Bus) -> Sleeper {
    Sleeper(descriptors: { bus.descriptors }, poll: { _, _ in bus.poll() })
  }

  /// Has somebody use the device, the guest first.
  func add(_ user: Sleeper) { users.append(user) }

  /// A turn of each of them that has reason to have one.
  @discardableResult
  func pollUsers() -> Bool {
    var hasTurned = false
    for user in users where user.turn(at: host.now) { hasTurned = true }
    return hasTurned
  }

  private static func bus(of domain: LoopbackDomain, _ host: InputHost) throws -> Bus {
    try Bus(on: domain, queueHost: host, log: Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() })
  }

  /// How long everything may take when nothing fails any more: longer than any event is held back for a storm of them, and
  /// shorter than what queues look after by their own clocks, which would find what nobody told them of.
  private static let patience: UInt64 = 300

  /// Gives turns to all that have reason to have one until the condition holds or everybody sleeps: whether it does. Time
  /// passes only when everybody sleeps.
  func settle(until condition: () -> Bool) -> Bool {
    let end = Uptime(nanoseconds: host.now.nanoseconds + Self.patience * 1_000_000)
    for _ in 0..<4000 {
      if condition() { return true }
      let hasTurned = turnAll()
      if loopback.deliverHeldEvents() > 0 || hasTurned { continue }
      guard let next = wakesAt, next <= end else { break }
      host.pass(to: next)
    }
    return condition()
  }

  private func turnAll() -> Bool {
    let turns = [
      sleepers?.front.turn(at: host.now) == true, sleepers?.back.turn(at: host.now) == true, host.pollAll(),
      pollUsers(),
    ]
    return turns.contains(true)
  }

  private var wakesAt: Uptime? {
    ([sleepers?.front.wakesAt, sleepers?.back.wakesAt, host.wakesAt] + users.map(\.wakesAt)).compactMap(\.self).min()
  }

  /// One step of the input's choosing, beside those that make requests.
  func step(_ input: inout FuzzInput) throws {
    switch input.next(UInt8.self) % 16 {
    case 0...4: host.poll(input.below(4), budget: 1 + input.below(8))
    case 5, 6: sleepers?.front.turn(at: host.now)
    case 7, 8: sleepers?.back.turn(at: host.now)
    case 9:
      loopback.deliverHeldEvents()
      // Now and then a storm: who hears too often of nothing does not listen for a while.
      let count = input.next(UInt8.self)
      guard count >= 192 else { break }
      for _ in 0..<Int(count - 190) {
        _ = turnAll()
        loopback.deliverHeldEvents()
      }
    case 10: host.pass(milliseconds: UInt64(input.next(UInt16.self)))
    case 11, 12:
      var faults = EventFaults()
      let kinds = input.next(UInt8.self)
      if kinds & 1 != 0 { faults.delayed = .oneIn(2) }
      if kinds & 2 != 0 { faults.duplicated = .oneIn(2) }
      if kinds & 4 != 0 { faults.spurious = .oneIn(kinds & 8 != 0 ? 1 : 2) }
      loopback.eventFaults = faults
    case 13:
      var faults = GrantFaults()
      let kinds = input.next(UInt8.self)
      if kinds & 1 != 0 { faults.failedCopy = .next(1 + input.below(3)) }
      if kinds & 2 != 0 {
        faults.failedMap = .next(1)
        isPerhapsGone = true
      }
      loopback.grantFaults = faults
      isDisturbed = true
    case 14:
      // A backend's process that ends and begins again: it takes leave of nobody.
      guard input.next(UInt8.self) < 32 else { break }
      isDisturbed = true
      // It ends before the next one begins.
      let (front, frontSleeper) = (frontBus, sleepers!.front)
      (buses, sleepers) = (nil, nil)
      let back = try Self.bus(of: driverDomain, host)
      (buses, sleepers) = ((front, back), (frontSleeper, Self.sleeper(of: back)))
      try back.register(backend)
    default:
      guard input.next(UInt8.self) < 16 else { break }
      (isDisturbed, isPerhapsGone) = (true, true)
      try toolstack.unplug(device)
    }
  }

  func endFaults() {
    loopback.eventFaults = EventFaults()
    loopback.grantFaults = GrantFaults()
  }

  /// Both take leave and end; then nothing is held.
  func finish() {
    // A backend that has just begun again takes its devices up first: one that does not is gone, and its frontend waits.
    _ = settle { false }
    frontBus.close()
    backBus.close()
    sleepers?.front.wake()
    sleepers?.back.wake()
    require(settle { frontBus.isEmpty && backBus.isEmpty }, "both ends let go: \(frontBus.report) \(backBus.report)")
    pollUsers()
    // Whoever holds a bus holds what it has open.
    (buses, sleepers, users) = (nil, nil, [])
    let counts = loopback.grantCounts
    require(
      counts.sharedPages == 0 && counts.mappedPages == 0 && counts.quarantinedPages == 0 && counts.orphanedPages == 0,
      "pages are left: \(counts)")
    require(loopback.openPortCount == 0, "\(loopback.openPortCount) ports are left")
  }
}
