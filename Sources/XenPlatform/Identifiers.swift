/// The number of a domain (`domid_t`, xen/include/public/xen.h).
///
/// Range: 0 up to but not including 0x7FF0 (`DOMID_FIRST_RESERVED`) for real domains; 0 is the control domain.
public struct DomainID: RawRepresentable, Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public let rawValue: UInt16

  public init(rawValue: UInt16) { self.rawValue = rawValue }

  /// The control domain.
  public static let zero = DomainID(rawValue: 0)

  /// The first number that names no real domain (`DOMID_FIRST_RESERVED`).
  public static let firstReserved: UInt16 = 0x7FF0

  public var description: String { "domain \(rawValue)" }
}

/// Names one page that a domain has granted to another (`grant_ref_t`, xen/include/public/grant_table.h).
public struct GrantReference: RawRepresentable, Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public var description: String { "grant reference \(rawValue)" }
}

/// Names one end of an event channel inside its domain (`evtchn_port_t`, xen/include/public/event_channel.h).
public struct EventChannelPort: RawRepresentable, Hashable, Sendable, BitwiseCopyable, CustomStringConvertible {
  public let rawValue: UInt32

  public init(rawValue: UInt32) { self.rawValue = rawValue }

  public var description: String { "event channel port \(rawValue)" }
}
