import BlkFront
import Testing
import XenLoopback

@Test func zeroStoreOfTheReadmeServesADisk() throws {
  let loopback = Loopback()
  let domainZero = loopback.addDomain()
  let guest = loopback.addDomain()
  let back = try serveZeros(on: domainZero)
  let front = try Bus(on: guest, log: .silent)
  let disk = BlkFrontDevice()
  try front.register(disk)
  _ = try Toolstack(on: domainZero).addVbd(
    to: guest.domain, servedBy: domainZero.domain, params: "", backendType: "zero")
  let connected = front.run(seconds: 300) {
    back.poll()
    return disk.isConnected
  }
  try #require(connected, "\(front.report + back.report)")
  #expect(disk.geometry?.sectorCount == 1 << 21)
  try disk.read(sector: 7, byteCount: 1024, tag: 1)
  disk.push()
  var read: [UInt8]?
  for _ in 0..<1000 where read == nil {
    disk.poll { read = $0.copied() }
    if let descriptor = disk.descriptor { Wakeup.wait(for: descriptor, timeout: 10) }
  }
  #expect(read == [UInt8](repeating: 0, count: 1024))
}
