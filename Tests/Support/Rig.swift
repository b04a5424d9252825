import Logging
import XenBus
import XenLoopback
import XenPlatform

extension Logger {
  /// For tests that provoke errors on purpose.
  public static let silent = Logger(label: "silent") { _ in SwiftLogNoOpLogHandler() }
}

/// An in-process Xen with a control domain (0), a guest (1) and a driver domain (2).
public struct Rig {
  public let loopback: Loopback
  public let control: LoopbackDomain
  public let guest: LoopbackDomain
  public let driverDomain: LoopbackDomain
  public let toolstack: Toolstack
  /// The control domain's connection: it may read and write everything.
  public let store: any Xenstore

  public init(seed: UInt64 = 0) throws {
    loopback = Loopback(seed: seed)
    control = loopback.addDomain()
    guest = loopback.addDomain()
    driverDomain = loopback.addDomain()
    toolstack = try Toolstack(on: control)
    store = try control.openXenstore()
  }

  public func directory(_ path: String) -> StoreDirectory { StoreDirectory(path, in: store) }

  public func state(_ path: String) throws -> XenbusState {
    XenbusState(key: try directory(path).optionalString("state"))
  }

  /// The message that a domain left for the toolstack about the device at `path`; nil when there is none.
  public func error(of domain: LoopbackDomain, _ path: String) throws -> String? {
    let home = "/local/domain/\(domain.domain.rawValue)/"
    return try directory("\(home)error/\(path.dropFirst(home.count))").optionalString("error")
  }

  /// Whether everything shared, mapped and bound has been given back.
  public var holdsNothing: Bool {
    let counts = loopback.grantCounts
    return counts.sharedPages == 0 && counts.mappedPages == 0 && counts.quarantinedPages == 0
      && counts.orphanedPages == 0 && loopback.openPortCount == 0
  }
}
