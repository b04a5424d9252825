import Logging
import Measuring
import XenBus
import XenLoopback
import XenPlatform

/// Guests with a device each, served by one domain.
final class Fleet<Device: FrontendDriver> {
  let loopback = Loopback()
  private(set) var devices: [Device] = []
  private var frontBuses: [Bus] = []
  private let backBus: Bus

  /// - Parameter makeDevice: adds a device to a guest, which a domain serves, and gives its frontend.
  init(
    guestCount: Int, host: any QueueHost, _ driver: any BackendDriver,
    makeDevice: (_ toolstack: Toolstack, _ guest: DomainID, _ servedBy: DomainID) throws -> Device
  ) throws {
    let log = Logger(label: "benchmark") { _ in SwiftLogNoOpLogHandler() }
    let driverDomain = loopback.addDomain()
    let toolstack = try Toolstack(on: driverDomain)
    backBus = try Bus(on: driverDomain, queueHost: host, log: log)
    try backBus.register(driver)
    for _ in 0..<guestCount {
      let guest = loopback.addDomain()
      guest.sharedPageLimit = 65536
      let device = try makeDevice(toolstack, guest.domain, driverDomain.domain)
      let bus = try Bus(on: guest, queueHost: host, log: log)
      try bus.register(device)
      frontBuses.append(bus)
      devices.append(device)
    }
  }

  /// Connects all.
  ///
  /// - Returns: their queues, which are to be polled by hand.
  func connect(on host: HandPolled, queueCount: Int) -> [any DataQueue] {
    connect()
    let queues = host.allQueues
    precondition(queues.count == devices.count * queueCount, "as many queues as are asked for")
    return queues
  }

  /// Polls all the buses by turns until every device is connected.
  func connect() {
    var rounds = 0
    while !frontBuses.allSatisfy(\.isConnected) || !backBus.isConnected {
      backBus.poll()
      for bus in frontBuses { bus.poll() }
      rounds += 1
      precondition(rounds < 1_000_000, "the devices do not connect: \(backBus.report)")
    }
  }

  func close() {
    for bus in frontBuses { bus.close() }
    while !frontBuses.allSatisfy(\.isEmpty) {
      for bus in frontBuses { bus.poll() }
      backBus.poll()
    }
  }
}

/// Connects a fleet and prints what that took for each device: milliseconds; KiB of resident memory, descriptors and threads.
///
/// - Parameter makeFleet: of so many guests.
func printConnecting<Device>(
  guestCount: Int, onThreads: Bool, _ makeFleet: (Int, any QueueHost) throws -> Fleet<Device>
) throws {
  let resident = ProcessUse.residentKibibytes
  let start = ContinuousClock.now
  let host: any QueueHost = onThreads ? ThreadPerQueue() : HandPolled()
  let fleet = try makeFleet(guestCount, host)
  fleet.connect()
  let elapsed = (ContinuousClock.now - start) / .milliseconds(1)
  let grown = ProcessUse.residentKibibytes - resident
  print(
    (elapsed / Double(guestCount)).fixed(3), grown / guestCount,
    (Double(ProcessUse.descriptorCount) / Double(guestCount)).fixed(1),
    (Double(ProcessUse.threadCount) / Double(guestCount)).fixed(1))
  fleet.close()
}
