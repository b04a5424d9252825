import BlkIf

/// What a disk's frontend asks of its backend, and how many pages it shares for that.
///
/// What a backend then grants of it, and why not all, ``BlkFrontDevice/negotiation`` says. Each queue shares its ring, of
/// two to the power of ``maxRingPageOrder`` pages, and a pool of ``poolPageCount``. On a real Xen all programs of a domain
/// together have 1024 pages to share unless xen-gntalloc's parameter `limit` says otherwise; the default, 353 pages, leaves
/// room for a network card of one queue, which wants 514. Where there are fewer pages than asked for, queues are dropped
/// first, down to one; then that one's ring and pool are halved together until they fit, down to one page and to 11.
public struct BlkFrontOptions: Hashable, Sendable {
  /// Of the ring's slots (`protocol`); every backend must know both.
  public var layout = BlkProtocol.native
  /// How many pages each queue shares for payload: a request occupies as many as its bytes need, an indirect one also those
  /// with its segments, from when it is put until its completion has been handed over. From 11, which the largest direct
  /// request needs, to 65535.
  public var poolPageCount = 32 * BlkIf.maxSegmentCount
  /// The most queues (`multi-queue-num-queues`): 1 to 64. A request goes to one of them, so that a backend with a thread for
  /// each works on several at once.
  public var maxQueueCount = 1
  /// A ring has at most two to the power of this pages (`ring-page-order`): 0 to 4. One page has 32 slots.
  public var maxRingPageOrder = 0
  /// The most pages that an indirect request carries (`feature-max-indirect-segments`): up to
  /// ``BlkIf/maxIndirectSegmentCount``. Up to 11 none is made, since direct requests carry as many.
  public var maxIndirectSegmentCount = 32
  /// Says that the same pages are used again and again, so that the backend may keep them mapped (`feature-persistent`). They
  /// are in any case.
  public var usesPersistentGrants = true
  /// What the backend takes for a sector, where the disk's are larger than 512 bytes.
  public var sectorUnits = SectorUnits.standard
  /// What is in flight when the backend goes away is put again when it is back. Otherwise it completes as
  /// ``BlkFrontCompletion/Result/disconnected``.
  public var requeuesRequests = true
  /// An event comes when half of what is in flight on a queue is answered, in place of at the first answer. To measure what that saves,
  /// and what it costs whoever waits.
  @_spi(Measuring) public var holdsOffEvents = false

  public init(layout: BlkProtocol = .native, poolPageCount: Int = 32 * BlkIf.maxSegmentCount) {
    (self.layout, self.poolPageCount) = (layout, poolPageCount)
  }

  /// Whether each is within its range.
  var areValid: Bool {
    (BlkIf.maxSegmentCount...Int(UInt16.max)).contains(poolPageCount) && (1...64).contains(maxQueueCount)
      && (0...4).contains(maxRingPageOrder) && (0...BlkIf.maxIndirectSegmentCount).contains(maxIndirectSegmentCount)
  }
}
