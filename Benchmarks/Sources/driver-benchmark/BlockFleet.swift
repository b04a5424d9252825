import BlkBack
import BlkFront
import XenBus
import XenPlatform

/// Guests with a disk each, of so many queues.
func diskFleet(guestCount: Int, queueCount: Int = 1, host: any QueueHost) throws -> Fleet<BlkFrontDevice> {
  var options = BlkBackOptions()
  options.maxQueueCount = queueCount
  let store = MemoryStore(sectorCount: 1024)
  return try Fleet(guestCount: guestCount, host: host, BlkBackDriver(options: options) { _ in store }) {
    (toolstack, guest, driverDomain) in
    _ = try toolstack.addVbd(to: guest, servedBy: driverDomain, params: "any")
    var options = BlkFrontOptions(poolPageCount: 32 * BlkIf.maxSegmentCount * queueCount)
    options.maxQueueCount = queueCount
    return BlkFrontDevice(options)
  }
}

/// Reads of 4 KiB from each disk in turn, `batch` at a time from each of its queues.
func blockFleet(guestCount: Int, queueCount: Int, batch: Int) throws -> (Int) throws -> Int {
  let host = HandPolled()
  let fleet = try diskFleet(guestCount: guestCount, queueCount: queueCount, host: host)
  let queues = fleet.connect(on: host, queueCount: queueCount)
  return { count in
    var (succeeded, next) = (0, 0)
    while next < count {
      for disk in fleet.devices {
        for _ in 0..<min(batch * queueCount, count - next) {
          try disk.read(sector: UInt64(next) % 128 * 8, byteCount: 4096, tag: UInt64(next))
          next += 1
        }
        disk.push()
      }
      for queue in queues { while queue.poll(now: Uptime(nanoseconds: 0), budget: 64) == .more {} }
      for disk in fleet.devices { disk.poll { if $0.result == .succeeded { succeeded += 1 } } }
    }
    return succeeded
  }
}
