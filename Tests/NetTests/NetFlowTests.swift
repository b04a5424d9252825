import NetIf
import TestSupport
import Testing

/// Which flow a frame belongs to, whatever its bytes are.
struct NetFlowTests {
  private func flow(_ frame: [UInt8]) -> NetFlow? { NetFlow(of: frame.span) }
  private func queue(_ frame: [UInt8], of count: Int) -> Int { NetFlow.queue(for: frame.span, of: count) }

  private static let plain = [
    TestPacket(), TestPacket(transport: .udp), TestPacket(network: .ipv6), TestPacket(network: .ipv6, transport: .udp),
  ]

  /// What else a frame carries is no part of its flow: tags, options, extension headers, payload, padding.
  @Test(arguments: plain.indices)
  func aFlowIsTheSameWhateverElseItsFramesCarry(form: Int) throws {
    let packet = Self.plain[form]
    let expected = try #require(flow(packet.bytes))
    #expect(expected.network == packet.network && expected.transport == packet.transport)
    for tags in [[], [0x8100], [0x88A8, 0x8100]] as [[UInt16]] {
      var other = packet
      (other.tags, other.payload, other.padding) = (tags, [1, 2, 3], [0, 0])
      if packet.network == .ipv4 {
        other.options = [1, 1, 1, 1]
      } else {
        // Hop-by-hop options, destination options of 16 bytes, a routing header.
        other.options =
          [60, 0, 1, 4, 0, 0, 0, 0] + [43, 1] + [UInt8](repeating: 0, count: 14) + [packet.transport.rawValue, 0]
          + [UInt8](repeating: 0, count: 6)
        other.firstExtension = 0
      }
      #expect(flow(other.bytes) == expected, "\(tags)")
      #expect(queue(other.bytes, of: 1 << 30) == queue(packet.bytes, of: 1 << 30), "\(tags)")
    }
  }

  @Test(arguments: plain.indices)
  func anotherAddressOrPortIsAnotherFlow(form: Int) throws {
    let packet = Self.plain[form]
    let place = packet.networkOffset + (packet.network == .ipv4 ? 12 : 8)
    let end = packet.transportOffset
    for offset in Array(place..<end) + Array(packet.transportOffset..<packet.transportOffset + 4) {
      var other = packet.bytes
      other[offset] ^= 0x10
      #expect(flow(other) != flow(packet.bytes), "byte \(offset)")
      #expect(flow(other)?.transport == packet.transport)
    }
  }

  /// Only the first fragment has ports, so none may be told by them.
  @Test(arguments: [0x2000, 0x0001, 0x1FFF, 0x3FFF] as [UInt16])
  func fragmentsOfIPv4HaveAddressesAndNoPorts(place: UInt16) throws {
    var frame = TestPacket().bytes
    frame.replaceSubrange(20..<22, with: big(place))
    let fragment = try #require(flow(frame))
    #expect(fragment.transport == nil && fragment.network == .ipv4)
    frame[36] ^= 1
    #expect(
      Toeplitz.standard.value(of: fragment, withPorts: true) == Toeplitz.standard.value(of: fragment, withPorts: false))
    var other = frame
    other[36] ^= 1
    #expect(queue(frame, of: 64) == queue(other, of: 64))
  }

  @Test func aFrameThatMustNotBeFragmentedIsNoFragment() {
    var frame = TestPacket().bytes
    frame.replaceSubrange(20..<22, with: [0x40, 0])
    #expect(flow(frame)?.transport == .tcp)
  }

  @Test func fragmentsOfIPv6AndOtherProtocolsHaveAddressesAndNoPorts() {
    let fragment = TestPacket(
      network: .ipv6, options: [6, 0, 0, 0, 0, 0, 0, 1], firstExtension: 44, payload: [1, 2, 3])
    #expect(flow(fragment.bytes).map { $0.transport == nil } == true)
    for number in [1, 2, 47, 50, 58, 132, 255] as [UInt8] {
      var ipv4 = TestPacket().bytes
      ipv4[23] = number
      var ipv6 = TestPacket(network: .ipv6).bytes
      ipv6[20] = number
      #expect(flow(ipv4).map { $0.transport == nil } == true && flow(ipv6).map { $0.transport == nil } == true)
    }
  }

  /// Cut off anywhere: no flow before the addresses are whole, and no ports before those are.
  @Test(arguments: plain.indices)
  func aFrameCutOffHasWhatIsWhole(form: Int) throws {
    let packet = Self.plain[form]
    let whole = packet.bytes
    for count in 0...whole.count {
      let found = flow(Array(whole[..<count]))
      #expect((found != nil) == (count >= packet.transportOffset), "\(count) bytes")
      #expect((found?.transport != nil) == (count >= packet.transportOffset + 4), "\(count) bytes")
    }
  }

  /// ARP, what a tag stands before, a version that its EtherType contradicts, a header that is too short.
  @Test(
    arguments: [
      (12, [0x08, 0x06]), (12, [0x81, 0x00]), (12, [0, 0]), (14, [0x65]), (14, [0x05]), (14, [0x44]), (14, [0x40]),
    ] as [(Int, [UInt8])])
  func whatIsNotIPHasNoFlow(offset: Int, bytes: [UInt8]) {
    var frame = TestPacket().bytes
    frame.replaceSubrange(offset..<offset + bytes.count, with: bytes)
    #expect(flow(frame) == nil && queue(frame, of: 8) == 0)
  }

  /// A hostile chain of extension headers costs no more than a few of them.
  @Test(arguments: [(15, true), (16, false), (200, false)])
  func aLongChainOfExtensionHeadersHasNoPorts(count: Int, hasPorts: Bool) {
    var headers: [UInt8] = []
    for index in 0..<count { headers += [index + 1 < count ? 60 : 6, 0, 1, 4, 0, 0, 0, 0] }
    let packet = TestPacket(network: .ipv6, options: headers, firstExtension: 60)
    #expect(flow(packet.bytes).map { ($0.transport != nil) == hasPorts } == true)
  }

  /// Flows that differ in one place only, by one, are spread as well.
  @Test(arguments: plain.indices)
  func neighbouringFlowsSpreadOverTheQueues(form: Int) throws {
    let packet = Self.plain[form]
    let addressByteCount = packet.network == .ipv4 ? 4 : 16
    // The last two bytes of each address, and of each port; and the first two of the first address.
    let addressesEnd = packet.networkOffset + (packet.network == .ipv4 ? 20 : 40)
    for place in [
      addressesEnd - 2 * addressByteCount, addressesEnd - addressByteCount - 2, addressesEnd - 2,
      packet.transportOffset, packet.transportOffset + 2,
    ] {
      for queueCount in [2, 3, 8, 64] {
        var counts = [Int](repeating: 0, count: queueCount)
        for number in 0..<2048 as Range<UInt16> {
          var bytes = packet.bytes
          bytes.replaceSubrange(place..<place + 2, with: big(number))
          counts[queue(bytes, of: queueCount)] += 1
        }
        let fair = 2048 / queueCount
        #expect(counts.allSatisfy { $0 > fair / 3 && $0 < fair * 3 }, "byte \(place): \(counts)")
      }
    }
  }

  /// Few flows of one program: ports that follow one another, in steps of two as Linux gives them out. As many of them share
  /// one queue as of flows by chance.
  @Test(arguments: plain.indices, [1, 2, 4] as [UInt16])
  func fewFlowsWithPortsInStepsDoNotShareAQueueMoreOftenThanByChance(form: Int, step: UInt16) {
    let runCount = 2000
    for isSource in [true, false] {
      var sharedCounts = [2: 0, 3: 0]
      for run in 0..<UInt16(runCount) {
        var packet = Self.plain[form]
        packet.source = packet.source.indices.map { UInt8(truncatingIfNeeded: Int(run) * (2 * $0 + 1)) }
        packet.ports = (5201, 5201)
        var bytes = packet.bytes
        let place = packet.transportOffset + (isSource ? 0 : 2)
        var queues = [2: Set<Int>(), 3: Set<Int>()]
        for index in 0..<8 as Range<UInt16> {
          bytes.replaceSubrange(place..<place + 2, with: big(32_768 + run * 13 + index * step))
          for count in queues.keys { queues[count]?.insert(queue(bytes, of: count)) }
        }
        for (count, found) in queues where found.count == 1 { sharedCounts[count, default: 0] += 1 }
      }
      // By chance one of 128 with two queues, and one of 2187 with three; and four times what that differs by.
      for (count, sharedCount) in sharedCounts {
        let expected = Double(runCount) / (count == 2 ? 128 : 2187)
        let limit = Int(expected + 4 * expected.squareRoot())
        #expect(sharedCount <= limit, "\(count) queues, source \(isSource): \(sharedCount) of \(runCount)")
      }
    }
  }

  @Test func manyFlowsSpreadOverTheQueuesAndEachStaysOnItsOwn() throws {
    for queueCount in [1, 2, 3, 8, 64] {
      var counts = [Int](repeating: 0, count: queueCount)
      for number in 0..<2048 as Range<UInt16> {
        var packet = Self.plain[Int(number) % Self.plain.count]
        packet.ports = (32_768 + number, 80)
        packet.source = [10, 1, UInt8(number >> 8), UInt8(number & 0xFF)]
        let place = queue(packet.bytes, of: queueCount)
        packet.payload = [7]
        #expect(queue(packet.bytes, of: queueCount) == place)
        counts[place] += 1
      }
      let fair = 2048 / queueCount
      #expect(counts.allSatisfy { $0 > fair / 3 && $0 < fair * 3 }, "\(counts)")
    }
  }

  /// Whatever the bytes are, nothing traps, and the same bytes have the same flow.
  @Test(arguments: seeds(1...50, of: NetFlowTests.self))
  func randomBytesHaveAFlowOrNone(seed: Seed) {
    var random = SeededGenerator(seed)
    var found = 0
    for round in 0..<400 {
      var bytes = Self.plain[Int.random(in: 0..<Self.plain.count, using: &random)].bytes
      for _ in 0..<Int.random(in: 0...12, using: &random) {
        bytes[Int.random(in: 12..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      if round % 4 == 0 { bytes = bytes.map { _ in UInt8.random(in: 0...255, using: &random) } }
      bytes.removeLast(Int.random(in: 0...bytes.count, using: &random))
      let first = flow(bytes)
      #expect(flow(bytes) == first)
      #expect((0..<5).contains(queue(bytes, of: 5)))
      if first != nil { found += 1 }
    }
    #expect(found > 0)
  }
}
