import BlkBack
import BlkFront
import Logging
import Measuring
import XenBus
import XenLoopback

/// Guests with a disk each, served by one domain.
final class Fleet {
  let loopback = Loopback()
  private(set) var disks: [BlkFrontDevice] = []
  private var frontBuses: [Bus] = []
  private let backBus: Bus

  init(guestCount: Int, queueCount: Int, host: any QueueHost) throws {
    let log = Logger(label: "benchmark") { _ in SwiftLogNoOpLogHandler() }
    let driverDomain = loopback.addDomain()
    let toolstack = try Toolstack(on: driverDomain)
    backBus = try Bus(on: driverDomain, queueHost: host, log: log)
    var options = BlkBackOptions()
    options.maxQueueCount = queueCount
    let store = MemoryStore(sectorCount: 1024)
    try backBus.register(BlkBackDriver(options: options) { _ in store })
    for _ in 0..<guestCount {
      let guest = loopback.addDomain()
      guest.sharedPageLimit = 65536
      _ = try toolstack.addVbd(to: guest.domain, servedBy: driverDomain.domain, params: "any")
      let bus = try Bus(on: guest, queueHost: host, log: log)
      var options = BlkFrontOptions(poolPageCount: 32 * BlkIf.maxSegmentCount * queueCount)
      options.maxQueueCount = queueCount
      let disk = BlkFrontDevice(options)
      try bus.register(disk)
      frontBuses.append(bus)
      disks.append(disk)
    }
  }

  /// Polls all the buses by turns until every disk is connected.
  func connect() {
    var rounds = 0
    while !disks.allSatisfy(\.isConnected) || !backBus.isConnected {
      backBus.poll()
      for bus in frontBuses { bus.poll() }
      rounds += 1
      precondition(rounds < 1_000_000, "the disks do not connect: \(backBus.report)")
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

/// Requests of 4 KiB to each disk in turn, `batch` at a time to each of its queues.
func blockFleet(
  guestCount: Int, queueCount: Int, writing: Bool, batch: Int
) throws -> (Int) throws -> Int {
  let host = HandPolled()
  let fleet = try Fleet(guestCount: guestCount, queueCount: queueCount, host: host)
  fleet.connect()
  let queues = host.allQueues
  precondition(queues.count == guestCount * queueCount, "as many queues as are asked for")
  return { count in
    var (succeeded, next) = (0, 0)
    while next < count {
      for disk in fleet.disks {
        for _ in 0..<min(batch * queueCount, count - next) {
          try disk.read(sector: UInt64(next) % 128 * 8, byteCount: 4096, tag: UInt64(next))
          next += 1
        }
        disk.push()
      }
      for queue in queues { while queue.poll(now: Uptime(nanoseconds: 0), budget: 64) == .more {} }
      for disk in fleet.disks { disk.poll { if $0.result == .succeeded { succeeded += 1 } } }
    }
    return succeeded
  }
}

/// Connects the disks and prints what that took for each: milliseconds; KiB of resident memory, descriptors and threads.
func printConnecting(guestCount: Int, onThreads: Bool) throws {
  let resident = ProcessUse.residentKibibytes
  let start = ContinuousClock.now
  let host: any QueueHost = onThreads ? ThreadPerQueue() : HandPolled()
  let fleet = try Fleet(guestCount: guestCount, queueCount: 1, host: host)
  fleet.connect()
  let elapsed = (ContinuousClock.now - start) / .milliseconds(1)
  let grown = ProcessUse.residentKibibytes - resident
  print(
    (elapsed / Double(guestCount)).fixed(3), grown / guestCount,
    (Double(ProcessUse.descriptorCount) / Double(guestCount)).fixed(1),
    (Double(ProcessUse.threadCount) / Double(guestCount)).fixed(1))
  fleet.close()
}
