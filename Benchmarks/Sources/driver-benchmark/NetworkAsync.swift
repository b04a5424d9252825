import NetBack
import NetFront
import XenLoopback

/// Frames of 1500 bytes to an end that sends each back, `batch` at a time, each batch received before the next one goes, with
/// both ends on threads; gives the number that came back.
///
/// What it costs depends on how the threads meet, as for ``blockAsync(batch:count:)``: count its allocations.
func netAsync(batch: Int, count: Int) throws -> Int {
  let loopback = Loopback()
  let driverDomain = loopback.addDomain()
  let guest = loopback.addDomain()
  let device = try Toolstack(on: driverDomain).addVif(
    to: guest.domain, servedBy: driverDomain.domain, mac: "00:16:3e:00:00:01")
  let backend = try BusThread(on: driverDomain) { (bus) throws(XenstoreError) in
    try bus.register(NetBackDriver { _ in EchoEnd() })
    return nil
  }
  return try wait(servedBy: backend) { try await echo(device.frontendPath, guest, batch: batch, count) }
}

private func echo(_ path: String, _ guest: LoopbackDomain, batch: Int, _ count: Int) async throws -> Int {
  let card = try await NetFrontCard.connect(to: path, on: guest)
  var frames = NetFrameBatch()
  let frame = [UInt8](repeating: 0xA5, count: 1500)
  for _ in 0..<batch { frames.append(frame.span) }
  var returned = 0
  var received = card.received.makeAsyncIterator()
  for sent in 1...count / batch {
    let refusals = try await card.transmit(frames)
    precondition(refusals.isEmpty, "each of them can be sent")
    while returned < sent * batch, let arrived = await received.next() { returned += arrived.count }
  }
  await card.close()
  return returned
}
