import ArgumentParser
import BlkBack
import Glibc
import Logging
import Synchronization
import XenNative

@main struct BlkBackTool: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "blk-back",
    abstract: "Serves disks to guests of a real Xen.",
    discussion: """
      Serves every disk that the toolstack has made below backend/TYPE of this domain, each from the raw image that its \
      key "params" names, or one disk alone:

        blk-back --type ublk
        blk-back --path /local/domain/0/backend/ublk/1/51712 --image disk.img

      Linux's own backend claims the type "vbd" while its module is loaded, so use another one beside it. Ends when the \
      one disk given with --path is unplugged; otherwise at SIGINT or SIGTERM, after the guests have let go of their disks.
      """)

  @Option(help: ArgumentHelp("Serve all disks of this type.", valueName: "name"))
  var type: String?

  @Option(help: ArgumentHelp("Serve the one disk whose backend directory this is.", valueName: "path"))
  var path: String?

  @Option(
    help: ArgumentHelp("The raw image to serve, in place of the one that the key \"params\" names.", valueName: "file"))
  var image: String?

  @Flag(help: "Refuse all writes.")
  var readOnly = false

  @Flag(help: "Offer write barriers only and no flushes, as old guests know them.")
  var barriersOnly = false

  func validate() throws {
    guard (type == nil) != (path == nil) else { throw ValidationError("Give either --type or --path.") }
    guard image == nil || path != nil else {
      throw ValidationError("--image goes with --path: several disks cannot share one image.")
    }
    if let path, !path.hasPrefix("/") {
      throw ValidationError("--path is absolute, such as /local/domain/0/backend/ublk/1/51712.")
    }
  }

  func run() throws {
    let platform = try NativePlatform()
    let bus = try Bus(on: platform, log: Logger(label: "blk-back"))
    let driver = BlkBackDriver(type: type ?? "disk", offersFlush: !barriersOnly, whenClosed: Self.report) {
      (device) throws(DeviceError) in
      try store(for: device)
    }
    if let path {
      try bus.register(driver, at: path)
    } else {
      try bus.register(driver)
    }
    print("blk-back: waiting for \(path ?? "disks of type \(type ?? "")")")
    for number in [SIGINT, SIGTERM] { signal(number) { _ in stopRequested.store(true, ordering: .relaxed) } }
    var reported: [String] = []
    var hasServed = false
    bus.run {
      let report = bus.report
      for line in report where !reported.contains(line) { print(line) }
      reported = report
      hasServed = hasServed || !report.isEmpty
      return stopRequested.load(ordering: .relaxed) || (path != nil && hasServed && report.isEmpty)
    }
    if bus.isEmpty { return }
    print("blk-back: asking the guests to let go of their disks")
    bus.close()
    guard bus.run(seconds: 10, until: { bus.isEmpty }) else {
      throw DiskHeld(report: bus.report)
    }
  }

  private func store(for device: XenbusDevice) throws(DeviceError) -> any BlockStore {
    guard let image else { return try FileStore(for: device) }
    do throws(FileStoreError) {
      return try FileStore(path: .init(image), isReadOnly: readOnly)
    } catch { throw .resource("\(error)") }
  }

  private static func report(_ device: XenbusDevice, _ statistics: BlkBackStatistics) {
    print(
      "\(device.own.path): \(statistics.readRequests) reads of \(statistics.sectorsRead) sectors, "
        + "\(statistics.writeRequests) writes of \(statistics.sectorsWritten) sectors, "
        + "\(statistics.barrierRequests) of them barriers, \(statistics.flushRequests) flushes, "
        + "\(statistics.failedRequests) failed; notified \(statistics.ring.notificationsSent) times, "
        + "spared \(statistics.ring.notificationsSuppressed)")
  }
}

struct DiskHeld: Error, CustomStringConvertible {
  let report: [String]

  var description: String {
    "a guest still holds its disk after 10 s, and loses it now:\n" + report.joined(separator: "\n")
  }
}

/// Set by the signal handler, which may do nothing else.
private let stopRequested = Atomic(false)
