import BlkBack
import BlkBackTool
import BlockStores
import Glibc
import Logging
import SystemPackage
import ToolSupport
import XenNative

/// A bus on the Xen that this program runs on, until it is told to end.
struct Service {
  let bus: Bus
  let log: Logger
  private let options: ServiceOptions
  private let recordDirectory: FilePath?
  private let signals: EndSignals
  private let hangUps: HangUps

  init(_ options: ServiceOptions) throws {
    self.options = options
    signals = try EndSignals()
    hangUps = try HangUps()
    log = options.logLevel.logger("xen-blkback")
    bus = try Bus(on: NativePlatform(), queueHost: options.disk.queueHost, log: log)
    recordDirectory = options.noRecord ? nil : try makeDirectory(FilePath(options.recordDirectory))
  }

  func driver(
    type: String, makeStore: @escaping (XenbusDevice) throws(DeviceError) -> OpenedStore
  ) -> BlkBackDriver {
    var offered = options.disk.backend
    offered.recordDirectory = recordDirectory
    return BlkBackDriver(
      type: type, options: offered,
      whenClosed: { [log] device, statistics in log.info("\(device.own.path): \(statistics.sentence)") },
      store: { [log] (device) throws(DeviceError) in
        let opened = try makeStore(device)
        log.info("\(device.own.path): \(opened.words)")
        return opened.store
      })
  }

  /// Serves until `isDone`, asked after each change, or a signal. Then leaves the disks connected, or closes them.
  func run(until isDone: () throws -> Bool) throws {
    var waits = (bus.descriptors + [signals.descriptor, hangUps.descriptor]).map {
      pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
    }
    var said: Set<String> = []
    while !signals.isRaised {
      if hangUps.take() { bus.callForAttention() }
      let outcome = bus.poll()
      let report = bus.report
      for line in report where !said.contains(line) { say(line) }
      said = Set(report)
      if try isDone() { return }
      switch outcome {
      case .idle: _ = Wakeup.wait(for: &waits, timeout: -1)
      // A disk that could not be taken up is tried again.
      case .idleUntil(let instant): _ = Wakeup.wait(for: &waits, timeout: instant.millisecondsFromNow)
      case .more, .stopped: break
      }
    }
    if options.close { try close() } else { try detach() }
  }

  /// A line of the bus's report that is new.
  private func say(_ line: String) {
    let end = ": connected"
    // What a device waits for is nobody's fault most of the time, and a fault the bus has said.
    guard line.hasSuffix(end) else { return log.debug("\(line)") }
    let agreed = bus.negotiations[String(line.dropLast(end.count))].map { "\n\($0)" } ?? ""
    log.info("\(line)\(agreed)")
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

/// A folder that is root's alone, made if it is not there.
private func makeDirectory(_ path: FilePath) throws -> FilePath {
  let made = unsafe path.withPlatformString { unsafe mkdir($0, S_IRWXU) } == 0
  guard made || errno == EEXIST else {
    throw ServiceError(
      "the folder \(path) for records cannot be made: \(Errno(rawValue: errno)); give another one, or --no-record")
  }
  return path
}

struct ServiceError: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}
