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

  /// - Parameter features: of both ends.
  init(front: TapInterface, back: TapInterface, mtu: Int, features: NetFeatures) throws {
    let end = TapEnd(back)
    self.end = end
    machine = try Machine { (bus) throws(XenstoreError) in
      try bus.register(NetBackDriver(features: features) { _ in end })
    }
    // Two ring pages, and a page for each slot of both; a real machine's administrator raises the limit so, too.
    machine.guest.sharedPageLimit = max(machine.guest.sharedPageLimit, 1024 * features.maxQueueCount)
    device = try machine.toolstack.addVif(
      to: machine.guest.domain, servedBy: machine.driverDomain.domain, mac: "00:16:3e:00:00:01", mtu: mtu)
    let (path, shown) = (device.frontendPath, shown)
    guest = try BusThread(on: machine.guest, log: .quiet, name: "frontend") { (bus) throws(XenstoreError) in
      let patch = Patch(front, features: features, shown)
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
  var queueCount: Int { shown.contents.withLock(\.statistics).count }
  var negotiation: Negotiation { shown.contents.withLock(\.negotiation) }
  /// Frames that were longer than the card's MTU allows.
  var tooLongCount: UInt64 { shown.contents.withLock(\.tooLong) }

  /// What has crossed, in a sentence; and one for each queue, where there are several.
  var counted: [String] {
    let shown = shown.contents.withLock { $0 }
    let total = shown.statistics.total
    let sum = """
      \(total.crossed); \
      to be cut into segments \(shown.segmentedCounts.toBack) to the back and \(shown.segmentedCounts.toFront) to the front; \
      \(shown.tooLong) too long; \
      \(total.tx.errors + total.rx.errors) failed; \
      \(total.tx.drops + total.rx.drops + end.dropCount + shown.refused) dropped
      """
    guard shown.statistics.count > 1 else { return [sum] }
    return [sum] + shown.statistics.enumerated().map { "queue \($0): \($1.crossed)" }
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

extension NetStatistics {
  fileprivate var crossed: String {
    "to the back \(tx.packets) frames, \(tx.bytes) bytes; to the front \(rx.packets) frames, \(rx.bytes) bytes"
  }
}
