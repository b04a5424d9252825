import ArgumentParser
import BlkBack
import BlkBackTool
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

      After that, or kill -9, or a crash, the next start goes on as well: what a guest had asked for and has no answer to is \
      in a record, and is done again. A disk goes on with what was agreed on when it was connected, whatever the options of \
      the next start offer.

      SIGHUP has the sizes of the images looked at again: an image that was made larger makes a larger disk.

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
    let directories = try ImageDirectories(options.imageDirectory)
    let service = try Service(options)
    try service.bus.register(
      service.driver(type: "disk") { (device) throws(DeviceError) in
        try options.image.open(for: device, image: image, isReadOnly: readOnly, in: directories)
      }, at: path)
    service.log.info("waiting for \(path)")
    var hasServed = false
    try service.run {
      if let fault = service.bus.givenUpDevices[path] { throw ServiceError("\(path) stays as it is: \(fault)") }
      hasServed = hasServed || !service.bus.report.isEmpty
      return hasServed && service.bus.report.isEmpty
    }
  }
}

/// Serves every disk of a type.
struct Watch: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Serves every disk that appears below backend/NAME of this domain.",
    discussion: """
      Each is the raw image that its key "params" names, as the toolstack wrote it; with --image-directory it must lie in one of \
      these folders.
      """)

  @Option(help: ArgumentHelp("The type of the disks.", valueName: "name"))
  var type = "vbd"

  @OptionGroup var options: ServiceOptions

  func validate() throws {
    guard !type.isEmpty, !type.contains("/") else { throw ValidationError("A type is one name, such as ublk.") }
  }

  func run() throws {
    let directories = try ImageDirectories(options.imageDirectory)
    let service = try Service(options)
    try service.bus.register(
      service.driver(type: type) { (device) throws(DeviceError) in
        try options.image.open(for: device, in: directories)
      })
    service.log.info("waiting for disks of type \(type)")
    try service.run { false }
  }
}

/// What both ways of serving take.
struct ServiceOptions: ParsableArguments {
  @OptionGroup(title: "What the disks offer") var disk: DiskOptions

  @OptionGroup(title: "Where the images are, and how they are read and written") var image: StoreOptions

  @Option(
    help: ArgumentHelp(
      """
      Serve only images in this folder and below it, symbolic links followed, of those that the key "params" names. May be given \
      several times.
      """, valueName: "folder"))
  var imageDirectory: [String] = []

  @Option(
    help: ArgumentHelp(
      """
      Where to keep the record of each disk's requests that have no answer yet: a folder of this machine's memory, made if it is \
      not there.
      """, valueName: "folder"))
  var recordDirectory = "/run/xen-blkback"

  @Flag(help: "Keep no record: a guest whose backend is killed then loses its disk.")
  var noRecord = false

  @Flag(help: "Close the disks at SIGTERM and SIGINT, in place of leaving them connected for the next start.")
  var close = false

  @Option(help: ArgumentHelp("What to log, with all that is graver.", valueName: "level"))
  var logLevel = LogLevel.info

  func validate() throws {
    guard imageDirectory.isEmpty || image.hasPaths else {
      throw ValidationError("--image-directory is for images that are files: --store file or overlay.")
    }
    guard noRecord || recordDirectory.hasPrefix("/") else {
      throw ValidationError("The folder of the records is absolute, such as /run/xen-blkback.")
    }
  }
}
