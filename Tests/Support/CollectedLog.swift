import Logging
import Synchronization

/// What is logged, at every level, for a test to look at.
public final class CollectedLog: Sendable {
  private let collected = Mutex<[String]>([])

  public init() {}

  public var lines: [String] { collected.withLock { $0 } }

  public var logger: Logger {
    var logger = Logger(label: "collected") { _ in Handler(log: self) }
    logger.logLevel = .trace
    return logger
  }

  private struct Handler: LogHandler {
    let log: CollectedLog
    var metadata: Logger.Metadata = [:]
    var logLevel = Logger.Level.trace

    subscript(metadataKey key: String) -> Logger.Metadata.Value? {
      get { metadata[key] }
      set { metadata[key] = newValue }
    }

    func log(event: LogEvent) { log.collected.withLock { $0.append("\(event.level): \(event.message)") } }
  }
}
