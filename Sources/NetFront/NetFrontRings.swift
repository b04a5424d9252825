import NetIf
import XenRing

/// The rings and pools of a connection as they are shared for it, as many as the kernel has pages for.
struct NetFrontRings: ~Copyable {
  /// One queue's.
  private struct Shared: ~Copyable {
    let txReference: GrantReference
    let rxReference: GrantReference
    var transmit: NetFrontTransmit
    var receive: NetFrontReceive
  }

  private let features: NetFeatures
  private let maxQueueCount: Int
  private let transmits: OwnedArray<NetFrontTransmit>
  private let receives: OwnedArray<NetFrontReceive>
  private let references: [(tx: GrantReference, rx: GrantReference)]
  private let events: NetFrontEvents
  private let control: NetFrontControl?
  private let txPageCount: Int
  private let rxPageCount: Int
  /// Why there are fewer queues, or fewer pages, than the two ends would have had.
  private let queueShortage: String
  private let pageShortage: String
  private let controlShortage: String

  /// - Parameters:
  ///   - maxFrameByteCount: of what is sent as one packet.
  ///   - isUntrusted: whether the backend is to see and change nothing but what it must (`trusted`).
  /// - Throws: when there is not even room for one frame of the longest each way.
  init(
    _ device: XenbusDevice, _ features: NetFeatures, offered: NetBackendKeys, maxFrameByteCount: Int, isUntrusted: Bool
  ) throws(DeviceError) {
    let wanted = min(features.maxQueueCount, offered.maxQueueCount)
    let txMinimum = NetIf.pageCount(of: maxFrameByteCount)
    let rxMinimum = features.scatterGather ? NetIf.maxFragmentCount : 1
    var transmits = OwnedArray<NetFrontTransmit>(capacity: wanted)
    var receives = OwnedArray<NetFrontReceive>(capacity: wanted)
    var references: [(tx: GrantReference, rx: GrantReference)] = []
    var events = try NetFrontEvents(device, isSplit: features.splitEventChannels && offered.splitsEventChannels)
    // One queue of any size first: what is shared decides what size all have.
    var pageCount = Self.entryCount
    var (pageShortage, queueShortage) = ("", "")
    while transmits.count == 0 || (transmits.count < wanted && queueShortage.isEmpty) {
      do throws(DeviceError) {
        let next = try Self.share(
          device, features, max(pageCount, txMinimum), max(pageCount, rxMinimum), isUntrusted: isUntrusted)
        references.append((next.txReference, next.rxReference))
        transmits.append(next.transmit)
        receives.append(next.receive)
      } catch {
        guard case .grant(.exhausted(_, let advice)) = error else { throw error }
        if transmits.count > 0 {
          queueShortage = advice
        } else if pageCount > min(txMinimum, rxMinimum) {
          pageShortage = advice
          pageCount /= 2
        } else {
          throw error
        }
      }
    }
    for _ in 0..<transmits.count { try events.add() }
    var controlShortage = ""
    var control: NetFrontControl?
    if features.controlRing, offered.hasControlRing {
      do throws(DeviceError) {
        control = try NetFrontControl(device, &events, staticGrants: features.staticGrants)
      } catch {
        // Queues come first.
        guard case .grant(.exhausted(_, let advice)) = error else { throw error }
        controlShortage = advice
      }
    }
    (self.control, self.controlShortage) = (control, controlShortage)
    (self.features, maxQueueCount, self.references) = (features, offered.maxQueueCount, references)
    self.events = events
    (txPageCount, rxPageCount) = (max(pageCount, txMinimum), max(pageCount, rxMinimum))
    (self.queueShortage, self.pageShortage) = (queueShortage, pageShortage)
    self.transmits = transmits
    self.receives = receives
  }

  /// Of either ring, and so the most pages of a pool that are of use. The transmit ring's slots are larger, and its page
  /// has as many.
  private static let entryCount = RingLayout.entryCount(
    byteCount: xenPageSize, stride: RingLayout.stride(NetIfTxRequest.self, NetIfTxResponse.self))

  private static func share(
    _ device: XenbusDevice, _ features: NetFeatures, _ txPageCount: Int, _ rxPageCount: Int, isUntrusted: Bool
  ) throws(DeviceError) -> Shared {
    let txRing = try device.share(pageCount: 1)
    let rxRing = try device.share(pageCount: 1)
    let (txReference, rxReference) = (txRing.references[0], rxRing.references[0])
    let txPages = NetFrontPages(try device.share(pageCount: txPageCount, writable: false), capacity: txPageCount)
    let rxPages = NetFrontPages(try device.share(pageCount: rxPageCount), capacity: entryCount)
    return Shared(
      txReference: txReference, rxReference: rxReference,
      transmit: NetFrontTransmit(
        ring: FrontRing(initialising: txRing.takeRegion()), pages: txPages, isUntrusted: isUntrusted),
      receive: NetFrontReceive(
        ring: FrontRing(initialising: rxRing.takeRegion()), pages: rxPages, agreement: features.receiveAgreement,
        isUntrusted: isUntrusted))
  }

  /// What tells the backend of the rings (io/netif.h).
  var entries: [StoreEntry] {
    var entries = references.count > 1 ? [StoreEntry("multi-queue-num-queues", references.count)] : []
    for (number, (tx, rx)) in references.enumerated() {
      let prefix = references.count > 1 ? "queue-\(number)/" : ""
      entries += [StoreEntry("\(prefix)tx-ring-ref", tx.rawValue), StoreEntry("\(prefix)rx-ring-ref", rx.rawValue)]
      entries += events.entries(number, prefix: prefix)
    }
    return entries + (control?.entries ?? [])
  }

  /// What an earlier life with other rings has left: a backend would take it for ours. Linux's goes by the two event
  /// channels of a split pair, if they are there, whatever it has offered.
  static func staleEntries(_ own: StoreDirectory) throws(DeviceError) -> [StoreEntry] {
    try own.children().filter { name in
      name.hasPrefix("queue-") || name.hasPrefix("event-channel")
        || ["tx-ring-ref", "rx-ring-ref", "ctrl-ring-ref", "multi-queue-num-queues"].contains(name)
    }.map { StoreEntry(absent: $0) }
  }

  func report(in negotiation: inout Negotiation) {
    let (ours, theirs) = (features.maxQueueCount, maxQueueCount)
    let reason =
      ours < theirs
      ? "the frontend does not use more" : ours > theirs ? "the backend offers no more" : ""
    negotiation.add(
      "queues", frontend: "\(ours)", backend: "\(theirs)", agreed: "\(references.count)",
      reason: queueShortage.isEmpty ? reason : "no more pages can be shared: \(queueShortage)")
    if !controlShortage.isEmpty {
      negotiation.add(
        "control ring", frontend: "yes", backend: "yes", agreed: "off",
        reason: "no more pages can be shared: \(controlShortage)")
    }
    for (name, count) in [("tx pages", txPageCount), ("rx pages", rxPageCount)] {
      negotiation.add(
        name, frontend: "\(Self.entryCount)", backend: "-", agreed: "\(count)",
        reason: count < Self.entryCount ? "no more can be shared: \(pageShortage)" : "")
    }
  }

  /// - Parameters:
  ///   - maxFrameByteCount: of what may be sent as it is.
  ///   - offloads: what may be sent unfinished.
  consuming func makeQueues(maxFrameByteCount: Int, offloads: NetOffloads) -> NetFrontQueues {
    NetFrontQueues(
      transmits: transmits, receives: receives, events: events, control: control,
      maxFrameByteCount: maxFrameByteCount, offloads: offloads)
  }
}
