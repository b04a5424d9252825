import Foundation
import Glibc
import NetBack
import NetFront
import Pcap
import Synchronization
import SystemPackage
import Testing
import XenLoopback

@testable import NetFrontTool

/// What xen-netfront does, on an in-process Xen.
struct CardAttachmentTests {
  private func isConnected(_ card: Neighbour, times count: Int = 1) -> Bool {
    card.answer {
      card.said.count(of: "connected: card 00:16:3e:00:00:01, MTU 1500") == 1
        && card.said.count(of: "connected again: ") == count - 1
    }
  }

  @Test func hostAnswersUntilItIsClosed() throws {
    let card = try Neighbour()
    let attachment = try card.attachHost()
    #expect(isConnected(card), "\(card.said.lines)")
    #expect(card.said.lines.contains { $0.contains("\nfeature-sg ") }, "the negotiation is shown")
    #expect(card.ask(Frames.arp())?[20...21] == [0, 2])
    let ping = Frames.ip(1, Frames.icmp(8, [UInt8](repeating: 7, count: 1472)))
    #expect(card.ask(ping)?.count == ping.count)
    #expect(card.ask(Frames.ip(17, Frames.udp()))?.suffix(4) == Array("echo".utf8)[...])
    #expect(attachment.close())
    #expect(attachment.outcome == nil)
    #expect(
      attachment.summary.last
        == "10.9.0.2/24: answered 1 ARP requests, 1 pings and 1 datagrams; 0 other frames, 0 malformed ones; "
        + "0 answers were not taken by the card")
    card.stopBackend()
    #expect(card.loopback.grantCounts.sharedPages == 0 && card.loopback.openPortCount == 0)
  }

  @Test func pingsAreSentAndSummedUp() throws {
    let card = try Neighbour()
    let attachment = try card.attachHost(ping: 20)
    #expect(card.answer { attachment.outcome != nil })
    #expect(attachment.outcome == .done, "\(card.said.lines)")
    #expect(card.said.count(of: "1008 bytes from 10.9.0.1: icmp_seq=") == 20)
    #expect(card.said.count(of: "20 packets transmitted, 20 received, 0% packet loss, time ") == 1)
    #expect(attachment.close())
    card.stopBackend()
  }

  @Test func lostPingIsAFailure() throws {
    let card = try Neighbour()
    card.deafCount = 1
    let attachment = try card.attachHost(ping: 3, patience: 5_000_000_000, endsWithPing: false)
    #expect(card.answer { attachment.outcome != nil })
    #expect(attachment.outcome == .failed("not every ping of 10.9.0.1 was answered"))
    #expect(card.said.count(of: "3 packets transmitted, 2 received, 33% packet loss, time ") == 1)
    #expect(attachment.close())
    card.stopBackend()
  }

  @Test func hostThatHasPingedGoesOnAnswering() throws {
    let card = try Neighbour()
    let attachment = try card.attachHost(ping: 1, endsWithPing: false)
    #expect(card.answer { card.said.count(of: "1 packets transmitted, 1 received") == 1 })
    #expect(card.ask(Frames.arp())?[20...21] == [0, 2])
    #expect(attachment.outcome == nil)
    #expect(attachment.close())
    card.stopBackend()
  }

  @Test func pingThatDoesNotFitIsRefused() throws {
    let card = try Neighbour(mtu: 1000)
    let attachment = try card.attachHost(ping: 1)
    #expect(card.answer { attachment.outcome != nil })
    #expect(
      attachment.outcome
        == .failed("a ping of 1000 bytes does not fit into the card's MTU of 1000: it takes at most 972"))
    #expect(attachment.close())
    card.stopBackend()
  }

  @Test func whatWasSentIsAnsweredBeforeTheCardIsClosed() throws {
    let card = try Neighbour()
    let step = OneFrame.Step()
    let attachment = try card.attach(OneFrame(step))
    #expect(isConnected(card))
    // The backend is told of the frame only when the card is being closed.
    card.loopback.eventFaults.delayed = .oneIn(1)
    step.number.store(1, ordering: .releasing)
    #expect(card.answer { step.number.load(ordering: .acquiring) == 2 })
    let loopback = card.loopback
    let thread = Thread {
      usleep(50_000)
      loopback.eventFaults.delayed = .never
      loopback.deliverHeldEvents()
    }
    thread.start()
    #expect(attachment.close())
    #expect(attachment.summary[0].hasPrefix("tx: 1 packets, "), "\(attachment.summary)")
    #expect(attachment.summary[0].contains(" 0 drops; rx: "), "\(attachment.summary)")
    card.stopBackend()
  }

  /// Events that ask for nothing, as fast as they can be raised: a few at once, then fewer and fewer, down to two in a tenth of a second, and now and then
  /// another one where the thread measures its sleep.
  @Test func aStormOfEventsCostsAWakeNowAndThen() throws {
    let card = try Neighbour()
    let count = IdleEnd.Count()
    let attachment = try card.attach(IdleEnd(count))
    #expect(isConnected(card))
    let before = count.value.load(ordering: .relaxed)
    card.loopback.eventFaults.spurious = .oneIn(1)
    let start = Uptime.now.nanoseconds
    var eventCount = 0
    while eventCount < 20_000 || Uptime.now.nanoseconds - start < 300_000_000 {
      card.loopback.deliverHeldEvents()
      eventCount += 1
    }
    let seconds = Double(Uptime.now.nanoseconds - start) / 1e9
    let polls = count.value.load(ordering: .relaxed) - before
    #expect(
      polls > 0 && Double(polls) < 60 + 30 * seconds, "\(polls) polls for \(eventCount) events in \(seconds) seconds")
    card.loopback.eventFaults.spurious = .never
    // Whatever asks for something is answered all the same.
    #expect(attachment.close())
    card.stopBackend()
  }

  @Test func backendThatComesBackIsFollowed() throws {
    let card = try Neighbour()
    let attachment = try card.attachHost()
    #expect(isConnected(card))
    for round in 2...3 {
      card.stopBackend()
      #expect(card.answer { card.said.count(of: "\(card.device.frontendPath): waits for ") >= round - 1 })
      try card.startBackend()
      #expect(isConnected(card, times: round), "\(card.said.lines)")
      #expect(card.ask(Frames.arp())?[20...21] == [0, 2])
    }
    #expect(attachment.close())
    card.stopBackend()
  }

  @Test func cardOfAKilledProgramIsTakenUp() throws {
    let card = try Neighbour()
    // Its process ends without a word; the object itself is ended after that, and reaches nobody.
    let killed = try card.attachHost()
    #expect(isConnected(card))
    card.guest.kill()
    #expect(try card.states == [.connected, .connected])
    let attachment = try card.attachHost(ping: 5, on: card.loopback.addProcess(in: card.guest.domain))
    #expect(card.answer { attachment.outcome != nil })
    #expect(attachment.outcome == .done, "\(card.said.lines)")
    #expect(attachment.close())
    _ = killed.close(within: 0)
    card.stopBackend()
  }

  @Test func removedCardEndsIt() throws {
    let card = try Neighbour()
    let attachment = try card.attachHost()
    #expect(isConnected(card))
    #expect(try card.toolstack.destroy(card.device))
    #expect(card.answer { attachment.outcome != nil })
    #expect(attachment.outcome == .removed)
    #expect(attachment.close())
    card.stopBackend()
  }

  @Test func cardThatIsNotThereIsWaitedFor() throws {
    let card = try Neighbour()
    #expect(try card.toolstack.destroy(card.device))
    let attachment = try card.attachHost()
    #expect(card.answer { card.said.lines == ["\(card.device.frontendPath): is not there yet"] })
    _ = try card.toolstack.add(
      Toolstack.Card(mac: "00:16:3e:00:00:01", frontendRoot: "udevice"), to: card.guest.domain,
      servedBy: card.driverDomain.domain)
    #expect(isConnected(card), "\(card.said.lines)")
    #expect(attachment.close())
    card.stopBackend()
  }

  @Test func cardThatDoesNotConnectInTimeIsAFailure() throws {
    let card = try Neighbour()
    card.stopBackend()
    let attachment = try card.attach(HostEnd(IPv4Network("10.9.0.2/24")!, say: card.said.say), timeout: 0.05)
    #expect(card.answer { attachment.outcome != nil })
    guard case .failed(let sentence) = attachment.outcome else {
      #expect(Bool(false))
      return
    }
    #expect(
      sentence.hasPrefix("the card has not connected in time: \(card.device.frontendPath): waits for the backend"))
    _ = attachment.close(within: 0.05)
  }

  @Test func badKeyIsNamed() throws {
    let card = try Neighbour(mac: "ff:ff:ff:ff:ff:ff")
    let attachment = try card.attachHost()
    #expect(card.answer { card.said.lines.contains { $0.contains("/mac holds \"ff:ff:ff:ff:ff:ff\"") } })
    _ = attachment.close(within: 1)
    card.stopBackend()
  }

  @Test func captureHoldsWhatHasArrived() throws {
    let path = FileManager.default.temporaryDirectory.appending(path: "swift-xen-\(UUID()).pcap").path
    defer { try? FileManager.default.removeItem(atPath: path) }
    let card = try Neighbour()
    let attachment = try card.attach(CaptureFile(path: path) { 5_000_000_007 })
    #expect(isConnected(card))
    let frames = (1...100).map { Frames.ip(1, Frames.icmp(8, [UInt8](repeating: UInt8($0), count: $0 * 13))) }
    func captured() throws -> [PcapPacket] {
      var reader = try PcapReader(path: FilePath(path))
      var packets: [PcapPacket] = []
      while let packet = try reader.next() { packets.append(packet) }
      return packets
    }
    // What has come is there while it goes on.
    for frame in frames.prefix(50) { card.end.send(frame.span) }
    #expect(card.answer { (try? captured().count) == 50 })
    for frame in frames.dropFirst(50) { card.end.send(frame.span) }
    #expect(card.answer { (try? captured().count) == 100 })
    #expect(attachment.close())
    #expect(try captured().map(\.bytes) == frames)
    #expect(try captured().allSatisfy { $0.nanoseconds == 5_000_000_007 })
    #expect(attachment.summary.last == "\(path): 100 frames")
    card.stopBackend()
  }

  @Test func captureThatCannotBeWrittenIsAFailure() throws {
    #expect(throws: PcapError.cannotOpen("/nowhere/file", .noSuchFileOrDirectory)) {
      try CaptureFile(path: "/nowhere/file") { 0 }
    }
    let card = try Neighbour()
    // A file that opens and takes nothing.
    #expect(throws: PcapError.cannotWrite("/dev/full", .noSpace)) { try CaptureFile(path: "/dev/full") { 0 } }
    card.stopBackend()
  }
}

/// With a TAP device, where the machine has one to give.
@Suite(.enabled(if: Tap.missing == nil, "\(Tap.missing ?? "")"), .serialized)
struct TapCableTests {
  @Test func framesCrossBetweenTheCardAndTheMachine() throws {
    let card = try Neighbour(mtu: 1400)
    let tap = try TapInterface(name: Tap.name)
    let attachment = try card.attach(TapCable(tap))
    try Tap.ip("address", "add", "10.9.0.2/24", "dev", Tap.name)
    try Tap.ip("link", "set", Tap.name, "up")
    #expect(card.answer { card.said.count(of: "connected: ") == 1 && Tap.value("carrier") == "1" })
    #expect(Tap.value("mtu") == "1400")
    // The machine itself answers.
    #expect(
      card.answer {
        // It may drop what comes just when it shows its carrier.
        card.end.send(Frames.arp().span)
        return card.received.contains { $0.count >= 42 && $0[12...13] == [8, 6] && $0[20...21] == [0, 2] }
      })
    card.stopBackend()
    #expect(card.answer { Tap.value("carrier") == "0" })
    try card.startBackend()
    #expect(card.answer { Tap.value("carrier") == "1" })
    // The link follows the card's.
    card.end.hasCarrier = false
    #expect(card.answer { Tap.value("carrier") == "0" })
    #expect(attachment.close())
    card.stopBackend()
  }

  @Test func removedInterfaceIsAFailure() throws {
    // Each test its own: a program that is just being started may still hold the former one.
    let (card, name) = (try Neighbour(), Tap.name + "r")
    let attachment = try card.attach(TapCable(try TapInterface(name: name)))
    #expect(card.answer { card.said.count(of: "connected: ") == 1 })
    try Tap.ip("link", "delete", name)
    #expect(card.answer { attachment.outcome != nil })
    #expect(attachment.outcome == .failed("the TAP device \(name) was removed"))
    #expect(attachment.close())
    card.stopBackend()
  }
}

/// One TAP device of this process's own.
private enum Tap {
  static let name = "nft\(getpid())"

  /// Why there is none; nil when there is.
  static let missing: String? = {
    do {
      _ = try TapInterface(name: name + "m")
      try ip("-V")
      return nil
    } catch { return "\(error)" }
  }()

  static func ip(_ arguments: String...) throws {
    let process = Process()
    (process.executableURL, process.arguments) = (URL(filePath: "/usr/bin/env"), ["ip"] + arguments)
    process.standardOutput = FileHandle.nullDevice
    try process.run()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else { throw TestFailure("ip \(arguments) failed") }
  }

  /// What the kernel says of it; nil also while it is down.
  static func value(_ attribute: String) -> String? {
    (try? String(contentsOfFile: "/sys/class/net/\(name)/\(attribute)", encoding: .utf8))?
      .trimmingCharacters(in: .newlines)
  }
}

/// Counts how often it is asked for something to do.
private final class IdleEnd: CardEnd {
  final class Count: Sendable { let value = Atomic(0) }

  private let count: Count
  let summary = ""

  init(_ count: Count) { self.count = count }

  func connected(_ card: NetFrontDevice) {}

  func take(_ frame: borrowing NetFrontFrame, _ card: NetFrontDevice, now: Uptime) {}

  func poll(_ card: NetFrontDevice, now: Uptime) -> PollOutcome {
    count.value.add(1, ordering: .relaxed)
    return .idle
  }
}

/// Sends one frame when it is told to.
private final class OneFrame: CardEnd {
  /// 1 when it is told to, 2 when it has.
  final class Step: Sendable {
    let number = Atomic(0)
  }

  private let step: Step
  let summary = ""

  init(_ step: Step) { self.step = step }

  func connected(_ card: NetFrontDevice) {}

  func take(_ frame: borrowing NetFrontFrame, _ card: NetFrontDevice, now: Uptime) {}

  func poll(_ card: NetFrontDevice, now: Uptime) throws(CardEndError) -> PollOutcome {
    guard step.number.load(ordering: .acquiring) < 2 else { return .idle }
    if step.number.load(ordering: .acquiring) == 1 {
      do throws(NetFrontError) { try card.send(Frames.arp().span) } catch { throw CardEndError("\(error)") }
      card.push()
      step.number.store(2, ordering: .releasing)
    }
    return .idleUntil(now + 1_000_000)
  }
}
