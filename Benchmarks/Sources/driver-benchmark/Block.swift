import BlkBack
import BlkFront
import XenLoopback

/// Requests of 4 KiB to a disk in memory; gives the number that succeeded.
func blockRequests(writing: Bool, batch: Int, count: Int) throws -> Int {
  let domains = try Domains()
  let disk = BlkFrontDevice()
  let store = MemoryStore(sectorCount: 1024)
  _ = try domains.toolstack.addVbd(
    to: domains.guest.domain, servedBy: domains.driverDomain.domain, params: "memory")
  try domains.backBus.register(BlkBackDriver { _ in store })
  try domains.frontBus.register(disk)
  domains.connect()
  let queue = domains.host.queue
  let page = [UInt8](repeating: 0xA5, count: 4096)
  var succeeded = 0
  var next = 0
  while next < count {
    for _ in 0..<min(batch, count - next) {
      let sector = UInt64(next % 128) * 8
      if writing {
        try disk.write(sector: sector, page.span, tag: UInt64(next))
      } else {
        try disk.read(sector: sector, byteCount: 4096, tag: UInt64(next))
      }
      next += 1
    }
    disk.push()
    while queue.poll(now: Uptime(nanoseconds: 0), budget: 64) == .more {}
    disk.poll { if $0.result == .succeeded { succeeded += 1 } }
  }
  return succeeded
}
