/// Where one end of a device is in its life (io/xenbus.h, `enum xenbus_state`).
public enum XenbusState: UInt8, Hashable, Sendable, CaseIterable, CustomStringConvertible {
  case unknown = 0
  case initialising = 1
  case initWait = 2
  case initialised = 3
  case connected = 4
  case closing = 5
  case closed = 6
  case reconfiguring = 7
  case reconfigured = 8

  /// The state that a `state` key says; ``unknown`` for an absent key, and for whatever is not one of the nine numbers.
  public init(key value: String?) {
    self = Self.allCases.first { String($0.rawValue) == value } ?? .unknown
  }

  public var description: String {
    let name =
      switch self {
      case .unknown: "Unknown"
      case .initialising: "Initialising"
      case .initWait: "InitWait"
      case .initialised: "Initialised"
      case .connected: "Connected"
      case .closing: "Closing"
      case .closed: "Closed"
      case .reconfiguring: "Reconfiguring"
      case .reconfigured: "Reconfigured"
      }
    return "\(name) (\(rawValue))"
  }
}
