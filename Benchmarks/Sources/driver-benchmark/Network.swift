import NetBack
import NetFront

/// A card with both its drivers, and frames to an end that sends each back, `batch` at a time. What it gives carries a
/// number of frames, and gives how many came back.
func netEcho(_ features: NetFeatures, frameByteCount: Int, batch: Int) throws -> (Int) throws -> Int {
  let domains = try Domains()
  let card = NetFrontDevice(features: features)
  _ = try domains.toolstack.addVif(
    to: domains.guest.domain, servedBy: domains.driverDomain.domain, mac: "00:16:3e:00:00:01",
    mtu: max(NetIf.defaultMTU, frameByteCount - NetIf.headerByteCount - NetIf.vlanTagByteCount))
  try domains.backBus.register(NetBackDriver { _ in EchoEnd() })
  try domains.frontBus.register(card)
  domains.connect()
  let queue = domains.host.queue
  let frame = [UInt8](repeating: 0xA5, count: frameByteCount)
  return { count in
    var returned = 0
    var next = 0
    while next < count {
      for _ in 0..<min(batch, count - next) {
        try card.send(frame.span)
        next += 1
      }
      card.push()
      while queue.poll(now: Uptime(nanoseconds: 0), budget: 64) == .more {}
      card.poll { if $0.byteCount == frame.count { returned += 1 } }
    }
    withExtendedLifetime(domains) {}
    return returned
  }
}
