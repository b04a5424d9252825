import NIOCore
import NIOPosix
import NetBack
import NetFront
import NetFrontNIO
import NetFrontTool
import Synchronization
import Testing
import XenLoopback

/// A card as a SwiftNIO channel, on an in-process Xen.
struct CardChannelTests {
  private let loop = MultiThreadedEventLoopGroup.singleton.next()

  private func card(of neighbour: Neighbour) async throws -> NetFrontCard {
    try await NetFrontCard.connect(to: neighbour.device.frontendPath, on: neighbour.guest, log: Neighbour.quiet)
  }

  private func frame(_ bytes: [UInt8]) -> CardFrame { CardFrame(ByteBuffer(bytes: bytes)) }

  /// The frames that the card has sent, as many as there are to be.
  private func sent(_ count: Int, by neighbour: Neighbour) async -> [[UInt8]] {
    var frames: [[UInt8]] = []
    var batches = neighbour.end.batches.makeAsyncIterator()
    while frames.count < count, let batch = await batches.next() { frames += batch.map(Array.init) }
    return frames
  }

  private func expectNothingIsLeft(of neighbour: Neighbour) {
    neighbour.stopBackend()
    #expect(neighbour.loopback.grantCounts.sharedPages == 0 && neighbour.loopback.openPortCount == 0)
  }

  @Test func aHandlerAnswersUntilTheChannelIsClosed() async throws {
    let neighbour = try Neighbour()
    let card = try await card(of: neighbour)
    let counts = loop.makePromise(of: IPv4Host.Counts.self)
    let host = IPv4Host(card, network: IPv4Network("10.9.0.2/24")!)
    let channel = try await CardChannel.connect(card, on: loop) { channel in
      channel.eventLoop.makeCompletedFuture {
        try channel.pipeline.syncOperations.addHandler(IPv4HostHandler(host) { counts.succeed($0) })
      }
    }.get()
    #expect(channel.isActive && channel.isWritable)
    let ping = Frames.ip(1, Frames.icmp(8, [UInt8](repeating: 7, count: 1472)))
    for (frame, metadata) in [
      (Frames.ip(1, Frames.icmp(8, [UInt8](repeating: 7, count: 3000))), NetPacketMetadata()),
      (Frames.arp(), NetPacketMetadata()), (ping, NetPacketMetadata()),
      (Frames.ip(17, Frames.udp(checksum: 0x1234)), NetPacketMetadata(checksum: .blank)),
    ] { neighbour.end.send(frame.span, metadata) }
    let answers = await sent(3, by: neighbour)
    #expect(answers.count == 3)
    #expect(answers.first?[20...21] == [0, 2])
    #expect(answers.dropFirst().first?.count == ping.count && answers.dropFirst().first?[34] == 0)
    #expect(answers.last?.suffix(4) == Array("echo".utf8)[...])
    try await channel.close()
    try await channel.closeFuture.get()
    #expect(!channel.isActive)
    let final = try await counts.futureResult.get()
    // One ping's answer is longer than what the card sends.
    #expect(final.arpRequestsAnswered == 1 && final.echoRequestsAnswered == 2 && final.datagramsAnswered == 1)
    #expect(final.answersRefused == 1)
    await #expect(throws: ChannelError.alreadyClosed) { try await channel.close() }
    await #expect(throws: ChannelError.ioOnClosedChannel) { try await channel.writeAndFlush(frame(ping)) }
    expectNothingIsLeft(of: neighbour)
  }

  @Test func itIsAnAsyncChannelToo() async throws {
    let neighbour = try Neighbour()
    let card = try await card(of: neighbour)
    let wrapped = loop.makePromise(of: NIOAsyncChannel<CardFrame, CardFrame>.self)
    _ = try await CardChannel.connect(card, on: loop) { channel in
      channel.eventLoop.makeCompletedFuture {
        wrapped.succeed(try NIOAsyncChannel(wrappingChannelSynchronously: channel))
      }
    }.get()
    let echoed = Mutex(0)
    try await wrapped.futureResult.get().executeThenClose { inbound, outbound in
      for number in 0..<10 as Range<UInt8> {
        let ping = Frames.ip(1, Frames.icmp(8, [UInt8](repeating: number, count: 100)))
        neighbour.end.send(ping.span)
      }
      for try await frame in inbound {
        try await outbound.write(frame)
        if echoed.withLock({
          $0 += 1
          return $0 == 10
        }) {
          break
        }
      }
      let frames = await sent(10, by: neighbour)
      #expect(frames.map(\.last) == (0..<10).map { UInt8($0) })
    }
    expectNothingIsLeft(of: neighbour)
  }

  @Test func aFrameThatTheCardRefusesBreaksItsOwnPromise() async throws {
    let neighbour = try Neighbour()
    let channel = try await CardChannel.connect(try await card(of: neighbour), on: loop) {
      $0.eventLoop.makeSucceededVoidFuture()
    }.get()
    let good = Frames.ip(17, Frames.udp())
    let results = [
      channel.write(frame(good)), channel.write(frame([1, 2, 3])), channel.write(frame(good)),
      channel.write("no frame"),
    ]
    channel.flush()
    try await results[0].get()
    await #expect(throws: NetFrontError.tooShort(byteCount: 3)) { try await results[1].get() }
    try await results[2].get()
    await #expect(throws: ChannelError.operationUnsupported) { try await results[3].get() }
    // No packet, so that there is no place for the checksum that it lacks.
    let unfinishable = CardFrame(ByteBuffer(repeating: 1, count: 64), NetPacketMetadata(checksum: .blank))
    let others = [channel.write(frame(good)), channel.write(unfinishable), channel.write(frame(Frames.arp()))]
    channel.flush()
    try await others[0].get()
    await #expect(throws: NetFrontError.self) { try await others[1].get() }
    try await others[2].get()
    // Each once.
    #expect(await sent(4, by: neighbour) == [good, good, good, Frames.arp()])
    try await channel.close()
    expectNothingIsLeft(of: neighbour)
  }

  @Test func itIsNotWritableWhileMuchWaits() async throws {
    final class Noting: ChannelInboundHandler, Sendable {
      typealias InboundIn = CardFrame
      let changes = Mutex<[Bool]>([])
      func channelWritabilityChanged(context: ChannelHandlerContext) {
        let isWritable = context.channel.isWritable
        changes.withLock { $0.append(isWritable) }
      }
    }
    let neighbour = try Neighbour()
    let noting = Noting()
    let channel = try await CardChannel.connect(try await card(of: neighbour), on: loop) {
      $0.pipeline.addHandler(noting)
    }.get()
    try await channel.setOption(.writeBufferWaterMark, value: .init(low: 100, high: 200)).get()
    let frame = frame(Frames.ip(1, Frames.icmp(8, [UInt8](repeating: 7, count: 60))))
    let promises = (0..<3).map { _ in channel.write(frame) }
    // Nothing is sent before it is flushed.
    try await Task.sleep(for: .milliseconds(100))
    #expect(channel.card.statistics.tx.packets == 0)
    try await loop.submit { #expect(!channel.isWritable) }.get()
    channel.flush()
    for promise in promises { try await promise.get() }
    try await loop.submit { #expect(channel.isWritable) }.get()
    #expect(noting.changes.withLock { $0 } == [false, true])
    #expect(await sent(3, by: neighbour).count == 3)
    await #expect(throws: ChannelError.operationUnsupported) {
      try await channel.setOption(.maxMessagesPerRead, value: 1).get()
    }
    try await channel.close()
    expectNothingIsLeft(of: neighbour)
  }

  @Test func nothingIsReadUntilItIsAskedFor() async throws {
    final class Counting: ChannelInboundHandler, Sendable {
      typealias InboundIn = CardFrame
      let count = Atomic(0)
      func channelRead(context: ChannelHandlerContext, data: NIOAny) { count.wrappingAdd(1, ordering: .relaxed) }
    }
    let neighbour = try Neighbour()
    let card = try await card(of: neighbour)
    let counting = Counting()
    let channel = try await CardChannel.connect(card, on: loop) { channel in
      channel.setOption(.autoRead, value: false).flatMap { channel.pipeline.addHandler(counting) }
    }.get()
    #expect(try await channel.getOption(.autoRead).get() == false)
    let ping = Frames.ip(1, Frames.icmp(8, [UInt8](repeating: 7, count: 100)))
    neighbour.end.send(ping.span)
    while card.statistics.rx.packets == 0 { await Task.yield() }
    // Long enough for a channel that reads of its own accord.
    try await Task.sleep(for: .milliseconds(100))
    try await loop.submit { #expect(counting.count.load(ordering: .relaxed) == 0) }.get()
    channel.read()
    while counting.count.load(ordering: .relaxed) == 0 { await Task.yield() }
    // The toolstack's or somebody else's end of the card is the channel's, too.
    await card.close()
    channel.read()
    try await channel.closeFuture.get()
    expectNothingIsLeft(of: neighbour)
  }

  @Test func aChannelWithoutItsHandlersClosesTheCard() async throws {
    let neighbour = try Neighbour()
    let card = try await card(of: neighbour)
    await #expect(throws: ChannelError.operationUnsupported) {
      try await CardChannel.connect(card, on: loop) {
        $0.eventLoop.makeFailedFuture(ChannelError.operationUnsupported)
      }.get()
    }
    await #expect(throws: NetFrontError.notConnected) { try await card.transmit([Frames.arp()]) }
    expectNothingIsLeft(of: neighbour)
  }
}
