import ArgumentParser
import BlkBack

/// What disks offer their guests: the options of every program that serves some.
public struct DiskOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      """
      Offer up to so many queues, each with a ring and a thread of its own, so that a guest's processors need not wait for one \
      another: 1 to 64. A Linux guest takes as many as it has processors.
      """, valueName: "count"))
  var queues = BlkBackOptions().maxQueueCount

  @Option(
    help: ArgumentHelp(
      """
      Offer rings of up to two to the power of this pages, each of which holds 32 requests: 0 to 4. Linux 6.1 takes one page \
      unless its parameter xen_blkfront.max_ring_page_order says more.
      """, valueName: "order"))
  var ringOrder = BlkBackOptions().maxRingPageOrder

  @Option(
    help: ArgumentHelp(
      """
      Offer requests of up to so many segments of 4 KiB, which are described in pages of their own: 12 to 4096, or 0 to \
      offer none; a request then carries 11.
      """, valueName: "segments"))
  var indirect = BlkBackOptions().maxIndirectSegmentCount

  @Flag(
    help: """
      Offer no persistent grants: each request's payload is then copied by the hypervisor, and no page of the guest's is \
      mapped but its rings.
      """)
  var noPersistent = false

  @Option(
    help: ArgumentHelp(
      "Keep at most so many of the guest's pages mapped for each queue; those unused for the longest time go first.",
      valueName: "pages"))
  var persistentPages = BlkBackOptions().persistentPageCount

  @Option(
    help: ArgumentHelp(
      """
      How long a queue's thread looks for more at most before it sleeps: it does so only where it was lately woken as soon. \
      Zero saves processor time, and costs each request of a guest that waits for its answers the time that waking takes.
      """, valueName: "microseconds"))
  var busyWait = AdaptiveSleep.defaultMaxNanoseconds / 1000

  @Flag(help: "Offer write barriers only and no flushes, as old guests know them.")
  var barriersOnly = false

  @Flag(help: "Offer no discards, so that the image keeps the room that the guest frees.")
  var noDiscard = false

  @Option(
    help: ArgumentHelp(
      """
      What the guest's driver counts sectors in on a disk whose own are larger than 512 bytes: strict is 512 bytes, as the \
      protocol and Linux have it; the others are the drivers that have it otherwise. Windows has it as QEMU.
      """, valueName: "driver"))
  var sectorUnits = SectorUnitsName.strict

  public init() {}

  public func validate() throws {
    guard (1...64).contains(queues) else { throw ValidationError("A disk has 1 to 64 queues, and not \(queues).") }
    guard (0...4).contains(ringOrder) else {
      throw ValidationError("A ring's order is 0 to 4 (1 to 16 pages), and not \(ringOrder).")
    }
    guard indirect == 0 || (BlkIf.maxSegmentCount + 1...BlkIf.maxIndirectSegmentCount).contains(indirect) else {
      throw ValidationError(
        "An indirect request has 12 to \(BlkIf.maxIndirectSegmentCount) segments, or is not offered (0); "
          + "\(indirect) is neither.")
    }
    guard busyWait <= 10_000 else {
      throw ValidationError("A thread looks for at most 10000 microseconds before it sleeps, and not for \(busyWait).")
    }
    guard persistentPages > 0 else {
      throw ValidationError("No pages to keep mapped: to keep none, give --no-persistent.")
    }
  }

  /// Whose threads serve the disks' queues.
  public var queueHost: ThreadPerQueue { ThreadPerQueue(sleep: AdaptiveSleep(maxNanoseconds: busyWait * 1000)) }

  /// The same for a ``BlkBackDriver``.
  public var backend: BlkBackOptions {
    var options = BlkBackOptions()
    options.maxQueueCount = queues
    options.maxRingPageOrder = ringOrder
    options.maxIndirectSegmentCount = indirect
    options.offersPersistentGrants = !noPersistent
    options.persistentPageCount = persistentPages
    options.offersFlush = !barriersOnly
    options.offersDiscard = !noDiscard
    options.sectorUnits = sectorUnits.units
    return options
  }
}

/// Whose reading of the protocol ``SectorUnits`` follow.
enum SectorUnitsName: String, CaseIterable, ExpressibleByArgument {
  case strict, freebsd, minios, tapdisk, qemu

  var units: SectorUnits {
    switch self {
    case .strict: .standard
    case .freebsd: .freeBSD
    case .minios: .miniOS
    case .tapdisk: .tapdisk
    case .qemu: .sectorSize
    }
  }
}
