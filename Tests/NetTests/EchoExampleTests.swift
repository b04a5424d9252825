import NetBack
import NetFront
import TestSupport
import Testing
import XenLoopback

@Test func echoOfTheReadmeSendsBackWhatArrives() async throws {
  let rig = try Rig()
  let end = try InProcessEnd()
  let device = try rig.toolstack.addVif(
    to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
  let backend = try BusThread(on: rig.driverDomain, log: .silent) { (bus) throws(XenstoreError) in
    try bus.register(NetBackDriver { _ in end })
    return nil
  }
  let guest = rig.guest
  let echoing = Task { try await echo(device.frontendPath, on: guest) }
  let sent = (0..<20).map { frame($0, byteCount: 60 + 70 * $0) }
  for one in sent { end.send(one.span) }
  var received: [[UInt8]] = []
  // Asleep, not blocked: the other task may have to wait for this one's thread.
  for _ in 0..<6000 where received.count < sent.count {
    try await Task.sleep(for: .milliseconds(10))
    end.receive { received.append($0.bytes.copied()) }
  }
  let isWhole = received == sent
  #expect(isWhole, "\(received.count) frames of \(sent.count)")
  echoing.cancel()
  try await echoing.value
  backend.end(within: 10)
  backend.join()
  #expect(rig.holdsNothing)
}
