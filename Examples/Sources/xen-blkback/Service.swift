import BlkBack
import Glibc
import Logging
import ToolSupport
import XenNative

/// A bus on the Xen that this program runs on, until it is told to end.
struct Service {
  let bus: Bus
  let log: Logger
  private let options: ServiceOptions
  private let signals: EndSignals

  init(_ options: ServiceOptions) throws {
    self.options = options
    signals = try EndSignals()
    log = options.logLevel.logger("xen-blkback")
    bus = try Bus(on: NativePlatform(), log: log)
  }

  func driver(
    type: String, store: @escaping (XenbusDevice) throws(DeviceError) -> any BlockStore
  ) -> BlkBackDriver {
    BlkBackDriver(
      type: type, options: BlkBackOptions(offersFlush: !options.barriersOnly),
      whenClosed: { [log] device, statistics in log.info("\(device.own.path): \(statistics.sentence)") }, store: store)
  }

  /// Serves until `isDone`, asked after each change, or a signal. Then leaves the disks connected, or closes them.
  func run(until isDone: () throws -> Bool) throws {
    var waits = (bus.descriptors + [signals.descriptor]).map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
    var said: Set<String> = []
    while !signals.isRaised {
      let outcome = bus.poll()
      let report = bus.report
      for line in report where !said.contains(line) {
        // What a device waits for is nobody's fault most of the time, and a fault the bus has said.
        log.log(level: line.hasSuffix(": connected") ? .info : .debug, "\(line)")
      }
      said = Set(report)
      if try isDone() { return }
      if outcome == .idle { _ = Wakeup.wait(for: &waits, timeout: -1) }
    }
    if options.close { try close() } else { try detach() }
  }

  private func detach() throws {
    let failures = bus.detach()
    guard failures.isEmpty else {
      throw ServiceError(
        "the next start closes what could not be left connected:\n"
          + failures.map { "\($0): \($1)" }.sorted().joined(separator: "\n"))
    }
    log.info("the disks stay connected for the next start")
  }

  private func close() throws {
    bus.close()
    guard bus.run(seconds: 10, until: { bus.isEmpty }) else {
      throw ServiceError(
        "a guest still holds its disk after 10 s, and loses it now:\n" + bus.report.joined(separator: "\n"))
    }
  }
}

struct ServiceError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

extension BlkBackStatistics {
  fileprivate var sentence: String {
    "\(readRequests) reads of \(sectorsRead) sectors, \(writeRequests) writes of \(sectorsWritten) sectors, "
      + "\(barrierRequests) of them barriers, \(flushRequests) flushes, \(failedRequests) failed; "
      + "notified \(ring.notificationsSent) times, spared \(ring.notificationsSuppressed)"
  }
}
