import BlkBack
import TestSupport
import Testing
import XenLoopback

/// A disk with a frontend that puts what it likes, whose only queue is polled at instants of the test's own.
final class HandPolledDisk {
  let rig: Rig
  let frontend: RawBlkFrontend
  let device: Toolstack.Device
  let backBus: Bus
  private let frontBus: Bus
  private let host = OneQueue()
  private var nextID: UInt64 = 1

  init(
    _ frontend: RawBlkFrontend, _ options: BlkBackOptions, store: @escaping (XenbusDevice) -> any BlockStore
  ) throws {
    rig = try Rig()
    rig.guest.sharedPageLimit = 1 << 14
    self.frontend = frontend
    backBus = try Bus(on: rig.driverDomain, queueHost: host, log: .silent)
    frontBus = try Bus(on: rig.guest, log: .silent)
    device = try rig.toolstack.addVbd(to: rig.guest.domain, servedBy: rig.driverDomain.domain, params: "test")
    try backBus.register(BlkBackDriver(options: options, store: store))
    try frontBus.register(frontend, at: device.frontendPath)
    let isConnected = frontBus.run(seconds: 300) { [backBus] in
      backBus.poll()
      return frontend.isConnected
    }
    try #require(isConnected)
  }

  /// Beside the ring's.
  var mappedCount: Int { rig.loopback.grantCounts.mappedPages - frontend.rings[0].references.count }

  @discardableResult func poll(at nanoseconds: UInt64, looks: Bool = false) -> PollOutcome {
    var outcome = PollOutcome.more
    while outcome == .more { outcome = host.poll(at: Uptime(nanoseconds: nanoseconds), looks: looks) }
    return outcome
  }

  /// Whether the ring holds something to do now.
  var hasWork: Bool { host.hasWork }

  /// Reads a page's worth into each of these pages with one request.
  func read(_ pages: [Int], at nanoseconds: UInt64) throws {
    frontend.put(
      frontend.direct(BlkIf.Operation.read, pages.map { (page: $0, first: 0, last: 7) }, id: nextID))
    frontend.push()
    poll(at: nanoseconds)
    #expect(try frontend.responses().map(\.id) == [nextID])
    nextID += 1
  }

  func pollBuses() {
    frontBus.poll()
    backBus.poll()
  }
}
