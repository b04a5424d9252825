import ArgumentParser
import XenBus
import XenPlatform

struct List: DeviceCommand {
  static let configuration = CommandConfiguration(
    abstract: "Shows devices, the state of both their ends, and what these complain of.",
    discussion: """
      One line a device: its type, its domain, its number and name there, the states of its frontend and of its backend, and \
      their directories. A line that begins with a space has an end's error node.
      """)

  enum Kind: String, ExpressibleByArgument, CaseIterable {
    case vbd, vif
  }

  @Argument(help: ArgumentHelp("The type of device; by default both.", valueName: "vbd|vif"))
  var type: Kind?

  @Option(help: ArgumentHelp("Only devices that this domain uses.", valueName: "number"))
  var frontendDomain: UInt16?

  func lines(on platform: any Platform) throws -> [String] {
    let toolstack = try Toolstack(on: platform)
    var devices: [Toolstack.Listed] = []
    for kind in type.map({ [$0] }) ?? Kind.allCases { devices += try toolstack.devices(of: kind.rawValue) }
    if let frontendDomain { devices.removeAll { $0.guest.rawValue != frontendDomain } }
    let rows =
      [["TYPE", "DOMAIN", "NUMBER", "NAME", "FRONTEND", "BACKEND", "DIRECTORIES"]]
      + devices.map { device in
        [
          device.type, "\(device.guest.rawValue)", "\(device.number)", Self.name(of: device), "\(device.frontendState)",
          "\(device.backendState)", "\(device.device.frontendPath) \(device.device.backendPath)",
        ]
      }
    let widths = rows[0].indices.map { column in rows.map { $0[column].count }.max() ?? 0 }
    let lines = rows.map { row in
      zip(row, widths).dropLast().map { cell, width in cell + String(repeating: " ", count: width - cell.count) }
        .joined(separator: "  ") + "  " + row[row.count - 1]
    }
    return lines[..<1] + zip(lines[1...], devices).flatMap { line, device in [line] + Self.complaints(of: device) }
  }

  private static func name(of device: Toolstack.Listed) -> String {
    device.type == "vbd"
      ? VirtualDisk.name(of: device.number) : "vif\(device.guest.rawValue).\(device.number)"
  }

  /// A domain's own words, which may be anything.
  private static func complaints(of device: Toolstack.Listed) -> [String] {
    [("frontend", device.frontendError), ("backend", device.backendError)].compactMap { end, error in
      error.map { "  the \(end) says: \($0.quoted(upTo: 500))" }
    }
  }
}
