import NetFront
import Testing

@testable import NetFrontTool

/// What a host answers, byte by byte, and what it does not.
struct IPv4HostTests {
  private func outcome(_ frame: [UInt8]) -> (IPv4Host.Outcome, IPv4Host.Counts) {
    var host = Frames.host()
    let outcome = host.take(frame)
    return (outcome, host.counts)
  }

  private func expectPassedOver(_ frame: [UInt8], _ location: SourceLocation = #_sourceLocation) {
    let (outcome, counts) = outcome(frame)
    #expect(outcome == .nothing && counts.passedOver == 1 && counts.malformed == 0, sourceLocation: location)
  }

  private func expectMalformed(_ frame: [UInt8], _ location: SourceLocation = #_sourceLocation) {
    let (outcome, counts) = outcome(frame)
    #expect(outcome == .nothing && counts.malformed == 1 && counts.passedOver == 0, sourceLocation: location)
  }

  // MARK: ARP

  @Test func questionForOurAddressIsAnswered() {
    let (answer, counts) = outcome(Frames.arp())
    let reply =
      Frames.theirs + Frames.ours + [8, 6, 0, 1, 8, 0, 6, 4, 0, 2] + Frames.ours + [10, 9, 0, 2] + Frames.theirs
      + [10, 9, 0, 1]
    #expect(answer == .answer(reply) && counts.arpRequestsAnswered == 1)
    // To our card alone, and with what a short frame is filled up with.
    #expect(outcome(Frames.arp(to: Frames.ours) + [UInt8](repeating: 0, count: 18)).0 == .answer(reply))
  }

  @Test func questionOfAHostWithoutAnAddressIsAnswered() {
    let (answer, _) = outcome(Frames.arp(from: [0, 0, 0, 0]))
    guard case .answer(let frame) = answer else { return #expect(Bool(false), "\(answer)") }
    #expect(Array(frame[32...]) == Frames.theirs + [0, 0, 0, 0])
  }

  @Test func answerToOurQuestionTellsAnAddress() {
    let (told, _) = outcome(Frames.arp(operation: 2, to: Frames.ours, targetMAC: Frames.ours))
    #expect(told == .resolved(IPv4Address("10.9.0.1")!, Frames.theirMAC))
  }

  @Test func ourQuestionIsAsRFC826HasIt() {
    #expect(
      Frames.host().arpRequest(for: IPv4Address("10.9.0.1")!)
        == Frames.everybody + Frames.ours + [8, 6, 0, 1, 8, 0, 6, 4, 0, 1] + Frames.ours + [10, 9, 0, 2]
        + [0, 0, 0, 0, 0, 0, 10, 9, 0, 1])
  }

  @Test func otherARPIsPassedOver() {
    expectPassedOver(Frames.arp(target: [10, 9, 0, 3]))
    expectPassedOver(Frames.arp(to: [0, 0x16, 0x3E, 0, 0, 9]))
    expectPassedOver(Frames.arp(operation: 3))
    expectPassedOver(Frames.arp(operation: 2))
    for kind: [UInt8] in [[0, 6, 8, 0, 6, 4], [0, 1, 0x86, 0xDD, 6, 4], [0, 1, 8, 0, 8, 4], [0, 1, 8, 0, 6, 16]] {
      expectPassedOver(Frames.arp(kind: kind))
    }
    // Somebody who says that our address is his.
    expectPassedOver(Frames.arp(from: [10, 9, 0, 2]))
  }

  @Test func malformedARPIsCounted() {
    expectMalformed(Array(Frames.arp().dropLast()))
    expectMalformed(Frames.arp(sender: Frames.everybody))
    expectMalformed(Frames.arp(sender: [0, 0, 0, 0, 0, 0]))
    for address: [UInt8] in [[224, 0, 0, 1], [255, 255, 255, 255], [127, 0, 0, 1], [10, 9, 0, 255], [10, 9, 0, 0]] {
      expectMalformed(Frames.arp(from: address))
      expectMalformed(Frames.arp(operation: 2, to: Frames.ours, from: address))
    }
  }

  // MARK: Ping

  @Test(arguments: [0, 1, 2, 3, 17, 56, 1472, 8972, 65489]) func pingIsAnswered(byteCount: Int) {
    let payload = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 7) }
    let (answer, counts) = outcome(Frames.ip(1, Frames.icmp(8, payload)))
    let reply = Frames.ip(
      1, Frames.icmp(0, payload), to: Frames.theirs, source: Frames.ours, from: [10, 9, 0, 2], target: [10, 9, 0, 1],
      timeToLive: 64)
    #expect(answer == .answer(reply) && counts.echoRequestsAnswered == 1)
  }

  @Test func whatStandsBehindAPacketIsNotSentBack() {
    let request = Frames.ip(1, Frames.icmp())
    #expect(outcome(request + [1, 2, 3]).0 == outcome(request).0)
  }

  @Test func everyChecksumOfAPingLeadsToARightOne() {
    // All of them, by the identifier: also those that are zero in one way or the other.
    var host = Frames.host()
    for identifier in stride(from: 0, to: 0x10000, by: 1) {
      let request = Frames.ip(1, Frames.icmp(8, identifier: identifier, []))
      guard case .answer(let frame) = host.take(request) else {
        #expect(Bool(false), "\(identifier)")
        return
      }
      var sum = 0
      for place in stride(from: 34, to: frame.count, by: 2) { sum += Int(frame[place]) * 256 + Int(frame[place + 1]) }
      while sum > 0xFFFF { sum = sum % 0x10000 + sum / 0x10000 }
      if sum != 0xFFFF {
        #expect(Bool(false), "the answer to \(identifier) has a wrong checksum")
        return
      }
    }
  }

  @Test func answerToAPingOfOursIsHandedOver() {
    let (outcome, _) = outcome(Frames.ip(1, Frames.icmp(0, identifier: 5, sequence: 6, [1, 2, 3])))
    #expect(
      outcome
        == .echoReply(.init(source: IPv4Address("10.9.0.1")!, identifier: 5, sequence: 6, payload: [1, 2, 3])))
  }

  @Test func ourPingIsAnsweredByAHostOfTheSameKind() throws {
    var other = IPv4Host(mac: Frames.theirMAC, network: try #require(IPv4Network("10.9.0.1/24")))
    let request = Frames.host().echoRequest(
      to: Frames.theirMAC, IPv4Address("10.9.0.1")!, identifier: 9, sequence: 0xFFFF, payload: [5, 4, 3])
    guard case .answer(let answer) = other.take(request) else {
      #expect(Bool(false))
      return
    }
    #expect(
      outcome(answer).0
        == .echoReply(.init(source: IPv4Address("10.9.0.1")!, identifier: 9, sequence: 0xFFFF, payload: [5, 4, 3])))
  }

  // MARK: Datagrams

  @Test(arguments: [0, 1, 2, 1472]) func datagramToTheEchoPortIsAnswered(byteCount: Int) {
    let payload = (0..<byteCount).map { UInt8(truncatingIfNeeded: $0 &* 5) }
    let (answer, counts) = outcome(Frames.ip(17, Frames.udp(payload)))
    let reply = Frames.ip(
      17, Frames.udp(from: 7, to: 40000, payload), to: Frames.theirs, source: Frames.ours, from: [10, 9, 0, 2],
      target: [10, 9, 0, 1], timeToLive: 64)
    #expect(answer == .answer(reply) && counts.datagramsAnswered == 1)
  }

  @Test func datagramWithoutAChecksumIsAnsweredWithoutOne() {
    let (answer, _) = outcome(Frames.ip(17, Frames.udp(checksum: 0)))
    guard case .answer(let frame) = answer else { return #expect(Bool(false), "\(answer)") }
    #expect(Array(frame[34...]) == [0, 7, 0x9C, 0x40, 0, 12, 0, 0] + Array("echo".utf8))
  }

  @Test func datagramThatWouldGoRoundForEverIsNotAnswered() {
    expectPassedOver(Frames.ip(17, Frames.udp(from: 7)))
    expectPassedOver(Frames.ip(17, Frames.udp(from: 0)))
    expectPassedOver(Frames.ip(17, Frames.udp(to: 9)))
  }

  @Test func datagramThatLiesIsCounted() {
    expectMalformed(Frames.ip(17, Frames.udp(byteCount: 7)))
    expectMalformed(Frames.ip(17, Frames.udp(byteCount: 13)))
    expectMalformed(Frames.ip(17, Frames.udp(byteCount: 11)))
    expectMalformed(Frames.ip(17, Frames.udp(byteCount: 0xFFFF)))
    expectMalformed(Frames.ip(17, Frames.udp(checksum: 1)))
    expectMalformed(Frames.ip(17, [0, 1, 0, 7, 0, 8, 0]))
    // The addresses are in the sum as well.
    expectMalformed(Frames.ip(17, Frames.udp(between: [10, 9, 0, 1, 10, 9, 0, 3])))
  }

  // MARK: Anything else

  @Test func whatIsNotSpokenIsPassedOver() {
    let ping = Frames.icmp()
    expectPassedOver(Frames.ip(1, ping, to: Frames.theirs))
    expectPassedOver(Frames.ip(1, ping, to: Frames.everybody))
    expectPassedOver(Frames.ip(1, ping, target: [10, 9, 0, 3]))
    expectPassedOver(Frames.ip(1, ping, target: [10, 9, 0, 255]))
    expectPassedOver(Frames.ip(1, ping, fragment: 0x2000))
    expectPassedOver(Frames.ip(1, ping, fragment: 1))
    expectPassedOver(Frames.ip(1, ping, fragment: 0x8000))
    expectPassedOver(Frames.ip(1, ping, version: 0x46, options: [1, 1, 1, 0]))
    expectPassedOver(Frames.ip(6, ping))
    expectPassedOver(Frames.ip(1, Frames.icmp(13)))
    expectPassedOver(Frames.ip(1, Frames.icmp(code: 1)))
    expectPassedOver(Frames.ours + Frames.theirs + [0x86, 0xDD] + [UInt8](repeating: 0, count: 40))
    expectPassedOver(Frames.ours + Frames.theirs + [0x81, 0] + [UInt8](repeating: 0, count: 40))
  }

  @Test func malformedPacketIsCounted() {
    let ping = Frames.icmp()
    expectMalformed([])
    expectMalformed(Array(Frames.ip(1, ping).prefix(13)))
    expectMalformed(Array(Frames.ip(1, ping).prefix(33)))
    expectMalformed(Array(Frames.ip(1, ping).dropLast()))
    expectMalformed(Frames.ip(1, ping, version: 0x65))
    expectMalformed(Frames.ip(1, ping, version: 0x44))
    expectMalformed(Frames.ip(1, ping, version: 0x4F))
    expectMalformed(Frames.ip(1, ping, totalByteCount: 19))
    expectMalformed(Frames.ip(1, ping, totalByteCount: 0xFFFF))
    expectMalformed(Frames.ip(1, ping, totalByteCount: 27))
    expectMalformed(Frames.ip(1, ping, headerSum: 0x1234))
    expectMalformed(Frames.ip(1, Frames.icmp(checksum: 0x1234)))
    expectMalformed(Frames.ip(1, Frames.icmp(0, checksum: 0x1234)))
  }

  @Test func sourceThatIsNoHostIsNeverAnswered() {
    let addresses: [[UInt8]] = [
      [224, 0, 0, 1], [239, 255, 255, 255], [255, 255, 255, 255], [240, 0, 0, 1], [0, 0, 0, 0], [127, 0, 0, 1],
      [10, 9, 0, 255], [10, 9, 0, 0], [10, 9, 0, 2],
    ]
    for address in addresses {
      expectMalformed(Frames.ip(1, Frames.icmp(), from: address))
      expectMalformed(Frames.ip(17, Frames.udp(between: address + [10, 9, 0, 2]), from: address))
    }
    for source in [Frames.everybody, [1, 0, 0x5E, 0, 0, 1], [0, 0, 0, 0, 0, 0]] {
      expectMalformed(Frames.ip(1, Frames.icmp(), source: source))
    }
  }

  /// Each frame that differs in one byte, and each beginning of one: whatever is answered, is answered to who asked.
  @Test func noFrameDoesHarm() {
    let frames = [
      Frames.arp(), Frames.arp(operation: 2, to: Frames.ours), Frames.ip(1, Frames.icmp()),
      Frames.ip(1, Frames.icmp(0)), Frames.ip(17, Frames.udp()), Frames.ip(17, Frames.udp(checksum: 0)),
    ]
    var host = Frames.host()
    var answers = 0
    func take(_ frame: [UInt8]) {
      guard case .answer(let answer) = host.take(frame) else { return }
      answers += 1
      if answer.count > max(frame.count, 42) || Array(answer[6..<12]) != Frames.ours || answer[0] & 1 == 1 {
        #expect(Bool(false), "\(frame) is answered by \(answer)")
      }
    }
    for frame in frames {
      for count in 0..<frame.count { take(Array(frame[..<count])) }
      for place in frame.indices {
        for byte in UInt8.min...UInt8.max {
          var changed = frame
          changed[place] = byte
          take(changed)
        }
      }
    }
    #expect(answers > 1000)
    let sum = host.counts
    #expect(sum.malformed > 10000 && sum.passedOver > 1000)
  }

  // MARK: Addresses

  @Test(arguments: ["10.9.0.2/24", "192.0.2.1/32", "10.0.0.0/31", "10.0.0.1/31", "1.2.3.4/1"])
  func networkIsRead(text: String) { #expect(IPv4Network(text)?.description == text) }

  @Test(arguments: [
    "", "10.9.0.2", "10.9.0.2/", "10.9.0.2/0", "10.9.0.2/33", "10.9.0.2/+4", "10.9.0.2/024", "10.9.0/24", "/24",
    "10.9.0.0/24", "10.9.0.255/24", "224.0.0.1/24", "127.0.0.1/8", "0.1.2.3/8", "255.255.255.255/32", "10.9.0.2/24/1",
  ])
  func addressThatNoHostHasIsRefused(text: String) { #expect(IPv4Network(text) == nil) }

  @Test func networkHasItsOwnHosts() throws {
    let network = try #require(IPv4Network("10.9.0.2/23"))
    for (text, isInside) in [("10.9.1.255", true), ("10.9.0.0", true), ("10.9.2.0", false), ("11.9.0.2", false)] {
      #expect(network.contains(try #require(IPv4Address(text))) == isInside, "\(text)")
    }
  }
}
