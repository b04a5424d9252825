import BlkIf
import XenRing

/// The rings and pools of a connection as they are shared for it, as many as the kernel has pages for.
struct BlkFrontRings: ~Copyable {
  private let options: BlkFrontOptions
  private let offered: BlkBackendOffer
  private let queues: OwnedArray<BlkFrontQueue>
  private let events: BlkFrontEvents
  private let references: [[GrantReference]]
  private let ringPageCount: Int
  let poolPageCount: Int
  /// Why there are fewer queues, or fewer pages, than the two ends would have had.
  private let queueShortage: String
  private let pageShortage: String

  private struct Shared: ~Copyable {
    let references: [GrantReference]
    var queue: BlkFrontQueue
  }

  init(
    _ device: XenbusDevice, _ options: BlkFrontOptions, offered: BlkBackendOffer
  ) throws(DeviceError) {
    let wanted = min(options.maxQueueCount, offered.queueCount)
    var (ringPageCount, poolPageCount) = (
      min(1 << options.maxRingPageOrder, offered.ringPageCount), options.poolPageCount
    )
    var shortage = ""
    var queues = OwnedArray<BlkFrontQueue>(capacity: wanted)
    var references: [[GrantReference]] = []
    var events = try BlkFrontEvents(device)
    // One queue of any size first: what is shared decides what size all have.
    while queues.count == 0 {
      do throws(DeviceError) {
        let first = try Self.share(device, options, ringPageCount, poolPageCount)
        references.append(first.references)
        queues.append(first.queue)
      } catch {
        let isLeast = ringPageCount == 1 && poolPageCount == BlkIf.maxSegmentCount
        guard case .grant(.exhausted) = error, !isLeast else { throw error }
        // What was asked for first says most.
        if shortage.isEmpty { shortage = "\(error)" }
        ringPageCount = max(ringPageCount / 2, 1)
        poolPageCount = max(poolPageCount / 2, BlkIf.maxSegmentCount)
      }
    }
    var queueShortage = ""
    while queues.count < wanted, queueShortage.isEmpty {
      do throws(DeviceError) {
        let next = try Self.share(device, options, ringPageCount, poolPageCount)
        references.append(next.references)
        queues.append(next.queue)
      } catch {
        guard case .grant(.exhausted) = error else { throw error }
        queueShortage = "\(error)"
      }
    }
    for _ in 0..<queues.count { try events.add() }
    (self.options, self.offered, self.references) = (options, offered, references)
    (self.ringPageCount, self.poolPageCount) = (ringPageCount, poolPageCount)
    (self.queueShortage, pageShortage) = (queueShortage, shortage)
    self.events = events
    self.queues = consume queues
  }

  private static func share(
    _ device: XenbusDevice, _ options: BlkFrontOptions, _ ringPageCount: Int, _ poolPageCount: Int
  ) throws(DeviceError) -> Shared {
    let ringPages = try device.share(pageCount: ringPageCount)
    let references = ringPages.references
    let ring = BlkFrontRing(initialising: ringPages.takeRegion(), as: options.layout)
    return Shared(
      references: references,
      queue: BlkFrontQueue(
        ring: ring, pool: try device.share(pageCount: poolPageCount), holdsOffEvents: options.holdsOffEvents))
  }

  // MARK: Keys

  /// What tells the backend of the rings (io/blkif.h, "Request Transport Parameters" and "Multiple hardware queues/rings").
  var entries: [StoreEntry] {
    var entries = [
      StoreEntry("protocol", options.layout.rawValue), StoreEntry("feature-persistent", options.usesPersistentGrants),
    ]
    // Both spellings, as note 3 has it.
    if ringPageCount > 1 {
      entries += [
        StoreEntry("ring-page-order", ringPageCount.trailingZeroBitCount), StoreEntry("num-ring-pages", ringPageCount),
      ]
    }
    if references.count > 1 { entries.append(StoreEntry("multi-queue-num-queues", references.count)) }
    for number in references.indices {
      let prefix = references.count > 1 ? "queue-\(number)/" : ""
      for (page, reference) in references[number].enumerated() {
        entries.append(StoreEntry("\(prefix)ring-ref\(ringPageCount > 1 ? "\(page)" : "")", reference.rawValue))
      }
      entries.append(StoreEntry("\(prefix)event-channel", events.ports[number].rawValue))
    }
    return entries
  }

  /// What an earlier life with other rings has left: a backend would take it for ours.
  func staleEntries(_ own: StoreDirectory) throws(DeviceError) -> [StoreEntry] {
    try own.children().filter { name in
      name.hasPrefix("ring-ref") || name.hasPrefix("queue-")
        || ["event-channel", "ring-page-order", "num-ring-pages", "multi-queue-num-queues"].contains(name)
    }.map { StoreEntry(absent: $0) }
  }

  func report(in negotiation: inout Negotiation) {
    func reason(_ asked: Int, _ offered: Int) -> String {
      asked < offered ? "the frontend asks for no more" : asked > offered ? "the backend offers no more" : ""
    }
    let (queueCount, pageCount) = (options.maxQueueCount, 1 << options.maxRingPageOrder)
    negotiation.add(
      "queues", frontend: "\(queueCount)", backend: "\(offered.queueCount)", agreed: "\(references.count)",
      reason: queueShortage.isEmpty ? reason(queueCount, offered.queueCount) : queueShortage)
    negotiation.add(
      "ring pages", frontend: "\(pageCount)", backend: "\(offered.ringPageCount)", agreed: "\(ringPageCount)",
      reason: ringPageCount < min(pageCount, offered.ringPageCount)
        ? pageShortage : reason(pageCount, offered.ringPageCount))
    negotiation.add(
      "pool pages", frontend: "\(options.poolPageCount)", backend: "any", agreed: "\(poolPageCount)",
      reason: pageShortage)
  }

  consuming func makeQueues(lastSequence: UInt64) -> BlkFrontQueues {
    BlkFrontQueues(queues, events, poolPageCount: poolPageCount, lastSequence: lastSequence)
  }
}
