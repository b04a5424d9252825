import ArgumentParser
import XenBus
import XenNative
import XenPlatform

@main struct XenDeviceTool: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "xen-device",
    abstract: "Makes and removes disks and network cards of Xen domains, as the toolstack does.",
    discussion: """
      Writes both halves of a device into xenstore in one transaction, with the permissions that libxl gives them. It needs \
      the rights of the control domain. A disk for domain 1, served by a backend of this domain that looks below \
      backend/swift; and its removal:

        device="--frontend-domain 1 --backend-type swift"
        eval "$(xen-device create vbd $device --image disk.img)"
        echo "$frontend and $backend"
        xen-device list
        xen-device destroy vbd $device

      Exit status: 0 when all is done, 1 when something was refused or did not end in time, 64 for a command line that \
      makes no sense.
      """,
    subcommands: [Create.self, Destroy.self, List.self])
}

/// A command that needs a domain and prints lines.
protocol DeviceCommand: ParsableCommand {
  /// - Returns: what to print.
  func lines(on platform: any Platform) throws -> [String]
}

extension DeviceCommand {
  func run() throws { for line in try lines(on: NativePlatform()) { print(line) } }
}

/// Why a command fails, as a sentence.
struct Failure: Error, CustomStringConvertible {
  let description: String

  init(_ description: String) { self.description = description }
}

/// Whose device it is, and where its directories are.
struct PlaceOptions: ParsableArguments {
  @Option(help: ArgumentHelp("The domain that uses the device.", valueName: "number"))
  var frontendDomain: UInt16

  @Option(help: ArgumentHelp("The domain that serves it.", valueName: "number"))
  var backendDomain: UInt16 = 0

  @Option(
    help: ArgumentHelp(
      "The name under backend/ where its backend looks; by default the device's type, which Linux's own backend claims while its module is loaded.",
      valueName: "name"))
  var backendType: String?

  @Option(
    help: ArgumentHelp(
      "The name in the domain's home where its frontend looks; another than device for one in userspace, since Linux's own frontends claim all that is there.",
      valueName: "name"))
  var frontendRoot = "device"

  var guest: DomainID { DomainID(rawValue: frontendDomain) }
  var driverDomain: DomainID { DomainID(rawValue: backendDomain) }

  func device(_ type: String, _ number: Int) -> Toolstack.Device {
    Toolstack.Device(
      type: type, number: number, of: guest, servedBy: driverDomain, backendType: backendType,
      frontendRoot: frontendRoot)
  }

  func validate() throws {
    for (option, number) in [("--frontend-domain", frontendDomain), ("--backend-domain", backendDomain)]
    where number >= DomainID.firstReserved {
      throw ValidationError("\(option) is a number from 0 to \(DomainID.firstReserved - 1).")
    }
    for (option, name) in [("--backend-type", backendType), ("--frontend-root", frontendRoot)] {
      if let name, !Toolstack.isName(name) {
        throw ValidationError("\(option) is one name of letters, digits, - and _, such as swift.")
      }
    }
  }
}

/// Which disk of a domain.
struct DiskNumber: ExpressibleByArgument {
  let rawValue: Int

  init?(argument: String) {
    guard let number = VirtualDisk.number(of: argument) else { return nil }
    rawValue = number
  }

  init(rawValue: Int) { self.rawValue = rawValue }

  var defaultValueDescription: String { VirtualDisk.name(of: rawValue) }

  static let first = DiskNumber(rawValue: 51712)
  static let help = ArgumentHelp("The disk in its domain: a name such as xvda, or a number.", valueName: "disk")
}

/// Which card of a domain.
struct CardNumber: ParsableArguments {
  @Option(help: ArgumentHelp("The card's number in its domain, from 0.", valueName: "number"))
  var handle: UInt16 = 0
}
