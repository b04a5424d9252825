import ExampleSupport
import Glibc
import NetBack
import NetFront
import XenLoopback

/// A card with both its ends on an in-process Xen, each end at a TAP device.
final class Link {
  private let machine: Machine
  private let device: Toolstack.Device
  private let shown = Patch.Shown()
  private let end: TapEnd
  private let guest: BusThread

  init(front: TapInterface, back: TapInterface, mtu: Int) throws {
    let end = TapEnd(back)
    self.end = end
    machine = try Machine { (bus) throws(XenstoreError) in try bus.register(NetBackDriver { _ in end }) }
    device = try machine.toolstack.addVif(
      to: machine.guest.domain, servedBy: machine.driverDomain.domain, mac: "00:16:3e:00:00:01", mtu: mtu)
    let (path, shown) = (device.frontendPath, shown)
    guest = try BusThread(on: machine.guest, log: .quiet, name: "frontend") { (bus) throws(XenstoreError) in
      let patch = Patch(front, shown)
      try bus.register(patch.card, at: path)
      return patch
    }
  }

  /// Waits, for ten seconds at most, until the card is connected.
  func connect() -> Bool {
    for _ in 0..<1000 {
      if shown.contents.withLock(\.isConnected) { return true }
      usleep(10_000)
    }
    return false
  }

  /// What the card waits for.
  var report: String { shown.contents.withLock(\.report).joined(separator: "; ") }
  var mtu: Int { shown.contents.withLock(\.mtu) }
  var negotiation: Negotiation { shown.contents.withLock(\.negotiation) }
  /// Frames that were longer than the card's MTU allows.
  var tooLongCount: UInt64 { shown.contents.withLock(\.tooLong) }

  /// What has crossed, in a sentence.
  var counted: String {
    let (statistics, tooLong, refused) = shown.contents.withLock { ($0.statistics, $0.tooLong, $0.refused) }
    return """
      to the back \(statistics.tx.packets) frames, \(statistics.tx.bytes) bytes; \
      to the front \(statistics.rx.packets) frames, \(statistics.rx.bytes) bytes; \
      \(tooLong) too long; \
      \(statistics.tx.errors + statistics.rx.errors) failed; \
      \(statistics.tx.drops + statistics.rx.drops + end.dropCount + refused) dropped
      """
  }

  /// Unplugs the card and ends the machine.
  ///
  /// - Returns: false when the card's backend did not let go of it in time.
  func close() throws -> Bool {
    let isClosed = try machine.toolstack.destroy(device)
    guest.end(within: 1)
    guest.join()
    machine.end()
    return isClosed
  }
}
