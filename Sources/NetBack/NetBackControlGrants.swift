import NetIf
import Synchronization

/// The grants of one queue that its frontend has had mapped (io/netif.h, "Static Grants"), as the grant table that the queue
/// copies through: what is mapped is copied as memory, and the rest by the hypervisor.
///
/// The queue takes a lock once a batch, and none as long as nothing is mapped; so a grant that was to be unmapped is in no
/// copy any more when that is answered.
///
/// Sendable: everything that changes is under the lock.
final class NetBackControlGrants: GrantTable, @unchecked Sendable {
  /// How many are kept for a queue: all pages of both its rings.
  static let maxCount = 512

  private final class Page: Sendable {
    let region: SharedRegion
    let isReadOnly: Bool

    init(_ region: consuming SharedRegion, isReadOnly: Bool) {
      self.region = region
      self.isReadOnly = isReadOnly
    }
  }

  private struct State {
    var pages: [UInt32: Page] = [:]
    /// Of the batch under way, what the hypervisor copies, and where in the batch it stands.
    var rest: [GrantCopy] = []
    var places: [Int] = []
  }

  private let grants: any GrantTable
  private let frontend: DomainID
  private let state = Mutex(State())
  private let isUsed = Atomic(false)

  init(_ grants: any GrantTable, frontend: DomainID) { (self.grants, self.frontend) = (grants, frontend) }

  // MARK: The control ring's

  /// Maps all of a list, or none of it.
  func add(_ list: [NetIfGrantMapping]) throws(NetControlFault) {
    let pages = try state.withLock { (state) throws(NetControlFault) -> Int in
      for entry in list where entry.flags & ~NetIfGrantMapping.readOnlyFlag != 0 { throw .grantFlags(entry.flags) }
      var references = Set(state.pages.keys)
      for entry in list where !references.insert(entry.gref).inserted {
        throw .grantMappedAlready(GrantReference(rawValue: entry.gref))
      }
      guard references.count <= Self.maxCount else {
        throw .tooManyGrants(count: references.count, limit: Self.maxCount)
      }
      return references.count
    }
    // Only the control ring's thread changes the table, so that it is still so.
    var added: [(UInt32, Page)] = []
    for entry in list {
      let isReadOnly = entry.flags & NetIfGrantMapping.readOnlyFlag != 0
      do throws(GrantError) {
        let region = try grants.map([GrantReference(rawValue: entry.gref)], of: frontend, writable: !isReadOnly)
        added.append((entry.gref, Page(region, isReadOnly: isReadOnly)))
      } catch { throw .unmappable("\(error)") }
    }
    state.withLock { state in
      for (reference, page) in added { state.pages[reference] = page }
    }
    isUsed.store(pages > 0, ordering: .releasing)
  }

  /// What would become of each entry of a list, and how many are mapped; none is touched.
  func removal(of list: [NetIfGrantMapping]) -> (statuses: [NetControlStatus], count: Int) {
    state.withLock { state in
      var references = Set(state.pages.keys)
      let statuses = list.map { references.remove($0.gref) != nil ? NetControlStatus.success : .invalidParameter }
      return (statuses, statuses.count { $0 == .success })
    }
  }

  /// Unmaps those of a list that are mapped.
  func remove(_ list: [NetIfGrantMapping]) {
    let isEmpty = state.withLock { state in
      for entry in list { state.pages[entry.gref] = nil }
      return state.pages.isEmpty
    }
    isUsed.store(!isEmpty, ordering: .releasing)
  }

  // MARK: The queue's

  func share(pageCount: Int, with domain: DomainID, writable: Bool) throws(GrantError) -> GrantedPages {
    try grants.share(pageCount: pageCount, with: domain, writable: writable)
  }

  func map(_ references: [GrantReference], of domain: DomainID, writable: Bool) throws(GrantError) -> SharedRegion {
    try grants.map(references, of: domain, writable: writable)
  }

  func copy(_ copies: inout MutableSpan<GrantCopy>) {
    guard isUsed.load(ordering: .acquiring) else {
      grants.copy(&copies)
      return
    }
    state.withLock { state in
      for index in copies.indices {
        if Self.copy(copies[index], among: state.pages) {
          copies[index].status = .okay
        } else {
          state.rest.append(copies[index])
          state.places.append(index)
        }
      }
      guard !state.rest.isEmpty else { return }
      var span = state.rest.mutableSpan
      grants.copy(&span)
      for (number, index) in state.places.enumerated() { copies[index].status = state.rest[number].status }
      state.rest.removeAll(keepingCapacity: true)
      state.places.removeAll(keepingCapacity: true)
    }
  }

  /// Copies as memory, where that can be done.
  ///
  /// - Returns: false for what is the hypervisor's to do, or to refuse.
  private static func copy(_ copy: GrantCopy, among pages: [UInt32: Page]) -> Bool {
    guard let page = pages[copy.reference.rawValue], Int(copy.offset) + Int(copy.count) <= xenPageSize else {
      return false
    }
    let far = page.region.bytes.slice(from: Int(copy.offset), count: Int(copy.count))
    // Safe: who made the copy has as many bytes there, of its own.
    let near = unsafe SharedBytes(baseAddress: copy.local, count: Int(copy.count))
    switch copy.direction {
    case .fromGrant: near.copy(from: far)
    case .toGrant:
      if page.isReadOnly { return false }
      far.copy(from: near)
    }
    return true
  }
}
