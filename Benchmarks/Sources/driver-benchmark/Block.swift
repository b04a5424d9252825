import BlkBack
import BlkFront
import XenLoopback

/// A disk with both its drivers, and requests of `byteCount` bytes to it, `batch` at a time. What it gives carries a number of
/// requests, and gives how many succeeded.
///
/// - Parameter isInPlace: what is written is written where the backend takes it from, in place of being copied there.
func block(
  writing: Bool, isInPlace: Bool = false, byteCount: Int = 4096, batch: Int,
  store: any BlockStore = MemoryStore(sectorCount: 1024)
) throws -> (Int) throws -> Int {
  let domains = try Domains()
  let disk = BlkFrontDevice()
  _ = try domains.toolstack.addVbd(
    to: domains.guest.domain, servedBy: domains.driverDomain.domain, params: "any")
  try domains.backBus.register(BlkBackDriver { _ in store })
  try domains.frontBus.register(disk)
  domains.connect()
  let queue = domains.host.queue
  let payload = [UInt8](repeating: 0xA5, count: byteCount)
  let sectorsEach = UInt64(byteCount / 512)
  let places = store.geometry.sectorCount / sectorsEach
  return { count in
    var succeeded = 0
    var (next, inFlight) = (0, 0)
    while next < count {
      for _ in 0..<min(batch, count - next) {
        let sector = UInt64(next) % places * sectorsEach
        if writing, isInPlace {
          // As whoever makes the bytes there: one copy, of which the drivers know nothing.
          try disk.write(sector: sector, byteCount: byteCount, tag: UInt64(next)) { $0.copy(from: payload.span) }
        } else if writing {
          try disk.write(sector: sector, payload.span, tag: UInt64(next))
        } else {
          try disk.read(sector: sector, byteCount: byteCount, tag: UInt64(next))
        }
        next += 1
        inFlight += 1
      }
      disk.push()
      // At once, unless the store is a file.
      repeat {
        while queue.poll(now: Uptime(nanoseconds: 0), budget: 64) == .more {}
        inFlight -= disk.poll { if $0.result == .succeeded { succeeded += 1 } }
      } while inFlight > 0
    }
    withExtendedLifetime(domains) {}
    return succeeded
  }
}
