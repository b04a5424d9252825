import NetBack
import NetFront

/// A card with both its drivers, and frames to an end that sends each back, `batch` at a time. What it gives carries a
/// number of frames, and gives how many came back.
///
/// - Parameter isUnfinished: the frames are TCP packets without their checksums, to be cut if they are longer than the MTU, as
///   long as the two ends have agreed on that.
func netEcho(
  _ features: NetFeatures, frameByteCount: Int, isUnfinished: Bool = false, batch: Int
) throws -> (Int) throws -> Int {
  let domains = try Domains()
  let card = NetFrontDevice(features: features)
  _ = try domains.toolstack.addVif(
    to: domains.guest.domain, servedBy: domains.driverDomain.domain, mac: "00:16:3e:00:00:01",
    mtu: isUnfinished
      ? NetIf.defaultMTU
      : max(NetIf.defaultMTU, frameByteCount - NetIf.headerByteCount - NetIf.vlanTagByteCount))
  let end: any NetworkEnd = isUnfinished ? UnfinishedEchoEnd() : EchoEnd()
  try domains.backBus.register(NetBackDriver { _ in end })
  try domains.frontBus.register(card)
  domains.connect()
  let queue = domains.host.queue
  let frame = isUnfinished ? tcpFrame(byteCount: frameByteCount) : [UInt8](repeating: 0xA5, count: frameByteCount)
  let isSegmented = frameByteCount > NetIf.defaultMTU + NetIf.headerByteCount
  let metadata =
    isUnfinished
    ? NetPacketMetadata(
      checksum: .blank,
      segmentation: isSegmented ? NetPacketMetadata.Segmentation(.tcpv4, payloadByteCount: 1448) : nil)
    : NetPacketMetadata()
  return { count in
    var returned = 0
    var next = 0
    while next < count {
      for _ in 0..<min(batch, count - next) {
        try card.send(frame.span, metadata)
        next += 1
      }
      card.push()
      while queue.poll(now: Uptime(nanoseconds: 0), budget: 64) == .more {}
      card.poll { if $0.byteCount == frame.count, $0.metadata == metadata { returned += 1 } }
    }
    withExtendedLifetime(domains) {}
    return returned
  }
}

/// Sends every frame back as it came, and takes them unfinished.
private final class UnfinishedEchoEnd: NetworkEnd {
  let offloads = NetOffloads.all

  func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
    for index in frames.indices { guest.put(frames[index]) }
  }
}

/// From this port of 10.9.0.1 to 10.9.0.2, without a checksum.
func tcpFrame(byteCount: Int, port: UInt16 = 40_000) -> [UInt8] {
  let ip = byteCount - 14
  var bytes: [UInt8] = [
    0, 0x16, 0x3E, 0, 0, 2, 0, 0x16, 0x3E, 0, 0, 1, 8, 0, 0x45, 0, UInt8(ip >> 8), UInt8(ip & 0xFF),
  ]
  bytes += [0, 1, 0x40, 0, 64, 6, 0, 0, 10, 9, 0, 1, 10, 9, 0, 2, UInt8(port >> 8), UInt8(port & 0xFF), 0, 80]
  bytes += [0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xFF, 0xFF, 0, 0, 0, 0]
  return bytes + [UInt8](repeating: 0xA5, count: byteCount - bytes.count)
}

/// A packet of 65535 bytes cut into 45 frames, in software: gives how many packets' frames added up.
func netSegments() -> (Int) throws -> Int {
  let packet = tcpFrame(byteCount: 65535)
  let segmentation = NetPacketMetadata.Segmentation(.tcpv4, payloadByteCount: 1448)
  var frame = [UInt8](repeating: 0, count: 1514)
  return { count in
    var whole = 0
    for _ in 0..<count {
      let segmenter = try NetSegmenter(packet.span, segmentation)
      var byteCount = segmenter.headerByteCount
      for index in 0..<segmenter.frameCount {
        var span = frame.mutableSpan
        segmenter.write(index, of: packet.span, to: &span)
        byteCount += segmenter.payload(of: index).count
      }
      if byteCount == packet.count { whole += 1 }
    }
    return whole
  }
}
