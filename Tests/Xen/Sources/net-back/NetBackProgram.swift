import NetBack
import RigSupport
import Synchronization

/// Serves network cards from TAP devices until every one has been unplugged, or until SIGTERM.
///
/// usage: net-back [--one-event-channel] [--single-slots] (BACKEND-PATH TAP)...
///
/// Split event channels and packets of several slots are offered, unless switched off. The TAP devices are created before
/// anything else, and end with the program. Where a backend directory is not there yet, it waits.
@main struct NetBackProgram {
  static func main() {
    RigProgram.run { given in
      let features = NetFeatures(
        splitEventChannels: !given.contains("--one-event-channel"), scatterGather: !given.contains("--single-slots"))
      let arguments = given.filter { !["--one-event-channel", "--single-slots"].contains($0) }
      guard !arguments.isEmpty, arguments.count % 2 == 0 else {
        throw Failure("usage: net-back [--one-event-channel] [--single-slots] (BACKEND-PATH TAP)...")
      }
      let bus = try Bus(on: NativePlatform())
      let ends = Dictionary(
        uniqueKeysWithValues: try stride(from: 0, to: arguments.count, by: 2).map {
          (arguments[$0], TapEnd(try TapInterface(name: arguments[$0 + 1])))
        })
      let driver = NetBackDriver(features: features, whenClosed: report) { (device) throws(DeviceError) in
        guard let end = ends[device.own.path] else { throw .resource("\(device.own.path) has no TAP device") }
        return end
      }
      for path in ends.keys { try bus.register(driver, at: path) }
      RigProgram.say("serving")
      var connected: Set<String> = []
      bus.run {
        for (path, negotiation) in bus.negotiations where !negotiation.lines.isEmpty {
          if connected.insert(path).inserted { RigProgram.say("\(path):\n\(negotiation)") }
        }
        return RigProgram.isStopRequested || (connected.count == ends.count && bus.report.isEmpty)
      }
      for (path, end) in ends { RigProgram.say("\(path): the interface did not take \(end.dropCount) frames") }
      guard !bus.report.isEmpty else { return }
      bus.close()
      guard bus.run(seconds: 10, until: { bus.isEmpty }) else {
        throw Failure("a frontend does not let go of its card: \(bus.report.joined(separator: "; "))")
      }
    }
  }

  private static func report(_ device: XenbusDevice, _ statistics: [NetStatistics]) {
    RigProgram.say("\(device.own.path): \(statistics.total)")
  }
}
