import Glibc
import Synchronization
@_exported import XenBus
@_exported import XenNative
@_exported import XenPlatform

/// Why a rig's program fails, as a sentence.
public struct Failure: Error, CustomStringConvertible {
  public let description: String

  public init(_ description: String) { self.description = description }
}

public enum RigProgram {
  /// Runs `body` with the program's arguments and ends the process: with success if it returns, and in any case before
  /// the time limit of a case is up.
  public static func run(_ body: (_ arguments: [String]) throws -> Void) -> Never {
    alarm(500)
    signal(SIGTERM) { _ in stopRequested.store(true, ordering: .relaxed) }
    do { try body(Array(CommandLine.arguments.dropFirst())) } catch {
      say("FAILED: \(error)")
      exit(EXIT_FAILURE)
    }
    exit(EXIT_SUCCESS)
  }

  /// Prints a line at once, although a file is the output.
  public static func say(_ line: String) {
    print(line)
    fflush(nil)
  }

  /// Whether SIGTERM has come.
  public static var isStopRequested: Bool { stopRequested.load(ordering: .relaxed) }
}

/// Set by the signal handler, which may do nothing else.
private let stopRequested = Atomic(false)

/// The bus of a program with one frontend, and the sleep between its polls.
public final class FrontLoop {
  public let bus: Bus
  public let path: String
  /// How often something was there that no event had announced.
  public private(set) var unannouncedCount = 0

  public init(_ driver: any FrontendDriver, at path: String) throws {
    self.path = path
    bus = try Bus(on: NativePlatform())
    try bus.register(driver, at: path)
  }

  /// Polls the bus and `device`, and sleeps on both, until `condition` holds.
  ///
  /// It sleeps a second at a time, so that a lost event is seen as one.
  ///
  /// - Parameters:
  ///   - descriptor: the device's, while it is connected.
  ///   - device: polls it; gives how much was there.
  /// - Returns: false when the time is up, or a signal asked the program to stop.
  public func run(
    seconds: Double, descriptor: () -> CInt?, device: () -> Int, until condition: () -> Bool
  ) -> Bool {
    let start = Uptime.now.nanoseconds
    var wasSilent = false
    while true {
      bus.poll()
      // Not what has been announced since, or what a signal has cut the wait short for.
      if wasSilent, let descriptor = descriptor() {
        var wait = [pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)]
        wasSilent = !Wakeup.wait(for: &wait, timeout: 0)
      }
      if device() > 0, wasSilent, !RigProgram.isStopRequested { unannouncedCount += 1 }
      if condition() { return true }
      if RigProgram.isStopRequested || Double(Uptime.now.nanoseconds - start) > seconds * 1e9 { return false }
      var waits = (bus.descriptors + [descriptor()].compactMap(\.self)).map {
        pollfd(fd: $0, events: Int16(POLLIN), revents: 0)
      }
      wasSilent = !Wakeup.wait(for: &waits, timeout: 1000)
    }
  }

  /// Takes leave of the backend as the protocol asks, and waits until it has let go.
  public func leave() throws {
    bus.close()
    guard bus.run(seconds: 15, until: { bus.isEmpty }) else {
      throw Failure("the backend does not let go of the device: \(bus.report.joined(separator: "; "))")
    }
  }
}
