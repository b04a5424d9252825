import Foundation
import Glibc
import NetBack
import NetFront
import Synchronization
import TestSupport
import Testing
import XenLoopback

/// N20: a card whose other end is a TAP device of this machine, where that lets us have one.
@Suite(.enabled(if: TapDevices.missing == nil, "\(TapDevices.missing ?? "")"), .serialized)
struct TapEndTests {
  @Test func removedInterfaceTakesTheLinkDownAndNothingElse() throws {
    let tap = try TapInterface(name: TapDevices.name())
    let end = TapEnd(tap)
    let pair = try NetPair(end: end)
    try pair.connect()
    #expect(pair.card.hasCarrier && end.wakeDescriptor == tap.descriptor)
    try Tap.ip("link", "delete", tap.name)
    let isDown = pair.scheduler.run {
      pair.pollCard()
      return !pair.card.hasCarrier
    }
    #expect(isDown && tap.isGone)
    #expect(end.wakeDescriptor == nil, "what is readable for ever wakes nobody")
    #expect(try pair.rig.directory(pair.device.backendPath).optionalString("carrier") == "0")
    #expect(try pair.backendState == .connected)
    // What is sent now is answered, and lost.
    try pair.card.send(frame(1).span)
    pair.card.push()
    let isAnswered = pair.scheduler.run {
      pair.pollCard()
      return pair.card.inFlightCount == 0
    }
    #expect(isAnswered && end.dropCount == 1)
  }

  @Test func interfaceThatIsDownTakesNothingAndIsNotGone() throws {
    let tap = try TapInterface(name: TapDevices.name())
    let page = PrivatePages(pageCount: 1)
    #expect(!tap.send(page.bytes.slice(from: 0, count: 60)))
    #expect(tap.receive(into: page.bytes) == 0)
    #expect(!tap.isGone)
    try tap.setMTU(1400)
    #expect(try String(contentsOfFile: "/sys/class/net/\(tap.name)/mtu", encoding: .utf8) == "1400\n")
  }

  @Test func machineIsToldWhetherTheLinkIsUp() throws {
    let tap = try TapInterface(name: TapDevices.name())
    try Tap.ip("link", "set", tap.name, "up")
    for isUp in [false, true, false] {
      try tap.setCarrier(isUp)
      let carrier = try String(contentsOfFile: "/sys/class/net/\(tap.name)/carrier", encoding: .utf8)
      #expect(carrier == (isUp ? "1\n" : "0\n"))
    }
  }

  @Test func interfaceInUseAndInterfaceThatIsNoTapAreRefused() throws {
    let tap = try TapInterface(name: TapDevices.name())
    #expect(throws: TapError.inUse(tap.name)) { _ = try TapInterface(name: tap.name) }
    #expect(throws: TapError.notATap("lo")) { _ = try TapInterface(name: "lo") }
    #expect(!tap.isGone)
  }
}

/// An end whose descriptor is readable for ever, as that of a removed interface.
private final class GoneEnd: NetworkEnd {
  let wakeup: Wakeup
  let isGone = Atomic(false)
  let turnCount = Atomic(0)

  init() throws {
    wakeup = try Wakeup()
    wakeup.signal()
  }

  var wakeDescriptor: CInt? { isGone.load(ordering: .relaxed) ? nil : wakeup.descriptor }
  var hasCarrier: Bool { wakeDescriptor != nil }

  func take(_ frames: Span<NetworkFrame>, answering guest: inout FrameQueue) {}

  func give(to guest: inout FrameQueue) {
    // The first turns find out.
    if turnCount.add(1, ordering: .relaxed).newValue == 3 { isGone.store(true, ordering: .relaxed) }
  }
}

struct GoneEndTests {
  @Test func anEndThatWillNeverGiveAnythingIsNotWaitedFor() throws {
    let end = try GoneEnd()
    let rig = try Rig()
    let card = NetFrontDevice()
    _ = try rig.toolstack.addVif(to: rig.guest.domain, servedBy: rig.driverDomain.domain, mac: "00:16:3e:00:00:01")
    let pair = try ThreadedPair(rig, frontend: card, backend: NetBackDriver { _ in end })
    #expect(pair.run { card.isConnected && !card.hasCarrier && end.isGone.load(ordering: .relaxed) })
    let turnCount = end.turnCount.load(ordering: .relaxed)
    usleep(100_000)
    // Awake all the time, it would have had thousands.
    #expect(end.turnCount.load(ordering: .relaxed) < turnCount + 50)
  }
}

private enum Tap {
  static func ip(_ arguments: String...) throws {
    let process = try Process.run(URL(filePath: "/usr/bin/env"), arguments: ["ip"] + arguments)
    process.waitUntilExit()
    try #require(process.terminationStatus == 0)
  }
}
