import BlkIf
import SystemPackage

/// What a block backend offers its frontends, and how much memory each of their rings may take.
///
/// One ring's memory is bounded by these: an in-flight table of as many places as the ring has slots, 32 for each page of it;
/// ``bufferPageCount`` pages of buffers, given back when the ring has been idle for a second or, while pages of the frontend's
/// are mapped, at the next look for those; ``persistentPageCount`` pages of the frontend's, unmapped when nobody has used them
/// for a minute.
///
/// What a frontend then uses of it, and why not, ``Backend/negotiation`` says.
public struct BlkBackOptions: Hashable, Sendable {
  /// Flushes beside barriers (`feature-flush-cache`). A frontend that knows only barriers sees no difference; Linux's prefers
  /// flushes.
  public var offersFlush = true
  /// Discards, where the store and the toolstack (`discard-enable`) have nothing against it.
  public var offersDiscard = true
  /// That pages of the frontend's stay mapped from request to request (`feature-persistent`).
  public var offersPersistentGrants = true
  /// The most segments of an indirect request (`feature-max-indirect-segments`): up to ``BlkIf/maxIndirectSegmentCount``; zero
  /// offers none.
  public var maxIndirectSegmentCount = 256
  /// A ring has at most two to the power of this pages (`max-ring-page-order`): 0 to 4.
  public var maxRingPageOrder = 4
  /// `multi-queue-max-queues`: 1 to 64, of which 1 offers no more than the one ring that every frontend knows.
  public var maxQueueCount = 4
  /// What the guest's driver takes for a sector, where the disk's are larger than 512 bytes.
  public var sectorUnits = SectorUnits.standard
  /// How many pages of the frontend's one queue keeps mapped at most.
  public var persistentPageCount = 1056
  /// How many pages of memory one queue uses at most for payload that is copied: at least as many as a request has segments.
  /// Requests that find none free wait.
  public var bufferPageCount = 1024
  /// Where a record of what is in flight is kept, so that a guest whose backend was killed only waits for the next one: a
  /// directory of this machine's that no reboot survives, such as `/run/xen-blkback`. Nil keeps none.
  ///
  /// A disk whose record cannot be made there is not served: its error node says why. A store that keeps completed writes in a
  /// memory of its process loses them with a kill, of which the guest then never hears: give it none.
  public var recordDirectory: FilePath?

  public init(offersFlush: Bool = true, offersPersistentGrants: Bool = true, maxIndirectSegmentCount: Int = 256) {
    self.offersFlush = offersFlush
    self.offersPersistentGrants = offersPersistentGrants
    self.maxIndirectSegmentCount = maxIndirectSegmentCount
  }

  /// Whether each is within its range.
  var areValid: Bool {
    (0...BlkIf.maxIndirectSegmentCount).contains(maxIndirectSegmentCount) && (0...4).contains(maxRingPageOrder)
      && (1...64).contains(maxQueueCount) && persistentPageCount > 0 && bufferPageCount > 0
  }
}
