import Foundation
import Glibc
import NetFront
import TestSupport
import Testing
import XenLoopback

@testable import NetBack

/// TAP devices that take and give what is not finished, where the machine lets us have one. A packet socket looks at what has
/// come out on their other side, with the kernel's own word about it, and sends into them there.
@Suite(.enabled(if: TapDevices.missing == nil, "\(TapDevices.missing ?? "")"), .serialized)
struct TapOffloadTests {
  /// What a socket sees of what a TAP device is sent: a blank checksum and segments, as the kernel has them.
  @Test func unfinishedPacketsReachTheMachineUnfinished() throws {
    let name = TapDevices.name()
    let tap = try TapInterface(name: name)
    try TapDevices.ip("link", "set", name, "up")
    let socket = try PacketSocket(on: name)
    for (packet, segmentation) in [
      (TestPacket(payload: pattern(60_000, seed: 1)), NetPacketMetadata.Segmentation(.tcpv4, payloadByteCount: 1448)),
      (TestPacket(payload: pattern(700, seed: 2)), nil),
      (
        TestPacket(network: .ipv6, payload: pattern(30_000, seed: 3)),
        NetPacketMetadata.Segmentation(.tcpv6, payloadByteCount: 1428)
      ),
    ] {
      let bytes = packet.bytes
      #expect(bytes.sent(to: tap, NetPacketMetadata(checksum: .blank, segmentation: segmentation)))
      let seen = try #require(socket.receive { $0.count == bytes.count })
      var blank = packet.bytes
      let headers = try NetHeaders(parsing: blank.span)
      blank.replaceSubrange(
        headers.checksumOffset..<headers.checksumOffset + 2, with: big(headers.blankChecksum(of: blank.span)))
      #expect(seen.bytes == blank)
      #expect(seen.segmentByteCount == segmentation?.payloadByteCount ?? 0 && seen.isBlank)
    }
    // One that is finished is that, and one that cannot be finished goes nowhere.
    let whole = TestPacket(payload: pattern(700, seed: 4)).whole
    #expect(whole.sent(to: tap, NetPacketMetadata()))
    let seen = try #require(socket.receive { $0.count == whole.count })
    #expect(seen.bytes == whole && !seen.isBlank && seen.segmentByteCount == 0)
    let neither = frame(1)
    #expect(!neither.sent(to: tap, NetPacketMetadata(checksum: .blank)) && tap.first.misfitCount == 1)
  }

  /// The other way, with what each of the offloads lets the machine leave undone.
  @Test func theMachineLeavesUndoneWhatItMay() throws {
    let name = TapDevices.name()
    let tap = try TapInterface(name: name)
    try TapDevices.ip("link", "set", name, "up")
    let socket = try PacketSocket(on: name)
    let packet = TestPacket(payload: pattern(30_000, seed: 1))
    func ask(_ offloads: NetOffloads, segmentByteCount: UInt16) throws -> [(
      bytes: [UInt8], metadata: NetPacketMetadata
    )] {
      try tap.setOffloads(offloads)
      try socket.send(
        packet.bytes, headers: NetHeaders(parsing: packet.bytes.span), segmentByteCount: segmentByteCount)
      return tap.receiveAll().filter { $0.bytes.starts(with: packet.bytes[..<12]) }
    }
    var given = try ask(.all, segmentByteCount: 1448)
    #expect(given.count == 1)
    let segmentation = NetPacketMetadata.Segmentation(.tcpv4, payloadByteCount: 1448)
    #expect(given.first?.metadata == NetPacketMetadata(checksum: .blank, segmentation: segmentation))
    #expect(given.first?.bytes.count == packet.bytes.count)
    // Whoever takes no segments gets them cut, and then it is as if we had cut the packet.
    for offloads: NetOffloads in [.ipv4Checksum, []] {
      given = try ask(offloads, segmentByteCount: 1448)
      let segmenter = try NetSegmenter(packet.bytes.span, segmentation)
      try #require(given.count == segmenter.frameCount, "\(given.count)")
      for (index, (bytes, metadata)) in given.enumerated() {
        #expect(metadata.segmentation == nil && (metadata.checksum == .blank) == !offloads.isEmpty)
        var (expected, bytes) = ([UInt8](repeating: 0, count: segmenter.byteCount(of: index)), bytes)
        var span = expected.mutableSpan
        segmenter.write(index, of: packet.bytes.span, to: &span)
        if !offloads.isEmpty {
          var span = bytes.mutableSpan
          try NetHeaders(parsing: span.span).fillChecksum(in: &span)
        }
        #expect(bytes == expected, "segment \(index)")
      }
    }
  }

  @Test func eachQueueIsAnEndOfItsOwnAndTheMachineSpreadsFlows() throws {
    let name = TapDevices.name()
    let tap = try TapInterface(name: name, isMultiQueue: true)
    let end = TapEnd(tap)
    var ends = try end.ends(forQueues: 4, guestOffloads: [])
    #expect(ends.count == 4 && Set(ends.map { ObjectIdentifier($0) }).count == 4 && ends[0] === end)
    #expect(Set(ends.map(\.wakeDescriptor)).count == 4)
    try TapDevices.ip("link", "set", name, "up")
    let socket = try PacketSocket(on: name)
    for port in 0..<200 {
      let packet = TestPacket(transport: .udp, payload: [1, 2, 3], ports: (UInt16(20_000 + port), 7))
      try socket.send(packet.whole, headers: NetHeaders(parsing: packet.whole.span), segmentByteCount: 0)
    }
    var queue = FrameQueue(capacity: 256)
    let counts = ends.map { end in
      let before = queue.count
      end.give(to: &queue)
      return queue.count - before
    }
    #expect(counts.allSatisfy { $0 > 0 } && counts.reduce(0, +) >= 200, "\(counts)")
    // Fewer are asked for: what the machine sends goes to those that there are, though a program that is being started still has
    // copies of the others.
    let copies = ends.dropFirst().compactMap { $0.wakeDescriptor.map { dup($0) } }
    defer { for copy in copies { close(copy) } }
    #expect(copies.count == 3)
    ends = []
    ends = try end.ends(forQueues: 1, guestOffloads: [])
    #expect(ends.count == 1 && ends[0] === end)
    queue.removeFirst(queue.count)
    for port in 0..<50 {
      let packet = TestPacket(transport: .udp, payload: [1, 2, 3], ports: (UInt16(20_000 + port), 7))
      try socket.send(packet.whole, headers: NetHeaders(parsing: packet.whole.span), segmentByteCount: 0)
    }
    end.give(to: &queue)
    let count = queue.count
    #expect(count >= 50)
  }

  @Test func packetsToBeCutAreCountedBothWays() throws {
    let name = TapDevices.name()
    let tap = try TapInterface(name: name)
    let end = TapEnd(tap)
    _ = try end.ends(forQueues: 1, guestOffloads: .all)
    try TapDevices.ip("link", "set", name, "up")
    let socket = try PacketSocket(on: name)
    let (large, small) = (TestPacket(payload: pattern(30_000, seed: 1)), TestPacket(payload: pattern(700, seed: 2)))
    let pages = PrivatePages(pageCount: 10)
    let largeBytes = pages.bytes.slice(from: 0, count: large.bytes.count)
    largeBytes.copy(from: large.bytes.span)
    let smallBytes = pages.bytes.slice(from: 8 * 4096, count: small.whole.count)
    smallBytes.copy(from: small.whole.span)
    let segmentation = NetPacketMetadata.Segmentation(.tcpv4, payloadByteCount: 1448)
    let frames = [
      NetworkFrame(largeBytes, NetPacketMetadata(checksum: .blank, segmentation: segmentation)),
      NetworkFrame(smallBytes),
    ]
    var queue = FrameQueue(capacity: 64)
    end.take(frames.span, answering: &queue)
    #expect(end.segmentedCounts == (1, 0) && end.dropCount == 0)
    try socket.send(large.bytes, headers: NetHeaders(parsing: large.bytes.span), segmentByteCount: 1448)
    try socket.send(small.whole, headers: NetHeaders(parsing: small.whole.span), segmentByteCount: 0)
    end.give(to: &queue)
    let given = (0..<queue.count).map { queue[$0].metadata.segmentation }
    #expect(given.count { $0 == segmentation } == 1 && given.count { $0 == nil } > 0, "\(given)")
    #expect(end.segmentedCounts == (1, 1))
  }

  @Test func queuesShareADeviceThatHasOne() throws {
    let end = TapEnd(try TapInterface(name: TapDevices.name()))
    #expect(try end.ends(forQueues: 3, guestOffloads: .all).allSatisfy { $0 === end })
  }
}

extension [UInt8] {
  fileprivate func sent(to tap: TapInterface, _ metadata: NetPacketMetadata) -> Bool {
    let pages = PrivatePages(pageCount: 17)
    let bytes = pages.bytes.slice(from: 0, count: count)
    bytes.copy(from: span)
    return tap.send(bytes, metadata)
  }
}

extension TapInterface {
  fileprivate func receiveAll() -> [(bytes: [UInt8], metadata: NetPacketMetadata)] {
    let pages = PrivatePages(pageCount: 17)
    var all: [(bytes: [UInt8], metadata: NetPacketMetadata)] = []
    var metadata = NetPacketMetadata()
    while case let count = receive(into: pages.bytes, &metadata), count > 0 {
      all.append((pages.bytes.slice(from: 0, count: count).copied(), metadata))
    }
    return all
  }
}
