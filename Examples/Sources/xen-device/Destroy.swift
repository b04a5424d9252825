import ArgumentParser
import XenBus
import XenPlatform

struct Destroy: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Removes a device.",
    discussion: """
      Asks the two ends to close the device, waits until the backend has (where they were connected), and removes both \
      directories. A backend that does \
      not close in time does not keep the device: it is removed, and the exit status is 1. Name the device by the same \
      options as when it was made.
      """,
    subcommands: [DestroyVbd.self, DestroyVif.self])
}

/// How long to wait.
struct PatienceOptions: ParsableArguments {
  @Option(help: ArgumentHelp("How long the backend may take to close.", valueName: "seconds"))
  var timeout = Toolstack.destroyTimeout

  @Flag(help: "Ask the two ends, and remove the device without waiting for them.")
  var force = false

  func validate() throws {
    guard timeout >= 0, timeout < 86400 else { throw ValidationError("--timeout is a number of seconds up to a day.") }
  }

  /// Removes the device.
  ///
  /// - Throws: a sentence when there is none, or when its backend has not closed it in time.
  func destroy(_ device: Toolstack.Device, on platform: any Platform) throws -> [String] {
    let toolstack = try Toolstack(on: platform)
    guard try toolstack.exists(device) else {
      throw Failure("there is no such device: neither \(device.frontendPath) nor \(device.backendPath)")
    }
    let isClosed = try toolstack.destroy(device, timeout: force ? 0 : timeout)
    if isClosed { return ["removed \(device.backendPath), which was closed"] }
    if force { return ["removed \(device.backendPath), which its backend had not closed"] }
    throw Failure("the backend has not closed \(device.backendPath) in \(timeout) s; it is removed all the same")
  }
}

struct DestroyVbd: DeviceCommand {
  static let configuration = CommandConfiguration(commandName: "vbd", abstract: "Removes a disk.")

  @OptionGroup var place: PlaceOptions
  @OptionGroup var patience: PatienceOptions

  @Option(help: DiskNumber.help)
  var device = DiskNumber.first

  func lines(on platform: any Platform) throws -> [String] {
    try patience.destroy(place.device("vbd", device.rawValue), on: platform)
  }
}

struct DestroyVif: DeviceCommand {
  static let configuration = CommandConfiguration(commandName: "vif", abstract: "Removes a network card.")

  @OptionGroup var place: PlaceOptions
  @OptionGroup var patience: PatienceOptions
  @OptionGroup var card: CardNumber

  func lines(on platform: any Platform) throws -> [String] {
    try patience.destroy(place.device("vif", Int(card.handle)), on: platform)
  }
}
