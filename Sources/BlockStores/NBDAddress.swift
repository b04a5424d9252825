import SystemPackage

/// Where an NBD server and its export are.
public enum NBDAddress: Hashable, Sendable, CustomStringConvertible {
  /// A URI of the NBD project's: `nbd://host/export`, `nbd+unix:///export?socket=/run/server`, `nbds://` for TLS.
  case uri(String)
  /// A server's socket; the export that it calls the default one where no name is given.
  case unix(FilePath, export: String = "")

  /// A URI, or the path of a socket.
  public init(_ text: String) { self = text.contains("://") ? .uri(text) : .unix(FilePath(text)) }

  public var description: String {
    switch self {
    case .uri(let uri): uri
    case .unix(let path, ""): path.string
    case .unix(let path, let export): "\(path) (\(export))"
    }
  }
}

/// How long an ``NBDStore`` waits for what.
public struct NBDStoreOptions: Hashable, Sendable {
  /// In seconds, for a connection to be made.
  public var connectSeconds = 5.0
  /// In seconds, for an answer; then the server is given up, with all that it has in hand.
  public var requestSeconds = 30.0
  /// In seconds, of a request while there is no connection.
  public var waitSeconds = 10.0

  public init() {}
}

/// Why an NBD server cannot be served as a disk.
@nonexhaustive public enum NBDStoreError: Error, Hashable, Sendable, CustomStringConvertible {
  case cannotConnect(NBDAddress, reason: String)
  /// It answers, and what it offers is no disk of a guest's.
  case unfit(NBDAddress, reason: String)

  public var description: String {
    switch self {
    case .cannotConnect(let address, let reason): "the NBD server \(address) cannot be connected to: \(reason)"
    case .unfit(let address, let reason): "the NBD server \(address) offers no disk: \(reason)"
    }
  }
}
