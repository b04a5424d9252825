/// What answers a control request, and has passed the gate.
public struct NetControlAnswer: Hashable, Sendable {
  public let status: NetControlStatus
  /// What was asked for; it means nothing where nothing was, and where ``status`` is not a success.
  public let data: UInt32

  public init(_ status: NetControlStatus, data: UInt32 = 0) { (self.status, self.data) = (status, data) }

  /// Checks a copied response to `request`, the one that is under way (io/netif.h, `xen_netif_ctrl_response`).
  public init(
    parsing raw: NetIfControlResponse, to request: NetIfControlRequest
  ) throws(NetControlViolation) {
    guard raw.id == request.id else { throw .notInFlight(id: raw.id) }
    guard raw.type == request.type else { throw .type(raw.type, expected: request.type) }
    guard let status = NetControlStatus(rawValue: raw.status) else { throw .status(raw.status) }
    self.init(status, data: raw.data)
  }
}

/// A control response that no backend may give.
@nonexhaustive public enum NetControlViolation: Error, Hashable, Sendable, CustomStringConvertible {
  case notInFlight(id: UInt16)
  case type(UInt16, expected: UInt16)
  case status(UInt32)

  public var description: String {
    switch self {
    case .notInFlight(let id): "the backend answered control request \(id), which is not in flight"
    case .type(let type, let expected): "the backend answered a control request of type \(expected) as one of \(type)"
    case .status(let status): "the backend answered a control request with status \(status), which means nothing"
    }
  }
}
