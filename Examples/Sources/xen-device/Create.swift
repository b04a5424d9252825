import ArgumentParser
import Glibc
import NetFront
import XenBus
import XenPlatform

struct Create: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Makes a device, and prints where it is.",
    discussion: """
      Prints the device's two directories as frontend=PATH and backend=PATH, which a shell can evaluate; for a card also \
      mac=ADDRESS.
      """,
    subcommands: [CreateVbd.self, CreateVif.self])
}

struct CreateVbd: DeviceCommand {
  static let configuration = CommandConfiguration(
    commandName: "vbd", abstract: "Makes a disk.",
    discussion: """
      Linux's own backend (the type vbd, while xen-blkback is loaded) serves block devices; give it one with --image. What \
      other backends make of an image or of --params is theirs to say.
      """)

  enum Mode: String, ExpressibleByArgument, CaseIterable {
    case read = "r"
    case write = "w"
  }

  @OptionGroup var place: PlaceOptions

  @Option(help: DiskNumber.help)
  var device = DiskNumber.first

  @Option(
    help: ArgumentHelp(
      "A raw image or a block device of this domain; it must exist. Of a block device the backend is also told the number.",
      valueName: "path"))
  var image: String?

  @Option(help: ArgumentHelp("What the backend is to serve, in its own words.", valueName: "text"))
  var params: String?

  @Option(
    help: ArgumentHelp(
      "With --params, the block device of the backend's domain that Linux's own backend is to serve, in hexadecimal.",
      valueName: "major:minor"))
  var physicalDevice: String?

  @Option(help: ArgumentHelp("Whether the disk may only be read, or also written.", valueName: "r|w"))
  var mode = Mode.write

  func validate() throws {
    guard (image == nil) != (params == nil) else { throw ValidationError("Give either --image or --params.") }
    guard let physicalDevice else { return }
    guard image == nil else { throw ValidationError("--physical-device goes with --params; --image finds it itself.") }
    let parts = physicalDevice.split(separator: ":", omittingEmptySubsequences: false)
    guard parts.count == 2, parts.allSatisfy({ UInt32($0, radix: 16) != nil && !$0.hasPrefix("+") }) else {
      throw ValidationError("--physical-device is two hexadecimal numbers, such as fd:1.")
    }
  }

  func lines(on platform: any Platform) throws -> [String] {
    var disk = Toolstack.Disk(
      number: device.rawValue, params: params ?? "", physicalDevice: physicalDevice, isReadOnly: mode == .read,
      backendType: place.backendType ?? "vbd", frontendRoot: place.frontendRoot)
    if let image {
      guard place.driverDomain == platform.domain else {
        throw Failure(
          "--image is looked up in this domain, \(platform.domain.rawValue): for a backend in "
            + "\(place.driverDomain) use --params")
      }
      (disk.params, disk.physicalDevice) = try Self.source(image)
    }
    let made = try Toolstack(on: platform).add(disk, to: place.guest, servedBy: place.driverDomain)
    return ["frontend=\(made.frontendPath)", "backend=\(made.backendPath)"]
  }

  /// The absolute path, and a block device's number as hotplug scripts write it.
  private static func source(_ path: String) throws -> (path: String, number: String?) {
    guard !path.utf8.contains(0) else { throw Failure("no image has a name with a zero byte in it") }
    var status = stat()
    // Safe: the call reads a string of ours and fills a structure of ours.
    guard unsafe stat(path, &status) == 0 else {
      throw Failure("the image \(path) cannot be looked at: \(unsafe String(cString: strerror(errno)))")
    }
    let absolute = path.hasPrefix("/") ? path : try currentFolder() + "/" + path
    switch status.st_mode & S_IFMT {
    case S_IFREG: return (absolute, nil)
    case S_IFBLK:
      // Glibc's macros for this are none that Swift sees (sys/sysmacros.h).
      let number = UInt64(status.st_rdev)
      let parts = [number >> 8 & 0xFFF | number >> 32 & ~0xFFF, number & 0xFF | number >> 12 & ~0xFF]
      return (absolute, parts.map { String($0, radix: 16) }.joined(separator: ":"))
    default: throw Failure("the image \(path) is neither a file nor a block device")
    }
  }

  private static func currentFolder() throws -> String {
    guard let path = unsafe getcwd(nil, 0) else { throw Failure("the current folder is gone: give an absolute path") }
    // Safe: the call allocated the string for us.
    defer { unsafe free(path) }
    return unsafe String(cString: path)
  }
}

struct CreateVif: DeviceCommand {
  static let configuration = CommandConfiguration(commandName: "vif", abstract: "Makes a network card.")

  @OptionGroup var place: PlaceOptions
  @OptionGroup var card: CardNumber

  @Option(
    help: ArgumentHelp("The card's address; by default a random one that begins with 00:16:3e.", valueName: "address"))
  var mac: String?

  @Option(help: ArgumentHelp("The largest payload of a frame.", valueName: "bytes"))
  var mtu = NetIf.defaultMTU

  @Option(
    help: ArgumentHelp(
      "The hotplug script that the backend's domain runs for the card (xl devd does, for one), and whose end the backend waits for; by default none is waited for.",
      valueName: "path"))
  var script: String?

  func validate() throws {
    if let mac, MACAddress(mac)?.namesOneCard != true {
      throw ValidationError("--mac is the address of one card, such as 00:16:3e:00:00:01.")
    }
    guard NetIf.mtuRange.contains(mtu) else {
      throw ValidationError("--mtu is a number from \(NetIf.mtuRange.lowerBound) to \(NetIf.mtuRange.upperBound).")
    }
  }

  func lines(on platform: any Platform) throws -> [String] {
    let mac = mac ?? Self.randomAddress
    let made = try Toolstack(on: platform).add(
      Toolstack.Card(
        handle: Int(card.handle), mac: mac, mtu: mtu, script: script, backendType: place.backendType ?? "vif",
        frontendRoot: place.frontendRoot),
      to: place.guest, servedBy: place.driverDomain)
    return ["frontend=\(made.frontendPath)", "backend=\(made.backendPath)", "mac=\(mac)"]
  }

  /// One of Xen's own range.
  private static var randomAddress: String {
    let bytes: InlineArray<6, UInt8> = [
      0, 0x16, 0x3E, .random(in: 0...255), .random(in: 0...255), .random(in: 0...255),
    ]
    return "\(MACAddress(bytes))"
  }
}
