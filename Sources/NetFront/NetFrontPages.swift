import NetIf

/// Pages shared with the backend in which frames travel, numbered from 0; as many as could be had.
struct NetFrontPages: ~Copyable {
  /// What was shared in one call; it stays shared as long as we do.
  private final class Run {
    let pages: GrantedPages
    init(_ pages: consuming GrantedPages) { self.pages = pages }
  }

  private var runs: [Run] = []
  private var bytes: [SharedBytes] = []
  private(set) var references: [GrantReference] = []

  init(_ pages: consuming GrantedPages) { add(pages) }

  var count: Int { references.count }

  subscript(page: Int) -> SharedBytes { bytes[page] }

  mutating func add(_ pages: consuming GrantedPages) {
    references += pages.references
    for page in pages.references.indices {
      bytes.append(pages.bytes.slice(from: page * xenPageSize, count: xenPageSize))
    }
    runs.append(Run(pages))
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
