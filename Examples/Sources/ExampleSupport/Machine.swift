import BlkBack
import Logging
import Synchronization
import XenLoopback

/// A Xen of three domains in this process, one of which serves the guest's devices on a thread of its own.
public struct Machine {
  public let loopback = Loopback()
  public let toolstack: Toolstack
  public let guest: LoopbackDomain
  public let driverDomain: LoopbackDomain
  private let serving: BusThread

  /// - Parameters:
  ///   - queueHost: who polls the queues of the driver domain's devices.
  ///   - register: says what the driver domain serves.
  public init(
    queueHost: any QueueHost = ThreadPerQueue(), serving register: @Sendable (Bus) throws(XenstoreError) -> Void
  ) throws {
    toolstack = try Toolstack(on: loopback.addDomain())
    driverDomain = loopback.addDomain()
    guest = loopback.addDomain()
    serving = try BusThread(on: driverDomain, queueHost: queueHost, log: .quiet) { (bus) throws(XenstoreError) in
      try register(bus)
      return nil
    }
  }

  /// Ends the driver domain when it has let go of its devices, after ten seconds at the latest.
  public func end() {
    serving.end(within: 10)
    serving.join()
  }
}

/// What a device's backend has counted, told by its thread.
public final class Told<Value: Sendable>: Sendable {
  private let values = Mutex<[Value]>([])

  public init() {}

  public func tell(_ value: Value) { values.withLock { $0.append(value) } }

  public var all: [Value] { values.withLock { $0 } }
}

extension Logger {
  /// Errors only: the examples say themselves what happens.
  public static var quiet: Logger {
    var logger = Logger(label: "xenbus")
    logger.logLevel = .error
    return logger
  }
}
