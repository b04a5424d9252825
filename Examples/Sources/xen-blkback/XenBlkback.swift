import ArgumentParser
import BlkBack
import BlockStores
import ToolSupport
import XenNative

@main struct XenBlkback: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "xen-blkback",
    abstract: "Serves disks to guests of a real Xen.",
    discussion: """
      One disk, until it is unplugged, or every disk of a type:

        xen-blkback serve /local/domain/0/backend/ublk/1/51712 --image disk.img
        xen-blkback watch --type ublk

      SIGTERM and SIGINT detach: what has been asked for is answered and the images are flushed, the disks stay connected, \
      and the guests' requests wait for the next start, which goes on where this one stopped; start it when this one has \
      ended. With --close the disks are closed instead; a Linux \
      guest then loses them for good. A second signal ends the program at once.

      Linux's own backend claims the type "vbd" while its module xen-blkback is loaded, so use another type beside it.
      """,
    subcommands: [Serve.self, Watch.self])
}

/// Serves one disk.
struct Serve: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serves one disk until it is unplugged.",
    discussion: """
      Exits with success once the disk is unplugged or detached from, and with failure when another process has left it \
      connected in a way that these options cannot go on with; the disk then stays as it is.
      """)

  @Argument(help: ArgumentHelp("The disk's backend directory.", valueName: "backend-path"))
  var path: String

  @Option(
    help: ArgumentHelp("The raw image to serve, in place of the one that the key \"params\" names.", valueName: "file"))
  var image: String?

  @Flag(help: "Refuse all writes, whatever the key \"mode\" says.")
  var readOnly = false

  @OptionGroup var options: ServiceOptions

  func validate() throws {
    if !path.hasPrefix("/") {
      throw ValidationError("The backend path is absolute, such as /local/domain/0/backend/ublk/1/51712.")
    }
  }

  func run() throws {
    let service = try Service(options)
    try service.bus.register(service.driver(type: "disk", store: store), at: path)
    service.log.info("waiting for \(path)")
    var hasServed = false
    try service.run {
      if let fault = service.bus.heldDevices[path] { throw ServiceError("\(path) stays as it is: \(fault)") }
      hasServed = hasServed || !service.bus.report.isEmpty
      return hasServed && service.bus.report.isEmpty
    }
  }

  private func store(for device: XenbusDevice) throws(DeviceError) -> any BlockStore {
    guard let image else { return try FileStore(for: device, isReadOnly: readOnly) }
    do throws(FileStoreError) {
      return try FileStore(path: .init(image), isReadOnly: readOnly)
    } catch { throw .resource("\(error)") }
  }
}

/// Serves every disk of a type.
struct Watch: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serves every disk that appears below backend/NAME of this domain.",
    discussion: "Each is the raw image that its key \"params\" names, as the toolstack wrote it.")

  @Option(help: ArgumentHelp("The type of the disks.", valueName: "name"))
  var type = "vbd"

  @OptionGroup var options: ServiceOptions

  func validate() throws {
    guard !type.isEmpty, !type.contains("/") else { throw ValidationError("A type is one name, such as ublk.") }
  }

  func run() throws {
    let service = try Service(options)
    try service.bus.register(
      service.driver(type: type) { (device) throws(DeviceError) in try FileStore(for: device) })
    service.log.info("waiting for disks of type \(type)")
    try service.run { false }
  }
}

/// What both ways of serving take.
struct ServiceOptions: ParsableArguments {
  @Flag(help: "Close the disks at SIGTERM and SIGINT, in place of leaving them connected for the next start.")
  var close = false

  @Flag(help: "Offer write barriers only and no flushes, as old guests know them.")
  var barriersOnly = false

  @Option(help: ArgumentHelp("What to log, with all that is graver.", valueName: "level"))
  var logLevel = LogLevel.info
}
