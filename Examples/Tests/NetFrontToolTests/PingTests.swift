import NetFront
import Testing

@testable import NetFrontTool

/// A ping by a clock that the test sets.
struct PingTests {
  private let host = Frames.host()
  private let target = IPv4Address("10.9.0.1")!

  private func plan(_ count: Int) -> Ping.Plan {
    Ping.Plan(target: target, count: count, byteCount: 3, interval: 1_000_000_000, patience: 5_000_000_000)
  }

  private func time(_ milliseconds: UInt64) -> Uptime { Uptime(nanoseconds: milliseconds * 1_000_000) }

  /// What the other host has to say to a ping.
  private func reply(to action: Ping.Action, _ location: SourceLocation = #_sourceLocation) throws -> IPv4Host.EchoReply
  {
    guard case .send(let frame) = action else {
      throw TestFailure("no ping, but \(action)")
    }
    var (other, own) = (IPv4Host(mac: Frames.theirMAC, network: IPv4Network("10.9.0.1/24")!), host)
    guard case .answer(let answer) = other.take(frame), case .echoReply(let reply) = own.take(answer) else {
      throw TestFailure("no ping that is answered: \(frame)")
    }
    return reply
  }

  @Test func pingsGoOutOneByOneAndAreSummedUp() throws {
    var ping = Ping(plan(3), identifier: 77)
    #expect(ping.next(host, now: time(1000)) == .send(host.arpRequest(for: target)))
    #expect(ping.next(host, now: time(1000)) == .wait(until: time(2000)))
    ping.resolved(target, Frames.theirMAC)
    var lines: [String?] = []
    for (number, trip) in [(UInt64(0), UInt64(2)), (1, 4), (2, 3)] {
      let now = 1500 + number * 1000
      let action = ping.next(host, now: time(now))
      lines.append(ping.take(try reply(to: action), now: time(now + trip)))
    }
    #expect(
      lines == [
        "11 bytes from 10.9.0.1: icmp_seq=1 time=2.000 ms", "11 bytes from 10.9.0.1: icmp_seq=2 time=4.000 ms",
        "11 bytes from 10.9.0.1: icmp_seq=3 time=3.000 ms",
      ])
    #expect(ping.next(host, now: time(3503)) == .done)
    #expect(ping.isDone && ping.isComplete)
    #expect(ping.heading == "PING 10.9.0.1 3(31) bytes of data.")
    #expect(
      ping.summary == [
        "--- 10.9.0.1 ping statistics ---", "3 packets transmitted, 3 received, 0% packet loss, time 2003ms",
        "rtt min/avg/max/mdev = 2.000/3.000/4.000/0.816 ms",
      ])
  }

  @Test func lostPingIsWaitedForAndCounted() throws {
    var ping = Ping(plan(2), identifier: 77)
    _ = ping.next(host, now: time(0))
    ping.resolved(target, Frames.theirMAC)
    _ = try reply(to: ping.next(host, now: time(0)))
    #expect(ping.next(host, now: time(999)) == .wait(until: time(1000)))
    let second = try reply(to: ping.next(host, now: time(1000)))
    #expect(ping.take(second, now: time(1001)) != nil)
    #expect(ping.next(host, now: time(5999)) == .wait(until: time(6000)))
    #expect(ping.next(host, now: time(6000)) == .done)
    #expect(ping.isDone && !ping.isComplete)
    #expect(ping.summary[1] == "2 packets transmitted, 1 received, 50% packet loss, time 6000ms")
  }

  @Test func answersOfOthersAndSecondAnswersDoNotCount() throws {
    var ping = Ping(plan(2), identifier: 77)
    _ = ping.next(host, now: time(0))
    ping.resolved(IPv4Address("10.9.0.9")!, Frames.mac)
    #expect(ping.next(host, now: time(0)) == .wait(until: time(1000)), "another host's address is not the target's")
    ping.resolved(target, Frames.theirMAC)
    let right = try reply(to: ping.next(host, now: time(0)))
    for wrong in [
      IPv4Host.EchoReply(source: IPv4Address("10.9.0.9")!, identifier: 77, sequence: 1, payload: right.payload),
      IPv4Host.EchoReply(source: target, identifier: 78, sequence: 1, payload: right.payload),
      IPv4Host.EchoReply(source: target, identifier: 77, sequence: 0, payload: right.payload),
      IPv4Host.EchoReply(source: target, identifier: 77, sequence: 2, payload: right.payload),
      IPv4Host.EchoReply(source: target, identifier: 77, sequence: 0xFFFF, payload: right.payload),
    ] {
      #expect(ping.take(wrong, now: time(1)) == nil)
    }
    let damaged = IPv4Host.EchoReply(source: target, identifier: 77, sequence: 1, payload: [0, 0, 0])
    #expect(ping.take(damaged, now: time(1)) == "11 bytes from 10.9.0.1: icmp_seq=1 (not the bytes that were sent)")
    #expect(ping.take(right, now: time(1))?.hasSuffix("time=1.000 ms") == true)
    #expect(ping.take(right, now: time(2)) == "11 bytes from 10.9.0.1: icmp_seq=1 (DUP!)")
    _ = ping.next(host, now: time(1000))
    #expect(ping.next(host, now: time(6000)) == .done)
    #expect(
      ping.summary[1]
        == "2 packets transmitted, 1 received, +1 duplicates, +1 damaged, 50% packet loss, time 6000ms")
  }

  @Test func absentHostIsAskedForFiveTimes() {
    var ping = Ping(plan(2), identifier: 77)
    for attempt in 0..<UInt64(Ping.arpAttempts) {
      #expect(ping.next(host, now: time(attempt * 1000)) == .send(host.arpRequest(for: target)))
    }
    #expect(ping.next(host, now: time(4999)) == .wait(until: time(5000)))
    #expect(ping.next(host, now: time(5000)) == .done)
    #expect(!ping.isComplete)
    #expect(
      ping.summary == [
        "nobody answers for 10.9.0.1 (ARP, 5 times)", "--- 10.9.0.1 ping statistics ---",
        "0 packets transmitted, 0 received, 100% packet loss, time 0ms",
      ])
  }
}

struct TestFailure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
