/// One event channel on a handle of its own, as a queue uses it: look for an event, work, let the next one in.
public struct EventChannel: Sendable {
  private let handle: any EventChannels
  public let port: EventChannelPort
  /// The port is masked, because its event has been taken and the work is not finished.
  private var isMasked = false

  public init(_ port: EventChannelPort, on handle: any EventChannels) {
    self.port = port
    self.handle = handle
  }

  /// Readable when an event has come.
  public var descriptor: CInt { handle.descriptor }

  /// Wakes the other end.
  public func notify() { handle.notify(port) }

  /// Takes the event, if one has come. No other comes before ``rearm()``.
  public mutating func take() { while handle.nextPending() != nil { isMasked = true } }

  /// The work that the event asked for is done: lets the next one in.
  public mutating func rearm() {
    guard isMasked else { return }
    isMasked = false
    handle.unmask(port)
  }
}
