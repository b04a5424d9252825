import BlkBack
import BlkFront
import NetBack
import NetFront
import TestSupport
import XenLoopback
import XenPlatform

/// A whole system by one seed: a control domain, a driver domain, and two guests with two disks and a card each; and everything
/// that happens to such a system.
final class SimulatedXen {
  final class Guest {
    let disks: [SimulatedDisk]
    let card: SimulatedCard
    /// By number, for disks and then the card.
    var devices: [Toolstack.Device?]
    fileprivate(set) var process: LoopbackDomain
    fileprivate(set) var bus: Bus?

    init(_ process: LoopbackDomain, disks: [SimulatedDisk], card: SimulatedCard) {
      (self.process, self.disks, self.card) = (process, disks, card)
      devices = Array(repeating: nil, count: disks.count + 1)
    }

    var domain: DomainID { process.domain }
  }

  let loopback: Loopback
  let scheduler: Scheduler
  let toolstack: Toolstack
  private(set) var guests: [Guest] = []
  private var driver: LoopbackDomain
  private var driverBus: Bus?
  private var random: SeededGenerator
  /// What has happened, for whoever looks at a seed.
  private(set) var story: [String] = []

  init(seed: Seed) throws {
    random = SeededGenerator(seed)
    loopback = Loopback(seed: seed.value)
    // Those below fifty go on as they always have.
    scheduler = Scheduler(seed: seed, looks: seed.value > 50)
    scheduler.add(loopback)
    toolstack = try Toolstack(on: loopback.addDomain())
    driver = loopback.addDomain()
    for index in 0..<2 {
      let domain = loopback.addDomain()
      var options = BlkFrontOptions()
      options.maxQueueCount = Int.random(in: 1...3, using: &random)
      options.maxRingPageOrder = Int.random(in: 0...1, using: &random)
      options.poolPageCount = 64
      options.usesPersistentGrants = Bool.random(using: &random)
      guests.append(
        Guest(
          domain, disks: (0..<2).map { SimulatedDisk(10 * index + $0, options: options) }, card: SimulatedCard(index)))
    }
    try startDriver()
    for guest in guests {
      for number in guest.devices.indices { try plug(number, of: guest) }
      try start(guest)
    }
  }

  deinit { scheduler.removeAll() }

  // MARK: Processes

  private func startDriver() throws {
    let process = loopback.addProcess(in: driver.domain)
    let bus = try Bus(on: process, queueHost: scheduler.host(of: process), log: .silent)
    try bus.register(BlkBackDriver { [unowned self] in disk(at: $0.own.path).medium.server() })
    try bus.register(NetBackDriver { [unowned self] in card(at: $0.own.path).end() })
    scheduler.add(bus, of: process, name: "driver domain's bus") { _ in bus.poll() }
    (driver, driverBus) = (process, bus)
  }

  private func owner(of backendPath: String) -> (Guest, Int) {
    for guest in guests {
      if let number = guest.devices.firstIndex(where: { $0?.backendPath == backendPath }) { return (guest, number) }
    }
    preconditionFailure("\(backendPath) is nobody's")
  }

  private func disk(at path: String) -> SimulatedDisk {
    let (guest, number) = owner(of: path)
    return guest.disks[number]
  }

  private func card(at path: String) -> SimulatedCard { owner(of: path).0.card }

  private func start(_ guest: Guest) throws {
    let process = loopback.addProcess(in: guest.domain)
    let bus = try Bus(on: process, queueHost: scheduler.host(of: process), log: .silent)
    for (number, disk) in guest.disks.enumerated() {
      try bus.register(disk.front, at: path(number, of: guest).frontendPath)
    }
    try bus.register(guest.card.front, at: path(guest.disks.count, of: guest).frontendPath)
    scheduler.add(bus, of: process, name: "guest's bus") { _ in bus.poll() }
    (guest.process, guest.bus) = (process, bus)
  }

  // MARK: Devices

  private func path(_ number: Int, of guest: Guest) -> Toolstack.Device {
    let isDisk = number < guest.disks.count
    return Toolstack.Device(
      type: isDisk ? "vbd" : "vif", number: isDisk ? 51712 + 16 * number : 0, of: guest.domain, servedBy: driver.domain)
  }

  private func plug(_ number: Int, of guest: Guest) throws {
    guest.devices[number] = path(number, of: guest)
    if number < guest.disks.count {
      _ = try toolstack.addVbd(51712 + 16 * number, to: guest.domain, servedBy: driver.domain, params: "disk")
    } else {
      _ = try toolstack.addVif(
        to: guest.domain, servedBy: driver.domain, mac: "00:16:3e:00:00:0\(guest.domain.rawValue)")
    }
  }

  /// As `xl block-detach` does it, with the simulation's time in the place of the tool's.
  private func unplug(_ number: Int, of guest: Guest) throws {
    guard let device = guest.devices[number] else { return }
    try toolstack.unplug(device)
    _ = try scheduler.run(turns: 100) {
      work()
      return try toolstack.isClosed(device)
    }
    try toolstack.remove(device)
    guest.devices[number] = nil
  }

  // MARK: What happens

  private enum Event: CaseIterable {
    case nothing, suspendGuest, killGuest, killDriver, closeDriver, detachDriver, replug, faultyEvents, honestEvents
    case failedShare, failedMap, failedCopy, fewPages, smallQuota, mend
  }

  /// Lets things happen, so many one after the other, with work between them.
  func happen(_ count: Int) throws {
    run(turns: 500) { isAllConnected }
    for _ in 0..<count {
      let event = Event.allCases.randomElement(using: &random)!
      story.append("\(event)")
      let guest = guests.randomElement(using: &random)!
      switch event {
      case .nothing: break
      case .suspendGuest:
        guest.process.suspendAndResume()
        // On another host, or on this one again.
        if Bool.random(using: &random) {
          for number in guest.devices.indices where guest.devices[number] != nil {
            try toolstack.remove(guest.devices[number]!)
            try plug(number, of: guest)
          }
        }
        guest.bus?.resume()
      case .killGuest:
        guest.process.kill()
        if let bus = guest.bus { scheduler.remove(bus) }
        guest.bus = nil
        turns()
        for disk in guest.disks { disk.beginAnew() }
        guest.card.beginAnew()
        try start(guest)
      case .killDriver: try endDriver { _ in }
      case .closeDriver:
        try endDriver { bus in
          bus.close()
          turns()
        }
      case .detachDriver: try endDriver { _ = $0.detach() }
      case .replug:
        let number = guest.devices.indices.randomElement(using: &random)!
        try unplug(number, of: guest)
        turns()
        try plug(number, of: guest)
      case .faultyEvents:
        loopback.eventFaults.delayed = .oneIn(Int.random(in: 1...4, using: &random))
        loopback.eventFaults.duplicated = .oneIn(Int.random(in: 1...4, using: &random))
        loopback.eventFaults.spurious = .oneIn(Int.random(in: 1...4, using: &random))
      case .honestEvents: loopback.eventFaults = EventFaults()
      case .failedShare: loopback.grantFaults.failedShare = .next(1)
      case .failedMap: loopback.grantFaults.failedMap = .next(Int.random(in: 1...4, using: &random))
      case .failedCopy: loopback.grantFaults.failedCopy = .next(Int.random(in: 1...4, using: &random))
      case .fewPages: guest.process.sharedPageLimit = Int.random(in: 0...200, using: &random)
      case .mend:
        calm()
        try lookIn()
      case .smallQuota: loopback.storeQuotas.nodesPerDomain = Int.random(in: 0...120, using: &random)
      }
      turns()
    }
  }

  private func endDriver(_ leave: (Bus) -> Void) throws {
    if let bus = driverBus {
      leave(bus)
      driver.kill()
      scheduler.remove(bus)
    }
    driverBus = nil
    turns()
    try startDriver()
  }

  private func work() {
    for guest in guests {
      for disk in guest.disks { disk.work(&random) }
      guest.card.work(&random, now: scheduler.now)
    }
  }

  private func turns() {
    for _ in 0..<Int.random(in: 1...24, using: &random) {
      work()
      scheduler.round()
    }
  }

  // MARK: What must hold

  /// The first thing that is wrong now; nil when nothing is.
  var fault: String? {
    for guest in guests {
      for disk in guest.disks { if let fault = disk.fault { return fault } }
      if let fault = guest.card.fault { return fault }
    }
    return nil
  }

  /// Nothing fails any more, and time passes: every device is connected, or closed with a reason, or waits for something that
  /// its report names.
  ///
  /// - Returns: what is none of these; nil when there is no such device.
  func settle() -> String? {
    calm()
    run(turns: 300) { false }
    for line in reports where !isExplained(line) { return line }
    return nil
  }

  private func calm() {
    loopback.eventFaults = EventFaults()
    loopback.grantFaults = GrantFaults()
    loopback.storeQuotas = StoreQuotas()
    for guest in guests { guest.process.sharedPageLimit = 4096 }
  }

  /// What the administrator does about devices that do not go on by themselves.
  ///
  /// A disk whose live ring could not be mapped by the process that was to go on with it is held, and rests there by design: its
  /// frontend has noticed nothing and is connected, so it is told by the bus's report alone; what it waits for is a backend that
  /// tries again, by a start or by a call for attention. To plug it anew would close a disk that is in use.
  private func lookIn() throws {
    if let bus = driverBus, !bus.heldDevices.isEmpty {
      story.append("call for \(bus.heldDevices.count) held devices")
      bus.callForAttention()
      run(turns: 20) { bus.heldDevices.isEmpty }
    }
    for guest in guests {
      for number in guest.devices.indices where !isConnected(number, of: guest) {
        story.append("replug \(number) of \(guest.domain)")
        try unplug(number, of: guest)
        try plug(number, of: guest)
      }
    }
  }

  private var reports: [String] { (guests.compactMap(\.bus) + [driverBus!]).flatMap(\.report) }

  private func isExplained(_ line: String) -> Bool {
    guard let state = line.split(separator: ": ", maxSplits: 1).last else { return false }
    return state.hasPrefix("connected") || state.hasPrefix("waits for ") || state.hasPrefix("closed; ")
      || state.hasPrefix("refused; ") || state == "closed"
  }

  @discardableResult
  private func run(turns: Int, until condition: () -> Bool) -> Bool {
    scheduler.run(turns: turns) {
      for guest in guests {
        for disk in guest.disks { disk.take() }
        guest.card.work(&random, now: scheduler.now)
      }
      return condition()
    }
  }

  /// What is held is called for, and what closed for a fault is made anew; then everything has to be connected.
  ///
  /// - Returns: what is not; nil when everything is.
  func mend() throws -> String? {
    try lookIn()
    let isMended = run(turns: 2000) { isAllConnected && isIdle }
    return isMended ? nil : "\(reports)"
  }

  private func isConnected(_ number: Int, of guest: Guest) -> Bool {
    number < guest.disks.count ? guest.disks[number].front.isConnected : guest.card.front.isConnected
  }

  private var isAllConnected: Bool {
    driverBus!.isConnected
      && guests.allSatisfy { guest in guest.devices.indices.allSatisfy { isConnected($0, of: guest) } }
  }

  /// Reads every disk again, area by area, and compares it with what was acknowledged.
  func readAll() throws -> Bool {
    for area in 0..<SimulatedDisk.areaCount {
      for guest in guests { for disk in guest.disks { try disk.readArea(area) } }
      guard run(turns: 500, until: { isIdle }) else { return false }
    }
    return true
  }

  private var isIdle: Bool { guests.allSatisfy { $0.disks.allSatisfy { $0.front.inFlightCount == 0 } } }

  var acknowledgedCount: Int { guests.reduce(0) { $0 + $1.disks.reduce(0) { $0 + $1.acknowledged } } }
  var frameCount: Int { guests.reduce(0) { $0 + $1.card.toGuest.count + $1.card.toNetwork.count } }

  /// Withdraws everything; nothing may then be shared, mapped or bound, nor in use by whoever should have let go of it.
  ///
  /// - Returns: what is left; nil when nothing is.
  func end() throws -> String? {
    for guest in guests { for number in guest.devices.indices { try unplug(number, of: guest) } }
    run(turns: 50) { false }
    let counts = loopback.grantCounts
    let isEmpty =
      counts.sharedPages == 0 && counts.mappedPages == 0 && counts.quarantinedPages == 0 && counts.orphanedPages == 0
      && loopback.openPortCount == 0 && loopback.storeCounts.openTransactions == 0
    return isEmpty ? nil : "left over: \(counts), \(loopback.openPortCount) ports, \(reports)"
  }
}
