import NetBack
import NetFront
import Synchronization
import TestSupport
import Testing
import XenLoopback

/// The card of async programs, with packets that are not finished and with several queues.
// For what hangs: many times what all tests together take, since a test waits for its turn among them.
@Suite(.timeLimit(.minutes(80)))
struct NetCardMetadataTests {
  private final class UnfinishedEcho: NetworkEnd {
    let offloads = NetOffloads.all

    func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {
      for index in frames.indices { guest.put(frames[index]) }
    }
  }

  private let rig: Rig
  private let device: Toolstack.Device
  private let backend: BusThread
  private static let features = NetFeatures(maxQueueCount: 3)

  init() throws {
    rig = try Rig()
    rig.guest.sharedPageLimit = 4096
    device = try rig.toolstack.addVif(
      to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    backend = try BusThread(on: rig.driverDomain, log: .silent) { (bus) throws(XenstoreError) in
      try bus.register(NetBackDriver(features: Self.features) { _ in UnfinishedEcho() })
      return nil
    }
  }

  private func card() async throws -> NetFrontCard {
    try await NetFrontCard.connect(
      to: device.frontendPath, on: rig.guest, features: Self.features, log: .silent)
  }

  @Test func whatGoesWithPacketsGoesThereAndBack() async throws {
    defer { backend.end(within: 5) }
    let card = try await card()
    #expect(card.offloads == .all)
    let metadata = NetPacketMetadata(
      checksum: .blank, segmentation: NetPacketMetadata.Segmentation(.tcpv4, payloadByteCount: 1448))
    var ports: Set<UInt16> = []
    for round in 0..<10 {
      var batch = NetFrameBatch()
      for number in 0..<4 {
        var packet = TestPacket(payload: pattern(30_000, seed: number))
        packet.ports = (UInt16(3000 + round * 4 + number), 80)
        ports.insert(packet.ports.0)
        batch.append(packet.bytes.span, metadata)
      }
      #expect(try await card.transmit(batch).isEmpty)
      var count = 0
      for await arrived in card.received {
        for index in arrived.indices {
          let bytes = Array(arrived[index])
          #expect(arrived.metadata(at: index) == metadata && bytes.count == 30_054)
          ports.remove(UInt16(bytes[34]) << 8 | UInt16(bytes[35]))
        }
        count += arrived.count
        if count >= 4 { break }
      }
    }
    #expect(ports.isEmpty)
    // A frame may be back before it is answered.
    await card.close()
    let queues = card.queueStatistics
    #expect(queues.count == 3 && queues.allSatisfy { $0.tx.packets > 0 && $0.rx.packets > 0 })
    #expect(queues.total.tx.packets == 40 && card.statistics.tx.packets == 40)
    #expect(rig.loopback.grantCounts.sharedPages == 0 && card.offloads == [])
  }

  @Test func packetThatCannotBeFinishedIsRefusedAlone() async throws {
    defer { backend.end(within: 5) }
    let card = try await card()
    var batch = NetFrameBatch()
    batch.append(frame(1).span, NetPacketMetadata(checksum: .blank))
    batch.append(frame(2).span)
    let refusals = try await card.transmit(batch)
    #expect(refusals.map(\.index) == [0])
    guard case .unfinishable? = refusals.first?.error else {
      Issue.record("\(refusals)")
      return
    }
    var iterator = card.received.makeAsyncIterator()
    #expect(await iterator.next()?.map { Array($0) } == [frame(2)])
    await card.close()
  }

  @Test func settingsAreMadeOnTheCardsThread() async throws {
    defer { backend.end(within: 5) }
    let card = try await card()
    let group = MACAddress([0x01, 0, 0x5E, 0, 0, 7])
    try await card.configure { (device) throws(NetFrontError) in
      try device.join(group)
      try device.setHeadroom(256)
    }
    let headroom = Atomic(0)
    while headroom.load(ordering: .relaxed) != 256 {
      try await card.configure { (device) throws(NetFrontError) in
        headroom.store(device.headroomByteCount, ordering: .relaxed)
      }
      await Task.yield()
    }
    try await card.configure { (device) throws(NetFrontError) in #expect(device.groups == [group]) }
    await #expect(throws: NetFrontError.noGroup(MACAddress(InlineArray(repeating: 0xFF)))) {
      try await card.configure { (device) throws(NetFrontError) in
        try device.join(MACAddress(InlineArray(repeating: 0xFF)))
      }
    }
    await card.close()
    await #expect(throws: NetFrontError.notConnected) { try await card.configure { _ in } }
  }
}
