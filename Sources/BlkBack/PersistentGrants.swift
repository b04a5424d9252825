import BlkIf
import XenPlatform

/// Pages of the frontend's that stay mapped from one request to the next (io/blkif.h, `feature-persistent`): at most as many
/// as its limit says, of which those that were not used for the longest time go first.
///
/// What one request has found missing is mapped, and unmapped again, together.
struct PersistentGrants {
  /// Why a request's pages are not all mapped.
  enum Shortage: Error {
    /// The limit is reached: this many pages must go first.
    case room(pageCount: Int)
    /// The other end has not granted us one of them, or not for writing as note 8 of the header demands.
    case refused(GrantError)
    /// The platform cannot map any more.
    case exhausted
  }

  private struct Place {
    let run: Int
    let page: Int
  }

  /// What one call has mapped.
  private final class Mapping: Sendable {
    let region: SharedRegion

    init(_ region: consuming SharedRegion) { self.region = region }
  }

  private struct Run {
    let mapping: Mapping
    let bytes: SharedBytes
    let references: [GrantReference]
    var lastUse: RequestNumber
    var lastUsedAt: UInt64
  }

  private var places: [UInt32: Place] = [:]
  private var runs: [Run?] = []
  private var freeRuns: [Int] = []
  private(set) var pageCount = 0
  let limit: Int
  private let grants: any GrantTable
  private let frontend: DomainID
  private var missing: [GrantReference] = []

  /// - Parameter limit: in pages; positive.
  init(of frontend: DomainID, limit: Int, grants: any GrantTable) {
    precondition(limit > 0, "room for a page")
    (self.frontend, self.limit, self.grants) = (frontend, limit, grants)
  }

  /// The page's bytes, if it is mapped.
  ///
  /// - Parameters:
  ///   - user: whoever is going to use them: they stay as long as it may.
  ///   - now: in nanoseconds.
  @inline(__always) mutating func bytes(
    of reference: GrantReference, for user: RequestNumber, now: UInt64
  ) -> SharedBytes? {
    guard let place = places[reference.rawValue] else { return nil }
    touch(place.run, for: user, now: now)
    return runs[place.run]!.bytes.slice(from: place.page * xenPageSize, count: xenPageSize)
  }

  private mutating func touch(_ run: Int, for user: RequestNumber, now: UInt64) {
    // One that began earlier may come later: a request's segments are found before its payload is.
    runs[run]!.lastUse = max(runs[run]!.lastUse, user)
    runs[run]!.lastUsedAt = now
  }

  /// Maps those of the pages that are not mapped yet, in one call. Nothing is mapped when that fails. All of them stay as long
  /// as `user` may be using them.
  mutating func map(
    _ count: Int, for user: RequestNumber, now: UInt64, reference: (Int) -> GrantReference
  ) throws(Shortage) {
    missing.removeAll(keepingCapacity: true)
    // A page may be named twice: where it will be is noted at once.
    let number = freeRuns.last ?? runs.count
    for index in 0..<count {
      let reference = reference(index)
      if let place = places[reference.rawValue] {
        if place.run != number { touch(place.run, for: user, now: now) }
        continue
      }
      places[reference.rawValue] = Place(run: number, page: missing.count)
      missing.append(reference)
    }
    guard !missing.isEmpty else { return }
    do throws(Shortage) {
      guard pageCount + missing.count <= limit else { throw .room(pageCount: pageCount + missing.count - limit) }
      let mapping = Mapping(try map(missing))
      let run = Run(
        mapping: mapping, bytes: mapping.region.bytes, references: missing, lastUse: user, lastUsedAt: now)
      if freeRuns.popLast() == nil { runs.append(run) } else { runs[number] = run }
      pageCount += missing.count
    } catch {
      for reference in missing { places[reference.rawValue] = nil }
      throw error
    }
  }

  private func map(_ references: [GrantReference]) throws(Shortage) -> SharedRegion {
    do throws(GrantError) { return try grants.map(references, of: frontend, writable: true) } catch {
      if case .refused = error { throw .refused(error) }
      throw .exhausted
    }
  }

  /// Unmaps at least this many pages, the longest unused first, as far as no request from `inUse` on may be using them.
  mutating func makeRoom(for count: Int, inUse: RequestNumber) {
    var left = count
    while left > 0 {
      var oldest: Int?
      for (number, run) in runs.enumerated() {
        guard let run, run.lastUse < inUse, oldest == nil || run.lastUse < runs[oldest!]!.lastUse else { continue }
        oldest = number
      }
      guard let oldest else { return }
      left -= runs[oldest]!.references.count
      unmap(oldest)
    }
  }

  /// Unmaps what was last used before this time, in nanoseconds.
  mutating func trim(before time: UInt64, inUse: RequestNumber) {
    for (number, run) in runs.enumerated() {
      if let run, run.lastUsedAt < time, run.lastUse < inUse { unmap(number) }
    }
  }

  private mutating func unmap(_ number: Int) {
    guard let run = runs[number] else { return }
    for reference in run.references { places[reference.rawValue] = nil }
    pageCount -= run.references.count
    // The last reference: the pages are unmapped here.
    runs[number] = nil
    freeRuns.append(number)
  }
}

/// The place of a request in the order in which its queue has begun them.
typealias RequestNumber = UInt64
