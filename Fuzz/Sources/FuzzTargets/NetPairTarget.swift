import NetBack
import NetFront

/// A card with both its ends. No frame arrives altered, twice or before its turn, and at the end nothing is held.
func fuzzNetPair(_ input: inout FuzzInput) {
  do { try NetPairRun(&input).run(&input) } catch { fatalError("the rig: \(error)") }
}

private final class NetPairRun {
  private let card: NetFrontDevice
  private let end: InProcessEnd
  private let rig: PairRig
  private var (sent, received, given, taken): (UInt32, UInt32, UInt32, UInt32) = (0, 0, 0, 0)
  /// The last of each for which there was room.
  private var lastPut: (sent: UInt32, given: UInt32) = (0, 0)

  init(_ input: inout FuzzInput) throws {
    var front = NetFeatures(splitEventChannels: input.flag(), scatterGather: input.flag())
    var back = NetFeatures(splitEventChannels: input.flag(), scatterGather: input.flag())
    // Of several queues none is before the other.
    (front.maxQueueCount, back.maxQueueCount) = (1, 1)
    (front.controlRing, back.controlRing) = (input.flag(), input.flag())
    let end = try InProcessEnd(capacity: 64)
    self.end = end
    card = NetFrontDevice(features: front)
    rig = try PairRig(frontend: card, backend: NetBackDriver(features: back) { _ in end }) {
      (toolstack, guest, driverDomain) throws(DeviceError) in
      try toolstack.addVif(to: guest, servedBy: driverDomain, mac: "00:16:3e:00:00:01", mtu: 1500)
    }
    rig.add(
      Sleeper { [card] in
        [card.descriptor].compactMap(\.self)
      } poll: { [unowned self] now, _ in
        card.poll(now: now) { taken = Self.check($0.copied(), after: taken, upTo: given) }
        return card.nextPoll.map(PollOutcome.idleUntil) ?? .idle
      })
    rig.add(
      Sleeper { [end] in
        [end.descriptor]
      } poll: { [unowned self] _, _ in
        end.receive { frame in
          frame.withSpan { span in received = Self.check(span.indices.map { span[$0] }, after: received, upTo: sent) }
        }
        return .idle
      })
  }

  func run(_ input: inout FuzzInput) throws {
    require(rig.settle { card.isConnected && rig.backBus.isConnected }, "both ends connect")
    var steps = 0
    while !input.isEmpty, steps < 400 {
      steps += 1
      switch input.next(UInt8.self) % 8 {
      case 0, 1:
        forEachOfBurst(&input) { byteCount in
          sent += 1
          if (try? card.send(Self.frame(sent, byteCount: byteCount).span)) != nil { lastPut.sent = sent }
        }
        if input.flag() { card.push() }
      case 2:
        forEachOfBurst(&input) { byteCount in
          given += 1
          if end.send(Self.frame(given, byteCount: byteCount).span) { lastPut.given = given }
        }
      case 3: card.push()
      case 4: rig.pollUsers()
      default: try rig.step(&input)
      }
    }
    rig.endFaults()
    card.push()
    // By events alone: an end that was not told of something sleeps on.
    let done = rig.settle { card.inFlightCount == 0 }
    require(done || rig.isPerhapsGone, "\(card.inFlightCount) frames are never answered")
    _ = rig.settle { false }
    if !rig.isDisturbed {
      require(received == lastPut.sent || end.dropCount > 0, "frame \(lastPut.sent) never comes out, \(received) does")
      // Frames do not wait for a guest for longer.
      let isRecent = rig.host.now.nanoseconds < 9_000_000_000
      require(taken == lastPut.given || !isRecent, "frame \(lastPut.given) never arrives, \(taken) does")
    }
    if card.isConnected { try sendLast() }
    rig.finish()
  }

  /// The lengths of frames to be sent now: of one, or now and then of many, so that rings fill.
  private func forEachOfBurst(_ input: inout FuzzInput, _ body: (Int) -> Void) {
    let count = input.next(UInt8.self)
    let first = input.below(1455)
    for index in 0..<(count < 192 ? 1 : Int(count - 190)) { body(60 + (first + index * 97) % 1455) }
  }

  /// When everybody sleeps there is room everywhere: one more frame each way arrives. It does not where somebody was not told of an
  /// earlier one, since he asked to be told of that.
  private func sendLast() throws {
    sent += 1
    given += 1
    try card.send(Self.frame(sent, byteCount: 60).span)
    card.push()
    end.send(Self.frame(given, byteCount: 60).span)
    require(
      rig.settle { received == sent && taken == given },
      "of the last frames \(received == sent ? 1 : 0) and \(taken == given ? 1 : 0) arrive")
  }

  /// A broadcast of a protocol that nobody has, with its number, and bytes that only it has.
  private static func frame(_ number: UInt32, byteCount: Int) -> [UInt8] {
    [UInt8](repeating: 0xFF, count: 6) + [0, 0x16, 0x3E, 0, 0, 1, 0x88, 0xB5]
      + (0..<4).map { UInt8(truncatingIfNeeded: number >> (8 * $0)) }
      + (18..<byteCount).map { UInt8(truncatingIfNeeded: Int(number) &* 31 &+ $0) }
  }

  private static func check(_ bytes: [UInt8], after last: UInt32, upTo most: UInt32) -> UInt32 {
    guard bytes.count >= 18, bytes[12] == 0x88, bytes[13] == 0xB5 else { return last }  // The card's own announcement.
    let number = (0..<4).reduce(0 as UInt32) { $0 | UInt32(bytes[14 + $1]) << UInt32(8 * $1) }
    require(number > last && number <= most, "frame \(number) came after \(last), of \(most)")
    require(bytes == frame(number, byteCount: bytes.count), "frame \(number) was altered")
    return number
  }
}
