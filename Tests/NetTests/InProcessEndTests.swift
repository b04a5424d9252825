import NetFront
import Pcap
import SystemPackage
import TestSupport
import Testing
import XenLoopback

@testable import NetBack

/// What an end in this process is told about frames, and its frames as a sequence of batches.
struct InProcessEndTests {
  private let blank = NetPacketMetadata(checksum: .blank)
  private let segmented = NetPacketMetadata(
    checksum: .blank, segmentation: NetPacketMetadata.Segmentation(.tcpv6, payloadByteCount: 1428))

  /// Hands over frames as a queue of the guest's does.
  private func take(
    _ frames: [[UInt8]], _ end: any NetworkEnd, _ metadata: NetPacketMetadata = NetPacketMetadata()
  ) {
    let pages = PrivatePages(pageCount: 64)
    var offset = 0
    let batch = frames.map { bytes in
      let slice = pages.bytes.slice(from: offset, count: bytes.count)
      slice.copy(from: bytes.span)
      offset += bytes.count
      return NetworkFrame(slice, metadata)
    }
    var guest = FrameQueue(capacity: 4)
    end.take(batch.span, answering: &guest)
  }

  @Test func metadataGoBothWays() throws {
    let end = try InProcessEnd(offloads: .all)
    #expect(end.offloads == .all && end.guestOffloads == [])
    let ends = try end.ends(forQueues: 3, guestOffloads: [.ipv6Checksum, .tcpv6Segmentation])
    #expect(ends.count == 3 && ends.allSatisfy { $0 === end })
    #expect(end.guestOffloads == [.ipv6Checksum, .tcpv6Segmentation])
    take([frame(1)], ends[2], segmented)
    take([frame(2)], ends[0])
    #expect(isReadable(end.descriptor, within: 0))
    var arrived: [(bytes: [UInt8], metadata: NetPacketMetadata)] = []
    end.receive { arrived.append(($0.bytes.copied(), $0.metadata)) }
    #expect(
      arrived.map(\.bytes) == [frame(1), frame(2)] && arrived.map(\.metadata) == [segmented, NetPacketMetadata()])
    #expect(!isReadable(end.descriptor, within: 0), "whoever has received sleeps again")
    let one = frame(3)
    end.send(one.span, blank)
    end.send(one.span)
    var guest = FrameQueue(capacity: 4)
    end.give(to: &guest)
    let given = (0..<guest.count).map { guest[$0].metadata }
    #expect(given == [blank, NetPacketMetadata()])
  }

  @Test func batchesAreAllThatHasComeSinceTheLastOne() async throws {
    let end = try InProcessEnd(capacity: 64)
    take((0..<5).map { frame($0) }, end, blank)
    take([frame(5, byteCount: 3000)], end)
    var batches = end.batches.makeAsyncIterator()
    let first = try #require(await batches.next())
    #expect(first.map { Array($0) } == (0..<5).map { frame($0) } + [frame(5, byteCount: 3000)])
    #expect(first.metadata(at: 4) == blank && first.metadata(at: 5) == NetPacketMetadata())
    // One that comes while nobody has anything yet.
    async let second = batches.next()
    try await Task.sleep(for: .milliseconds(20))
    take([frame(6)], end)
    #expect(await second?.map { Array($0) } == [frame(6)])
    // What has come before the end is still there.
    take([frame(7)], end)
    end.close()
    #expect(await batches.next()?.count == 1)
    #expect(await batches.next() == nil)
  }

  @Test func aProgramThatDoesNotReceiveCostsNoMoreThanTheRoomThereIs() async throws {
    let end = try InProcessEnd(capacity: 16)
    for number in 0..<100 { take([frame(number)], end) }
    var batches = end.batches.makeAsyncIterator()
    let batch = try #require(await batches.next())
    #expect(batch.count == 16 && batch.map { Array($0) } == (0..<16).map { frame($0) })
    #expect(end.dropCount == 84)
  }

  @Test func whoeverWaitsIsWokenByItsCancellationAndByTheEnd() async throws {
    let end = try InProcessEnd()
    let cancelled = Task { () -> NetFrameBatch? in
      var batches = end.batches.makeAsyncIterator()
      return await batches.next()
    }
    try await Task.sleep(for: .milliseconds(20))
    cancelled.cancel()
    #expect(await cancelled.value == nil)
    let waiting = Task { () -> Int in
      var count = 0
      for await batch in end.batches { count += batch.count }
      return count
    }
    for number in 0..<10 {
      take([frame(number)], end)
      await Task.yield()
    }
    end.close()
    #expect(await waiting.value == 10)
  }

  /// Several queues, one file: each of an end's own is recorded, and those that are shared stay shared.
  @Test func captureFileHasWhatCrossesOnEveryQueueAsItCrosses() throws {
    final class Splitting: NetworkEnd {
      let offloads = NetOffloads.all
      func ends(forQueues queueCount: Int, guestOffloads: NetOffloads) throws(DeviceError) -> [any NetworkEnd] {
        [self] + (1..<queueCount).map { _ in EchoEnd() }
      }
      func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {}
    }
    let file = try TemporaryFile()
    let tap = PcapTap(Splitting(), into: try PcapWriter(path: file.path))
    #expect(tap.offloads == .all)
    let ends = try tap.ends(forQueues: 3, guestOffloads: .all)
    #expect(ends.count == 3 && ends[0] === tap && ends[1] !== ends[2])
    // Its checksum is blank, and it is longer than any wire takes: as it crosses.
    let large = TestPacket(network: .ipv6, payload: pattern(20_000, seed: 1), checksumField: 0x1234).bytes
    take([large], ends[0], segmented)
    take([frame(1)], ends[1])
    take([frame(2)], ends[2])
    tap.flush()
    var reader = try PcapReader(path: file.path)
    var recorded: [[UInt8]] = []
    while let packet = try reader.next() { recorded.append(packet.bytes) }
    #expect(recorded == [large, frame(1), frame(1), frame(2), frame(2)], "what the ends answered is there, too")
    let shared = PcapTap(EchoEnd(), into: try PcapWriter(path: "/dev/null"))
    #expect(try shared.ends(forQueues: 4, guestOffloads: []).allSatisfy { $0 === shared })
  }
}
