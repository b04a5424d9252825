import NetBack
import RigSupport
import Synchronization

/// Serves network cards from TAP devices until every one has been unplugged, or until SIGTERM.
///
/// usage: net-back [--one-event-channel] [--single-slots] [--no-offloads] [--queues COUNT] (BACKEND-PATH TAP)...
///
/// All that there is is offered, unless switched off, but one queue unless there are to be more. The TAP devices are created before
/// anything else, and end with the program. Where a backend directory is not there yet, it waits.
@main struct NetBackProgram {
  static func main() {
    RigProgram.run { given in
      var (features, arguments) = (NetFeatures(), given)
      features.splitEventChannels = !arguments.remove("--one-event-channel")
      features.scatterGather = !arguments.remove("--single-slots")
      if arguments.remove("--no-offloads") { features.offloads = [] }
      if let place = arguments.firstIndex(of: "--queues"), place + 1 < arguments.count {
        features.maxQueueCount = Int(arguments[place + 1]) ?? 0
        arguments.removeSubrange(place...place + 1)
      }
      guard !arguments.isEmpty, arguments.count % 2 == 0, (1...64).contains(features.maxQueueCount) else {
        throw Failure(
          "usage: net-back [--one-event-channel] [--single-slots] [--no-offloads] [--queues COUNT] (BACKEND-PATH TAP)..."
        )
      }
      let bus = try Bus(on: NativePlatform())
      let ends = Dictionary(
        uniqueKeysWithValues: try stride(from: 0, to: arguments.count, by: 2).map { [features, arguments] in
          (arguments[$0], TapEnd(try TapInterface(name: arguments[$0 + 1], isMultiQueue: features.maxQueueCount > 1)))
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
    for (number, queue) in statistics.enumerated() { RigProgram.say("queue \(number): \(queue)") }
    RigProgram.say("\(device.own.path): \(statistics.total)")
  }
}

extension [String] {
  /// - Returns: whether it was there.
  fileprivate mutating func remove(_ word: String) -> Bool {
    let count = count
    removeAll { $0 == word }
    return self.count < count
  }
}
