/// What a ``Loopback`` counts of its store's connections; when all have ended, everything is zero.
public struct StoreCounts: Hashable, Sendable {
  /// Watches set now.
  public internal(set) var watches = 0
  /// Transactions started, and neither committed nor given up.
  public internal(set) var openTransactions = 0

  public init(watches: Int = 0, openTransactions: Int = 0) {
    (self.watches, self.openTransactions) = (watches, openTransactions)
  }
}
