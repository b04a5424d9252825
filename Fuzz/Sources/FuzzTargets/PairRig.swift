import Logging
import XenBus
import XenLoopback
import XenPlatform

/// One device with both its ends, and whose turn it is decided by the input.
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
  var frontBus: Bus { buses!.front }
  var backBus: Bus { buses!.back }
  /// Whether an end has been taken away, or something made to fail: then requests may fail.
  private(set) var isDisturbed = false

  init(
    frontend: any FrontendDriver, backend: any BackendDriver,
    add: (Toolstack, _ guest: DomainID, _ driverDomain: DomainID) throws(DeviceError) -> Toolstack.Device
  ) throws {
    (control, guest, driverDomain) = (loopback.addDomain(), loopback.addDomain(), loopback.addDomain())
    toolstack = try Toolstack(on: control)
    device = try add(toolstack, guest.domain, driverDomain.domain)
    (self.frontend, self.backend) = (frontend, backend)
    buses = (try Self.bus(of: guest, host), try Self.bus(of: driverDomain, host))
    try frontBus.register(frontend)
    try backBus.register(backend)
  }

  private static func bus(of domain: LoopbackDomain, _ host: InputHost) throws -> Bus {
    try Bus(on: domain, queueHost: host, log: Logger(label: "fuzz") { _ in SwiftLogNoOpLogHandler() })
  }

  /// Runs both fairly until the condition holds; whether it does.
  func settle(turns: Int = 2000, _ condition: () -> Bool) -> Bool {
    for _ in 0..<turns {
      if condition() { return true }
      loopback.deliverHeldEvents()
      frontBus.poll()
      backBus.poll()
      host.pollAll()
    }
    return condition()
  }

  /// One step of the input's choosing, beside those that make requests.
  func step(_ input: inout FuzzInput) throws {
    switch input.next(UInt8.self) % 16 {
    case 0...4: host.poll(input.below(4), budget: 1 + input.below(8))
    case 5, 6: frontBus.poll()
    case 7, 8: backBus.poll()
    case 9: loopback.deliverHeldEvents()
    case 10: host.pass(milliseconds: UInt64(input.next(UInt16.self)))
    case 11, 12:
      var faults = EventFaults()
      let kinds = input.next(UInt8.self)
      if kinds & 1 != 0 { faults.delayed = .oneIn(2) }
      if kinds & 2 != 0 { faults.duplicated = .oneIn(2) }
      if kinds & 4 != 0 { faults.spurious = .oneIn(2) }
      loopback.eventFaults = faults
    case 13:
      var faults = GrantFaults()
      let kinds = input.next(UInt8.self)
      if kinds & 1 != 0 { faults.failedCopy = .next(1 + input.below(3)) }
      if kinds & 2 != 0 { faults.failedMap = .next(1) }
      loopback.grantFaults = faults
      isDisturbed = true
    case 14:
      // A backend's process that ends and begins again: it takes leave of nobody.
      guard input.next(UInt8.self) < 32 else { break }
      isDisturbed = true
      // It ends before the next one begins.
      let front = frontBus
      buses = nil
      buses = (front, try Self.bus(of: driverDomain, host))
      try backBus.register(backend)
    default:
      guard input.next(UInt8.self) < 16 else { break }
      isDisturbed = true
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
    _ = settle(turns: 30) { false }
    frontBus.close()
    backBus.close()
    require(settle { frontBus.isEmpty && backBus.isEmpty }, "both ends let go: \(frontBus.report) \(backBus.report)")
    buses = nil
    let counts = loopback.grantCounts
    require(
      counts.sharedPages == 0 && counts.mappedPages == 0 && counts.quarantinedPages == 0 && counts.orphanedPages == 0,
      "pages are left: \(counts)")
    require(loopback.openPortCount == 0, "\(loopback.openPortCount) ports are left")
  }
}
