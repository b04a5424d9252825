import Foundation
import Glibc
import Logging
import NetBack
import NetFront
import NetFrontTool
import Synchronization
import Testing
import XenLoopback

/// A card whose backend is another domain's of an in-process Xen, and the other host on its network.
final class Neighbour {
  let loopback = Loopback()
  let guest: LoopbackDomain
  let driverDomain: LoopbackDomain
  let toolstack: Toolstack
  let device: Toolstack.Device
  let end: InProcessEnd
  /// What the tested program has said.
  let said = Said()
  private var backend: BusThread?
  private var host = IPv4Host(mac: Frames.theirMAC, network: IPv4Network("10.9.0.1/24")!)
  /// Every frame that the card has sent.
  private(set) var received: [[UInt8]] = []
  /// How many of the next pings get no answer.
  var deafCount = 0

  final class Said: Sendable {
    private let contents = Mutex<[String]>([])

    var lines: [String] { contents.withLock { $0 } }
    var say: @Sendable (String) -> Void { { line in self.contents.withLock { $0.append(line) } } }
    func count(of beginning: String) -> Int { lines.count { $0.hasPrefix(beginning) } }
  }

  init(mac: String = "00:16:3e:00:00:01", mtu: Int = 1500) throws {
    toolstack = try Toolstack(on: loopback.addDomain())
    guest = loopback.addDomain()
    driverDomain = loopback.addDomain()
    end = try InProcessEnd()
    device = try toolstack.add(
      Toolstack.Card(mac: mac, mtu: mtu, frontendRoot: "udevice"), to: guest.domain, servedBy: driverDomain.domain)
    try startBackend()
  }

  static let quiet = Logger(label: "quiet") { _ in SwiftLogNoOpLogHandler() }

  func startBackend() throws {
    let end = end
    backend = try BusThread(on: driverDomain, log: Self.quiet) { (bus) throws(XenstoreError) in
      try bus.register(NetBackDriver { _ in end })
      return nil
    }
  }

  func stopBackend() {
    backend?.end(within: 10)
    backend?.join()
  }

  func attach(
    _ end: consuming sending any CardEnd, on process: LoopbackDomain? = nil, timeout: Double? = nil
  ) throws -> CardAttachment {
    try CardAttachment(
      device.frontendPath, on: process ?? guest, timeout: timeout, log: Self.quiet, to: end, say: said.say)
  }

  /// A host at the card, that pings this one if it is told to.
  func attachHost(
    ping count: Int? = nil, patience: UInt64 = 10_000_000_000, endsWithPing: Bool = true,
    on process: LoopbackDomain? = nil
  ) throws
    -> CardAttachment
  {
    let ping = count.map { count in
      Ping(
        Ping.Plan(
          target: IPv4Address("10.9.0.1")!, count: count, byteCount: 1000, interval: 1_000_000, patience: patience),
        identifier: 5)
    }
    return try attach(
      HostEnd(IPv4Network("10.9.0.2/24")!, ping: ping, endsWithPing: endsWithPing, say: said.say), on: process)
  }

  /// Answers what comes until the condition holds; false when it does not within ten seconds.
  func answer(until condition: () throws -> Bool) rethrows -> Bool {
    for _ in 0..<10_000 {
      takeFrames()
      if try condition() { return true }
      Wakeup.wait(for: end.descriptor, timeout: 1)
    }
    return false
  }

  private func takeFrames() {
    end.receive { frame in
      var bytes: [UInt8] = []
      frame.withSpan { for index in $0.indices { bytes.append($0[index]) } }
      received.append(bytes)
      let isPing = bytes.count > 34 && bytes[12] == 8 && bytes[13] == 0 && bytes[34] == 8
      if isPing, deafCount > 0 {
        deafCount -= 1
        return
      }
      if case .answer(let answer) = host.take(bytes) { end.send(answer.span) }
    }
  }

  /// Sends a frame to the card and gives what comes back first.
  func ask(_ frame: [UInt8]) -> [UInt8]? {
    let count = received.count
    end.send(frame.span)
    return answer { received.count > count } ? received[count] : nil
  }

  var states: [XenbusState] {
    get throws {
      let listed = try toolstack.devices(of: "vif")
      return listed.flatMap { [$0.frontendState, $0.backendState] }
    }
  }
}
