import NetIf

/// Pages shared with the backend in which frames travel, numbered from 0; as many as could be had.
struct NetFrontPages: ~Copyable {
  /// What was shared in one call; it stays shared as long as we do.
  private final class Run {
    let pages: GrantedPages
    init(_ pages: consuming GrantedPages) { self.pages = pages }
  }

  struct Page {
    let bytes: SharedBytes
    let reference: GrantReference
  }

  private var runs: [Run] = []
  private var pages: [Page] = []

  init(_ pages: consuming GrantedPages) { add(pages) }

  var count: Int { pages.count }

  subscript(page: UInt16) -> Page { pages[Int(page)] }

  mutating func add(_ run: consuming GrantedPages) {
    for (page, reference) in run.references.enumerated() {
      pages.append(Page(bytes: run.bytes.slice(from: page * xenPageSize, count: xenPageSize), reference: reference))
    }
    runs.append(Run(run))
  }
}

/// The pages of both directions.
struct NetFrontPools: ~Copyable {
  var transmit: NetFrontPages
  var receive: NetFrontPages
  /// What the platform says to do when there are fewer pages than wanted.
  let advice: String
}

/// How many pages each direction of a card is given, when they cannot all be had (`GrantError.exhausted`).
struct NetFrontPageBudget {
  /// As many as the ring has slots: more are of no use.
  let wanted: Int
  /// For one frame of the longest.
  let transmitMinimum: Int
  let receiveMinimum: Int

  /// Shares both pools: as many pages as wanted for each, or half of that, and so on.
  ///
  /// - Throws: when there is not even room for one frame of the longest each way.
  func share(with device: XenbusDevice) throws(DeviceError) -> NetFrontPools {
    var count = wanted
    var advice = ""
    while true {
      do throws(DeviceError) {
        let transmit = try device.share(pageCount: max(count, transmitMinimum), writable: false)
        let receive = try device.share(pageCount: max(count, receiveMinimum))
        return NetFrontPools(transmit: NetFrontPages(transmit), receive: NetFrontPages(receive), advice: advice)
      } catch {
        guard case .grant(.exhausted(_, let words)) = error, count > min(transmitMinimum, receiveMinimum) else {
          throw error
        }
        advice = words
        count /= 2
      }
    }
  }
}

extension Negotiation {
  /// How many pages of our own we got.
  mutating func add(_ name: String, ours: Int, wanted: Int, reason: String) {
    add(
      name, frontend: "\(wanted)", backend: "-", agreed: "\(ours)",
      reason: ours < wanted ? "no more can be shared: \(reason)" : "")
  }
}
