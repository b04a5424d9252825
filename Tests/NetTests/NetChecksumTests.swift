import NetBack
import TestSupport
import Testing

/// Checksums that a frontend leaves blank: the end never sees one.
struct NetChecksumTests {
  private let frontend = RawNetFrontend()
  private let end: InProcessEnd
  private let pair: NetPair
  private let closed = Closed()

  private final class Closed { var statistics = NetStatistics() }

  init() throws {
    let end = try InProcessEnd()
    self.end = end
    pair = try NetPair(
      backend: NetBackDriver(whenClosed: { [closed] in closed.statistics = $1.total }) { _ in end }, frontend: frontend)
    let isConnected = pair.scheduler.run { [frontend, pair] in frontend.isConnected && pair.backBus.isConnected }
    try #require(isConnected)
  }

  /// Sends each of the frames in a packet of one slot, and gives the statuses in order.
  private func send(_ frames: [[UInt8]], flags: UInt16 = NetIf.TxFlag.checksumBlank) throws -> [Int16] {
    for (number, frame) in frames.enumerated() {
      frontend.page(number).slice(from: 0, count: frame.count).copy(from: frame.span)
      frontend.put(
        NetIfTxRequest(
          gref: frontend.references[number], flags: flags, id: UInt16(number), size: UInt16(frame.count)))
    }
    return try answers(frames.count)
  }

  private func answers(_ count: Int) throws -> [Int16] {
    frontend.push()
    var responses: [NetIfTxResponse] = []
    let answered = try pair.scheduler.run {
      responses += try frontend.txResponses()
      return responses.count >= count
    }
    #expect(answered)
    return responses.sorted { $0.id < $1.id }.map(\.status)
  }

  private var arrived: [[UInt8]] {
    var frames: [[UInt8]] = []
    end.receive { frames.append($0.bytes.copied()) }
    return frames
  }

  @Test func theEndSeesWholeChecksums() throws {
    let packets = [
      TestPacket(payload: pattern(1001, seed: 3), checksumField: 0x1234),
      TestPacket(network: .ipv6, transport: .udp, tags: [0x8100], payload: pattern(64, seed: 4)),
    ]
    #expect(try send(packets.map(\.bytes)) == [0, 0])
    #expect(arrived == packets.map(\.whole))
    #expect(try pair.backendError == nil)
    pair.backBus.close()
    _ = pair.scheduler.run { closed.statistics.tx.packets > 0 }
    #expect(closed.statistics.txChecksumsFilled == 2 && closed.statistics.tx.errors == 0)
  }

  @Test func framesThatSayNothingOfTheirChecksumsPassAsTheyAre() throws {
    let wrong = TestPacket(payload: [1, 2, 3], checksumField: 0x1234).bytes
    let noPacket = frame(1)
    for flags in [0, NetIf.TxFlag.dataValidated] {
      #expect(try send([wrong, noPacket], flags: flags) == [0, 0])
      #expect(arrived == [wrong, noPacket])
    }
  }

  @Test func aPacketOfSeveralSlotsIsSummedUpAsOne() throws {
    let packet = TestPacket(payload: pattern(9000, seed: 5))
    let bytes = packet.bytes
    // The TCP header lies in two pages.
    var parts: [(start: Int, count: Int)] = []
    for count in [45, 4096, 4095, bytes.count - 45 - 4096 - 4095] {
      parts.append((parts.last.map { $0.start + $0.count } ?? 0, count))
    }
    for (number, (start, count)) in parts.enumerated() {
      let part = Array(bytes[start..<start + count])
      frontend.page(number).copy(from: part.span)
      let isFirst = number == 0
      let more = number < parts.count - 1 ? NetIf.TxFlag.moreData : 0
      frontend.put(
        NetIfTxRequest(
          gref: frontend.references[number], flags: more | (isFirst ? NetIf.TxFlag.checksumBlank : 0),
          id: UInt16(number), size: UInt16(isFirst ? bytes.count : count)))
    }
    #expect(try answers(parts.count) == [0, 0, 0, 0])
    #expect(arrived == [packet.whole])
  }

  /// The reason is said once a connection, however many there are.
  @Test func aPacketWithNoPlaceForAChecksumIsRefusedAloneAndSaidOnce() throws {
    let good = TestPacket(transport: .udp, payload: [1])
    var fragment = good.bytes
    fragment[20] = 0x20
    var short = good.bytes
    short[17] = 19
    #expect(try send([fragment, good.bytes, short, frame(1)]) == [-1, 0, -1, -1])
    #expect(arrived == [good.whole])
    let told =
      "22 a packet of the frontend was answered with an error: its checksum was left blank and cannot be filled in: "
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    #expect(try pair.backendError == told + "it is a fragment of an IP packet")
    #expect(pair.backBus.isConnected)
    #expect(try send([short]) == [-1])
    _ = pair.scheduler.run(turns: 50) { false }
    #expect(try pair.backendError == told + "it is a fragment of an IP packet")
  }

  /// The toolstack has taken note of it.
  @Test func whatWasRefusedIsNotSaidAgainWhenTheLinkChanges() throws {
    #expect(try send([frame(1)]) == [-1])
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    try pair.rig.store.remove("/local/domain/2/error/backend/vif/1/0", in: nil)
    end.hasCarrier = false
    let backend = pair.rig.directory(pair.device.backendPath)
    #expect(try pair.scheduler.run { try backend.optionalString("carrier") == "0" })
    #expect(try pair.backendError == nil)
  }

  /// In its place lies what an earlier one has left.
  @Test func aPacketThatCannotBeReadIsNotFilledIn() throws {
    let packet = TestPacket(payload: pattern(100, seed: 6))
    #expect(try send([packet.bytes]) == [0])
    #expect(arrived == [packet.whole])
    frontend.put(
      NetIfTxRequest(
        gref: GrantReference(rawValue: 4242), flags: NetIf.TxFlag.checksumBlank, id: 0,
        size: UInt16(packet.bytes.count)))
    #expect(try answers(1) == [-1])
    #expect(arrived == [])
  }

  @Test func aPageThatCannotBeReadIsSaid() throws {
    frontend.put(NetIfTxRequest(gref: GrantReference(rawValue: 4242), id: 0, size: 64))
    #expect(try answers(1) == [-1])
    #expect(try pair.scheduler.run { try pair.backendError != nil })
    #expect(try pair.backendError?.contains("answered with an error: grant reference 4242 cannot be read: ") == true)
  }
}
