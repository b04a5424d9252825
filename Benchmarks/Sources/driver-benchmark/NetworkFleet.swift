import NetBack
import NetFront

/// Guests with a network card each, of so many queues, whose frames all come back.
func cardFleet(guestCount: Int, queueCount: Int = 1, host: any QueueHost) throws -> Fleet<NetFrontDevice> {
  let features = NetFeatures(maxQueueCount: queueCount)
  let end = EchoEnd()
  return try Fleet(guestCount: guestCount, host: host, NetBackDriver(features: features) { _ in end }) {
    (toolstack, guest, driverDomain) in
    _ = try toolstack.addVif(to: guest, servedBy: driverDomain, mac: "00:16:3e:00:00:01")
    return NetFrontDevice(features: features)
  }
}

/// Frames of 1500 bytes from each card in turn and back, `batch` at a time for each of its queues; which one takes a frame is
/// its flow's, of which there are 64.
func netFleet(guestCount: Int, queueCount: Int, batch: Int) throws -> (Int) throws -> Int {
  let host = HandPolled()
  let fleet = try cardFleet(guestCount: guestCount, queueCount: queueCount, host: host)
  let queues = fleet.connect(on: host, queueCount: queueCount)
  let frames = (0..<64).map { tcpFrame(byteCount: 1500, port: 40_000 + UInt16($0)) }
  return { count in
    var (returned, next) = (0, 0)
    while next < count {
      for card in fleet.devices {
        for _ in 0..<min(batch * queueCount, count - next) {
          let frame = frames[next & 63]
          try card.send(frame.span)
          next += 1
        }
        card.push()
      }
      for queue in queues { while queue.poll(now: Uptime(nanoseconds: 0), budget: 64) == .more {} }
      for card in fleet.devices { card.poll { if $0.byteCount == 1500 { returned += 1 } } }
    }
    return returned
  }
}
