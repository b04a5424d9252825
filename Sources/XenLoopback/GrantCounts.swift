/// What a ``Loopback`` counts of grants; at the end of a well-behaved run everything but the totals is zero.
public struct GrantCounts: Hashable, Sendable {
  /// Pages shared now.
  public internal(set) var sharedPages = 0
  /// Pages mapped now.
  public internal(set) var mappedPages = 0
  /// Pages whose owner stopped sharing them while they were mapped: Xen says "still in use", and they stay out of use.
  public internal(set) var quarantinedPages = 0
  /// Pages of killed processes that others still map now; the kernel frees each when they let go.
  public internal(set) var orphanedPages = 0
  /// Pages mapped, and segments copied, since the start.
  public internal(set) var mapTotal = 0
  public internal(set) var copyTotal = 0
}
