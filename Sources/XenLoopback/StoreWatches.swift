import XenPlatform

/// The watches that are set, found by the path of what has changed: the store of many domains has many, and a change concerns few.
struct StoreWatches {
  private struct Numbered {
    /// In the order in which they were set, in which they hear of a change.
    let number: UInt64
    let watch: SharedStore.Watch
  }

  private var byPath: [String: [Numbered]] = [:]
  private var nextNumber: UInt64 = 0
  private(set) var count = 0
  private var countByDomain: [DomainID: Int] = [:]

  mutating func append(_ watch: SharedStore.Watch) {
    byPath[watch.absolutePath, default: []].append(Numbered(number: nextNumber, watch: watch))
    nextNumber += 1
    count += 1
    countByDomain[watch.process.domain, default: 0] += 1
  }

  mutating func removeAll(where isGone: (SharedStore.Watch) -> Bool) {
    for path in Array(byPath.keys) { remove(at: path, where: isGone) }
  }

  /// - Returns: whether there was any.
  @discardableResult
  mutating func remove(at path: String, where isGone: (SharedStore.Watch) -> Bool) -> Bool {
    guard var here = byPath[path] else { return false }
    let before = here.count
    here.removeAll { numbered in
      guard isGone(numbered.watch) else { return false }
      let domain = numbered.watch.process.domain
      let left = countByDomain[domain, default: 0] - 1
      countByDomain[domain] = left > 0 ? left : nil
      return true
    }
    byPath[path] = here.isEmpty ? nil : here
    count -= before - here.count
    return here.count < before
  }

  /// How many a domain has set, by whatever connections: its quota is looked at for each new one.
  func count(of domain: DomainID) -> Int { countByDomain[domain, default: 0] }

  /// In no order.
  var all: [SharedStore.Watch] { byPath.values.flatMap { $0.map(\.watch) } }

  /// Those on this very path.
  func at(_ path: String) -> [SharedStore.Watch] { (byPath[path] ?? []).map(\.watch) }

  /// Those on this path and on the ones above it.
  func atOrAbove(_ path: String) -> [SharedStore.Watch] {
    var found = byPath[path] ?? []
    var path = path
    while path != "/" {
      path = StorePath.parent(path)
      if let above = byPath[path] { found += above }
    }
    found.sort { $0.number < $1.number }
    return found.map(\.watch)
  }
}
