import Synchronization

/// What somebody saw at least once, from whichever thread looked.
final class Sightings<Sight: Hashable & Sendable>: Sendable {
  private let seen = Mutex<Set<Sight>>([])

  var all: Set<Sight> { seen.withLock { $0 } }

  func note(_ sight: Sight) { seen.withLock { _ = $0.insert(sight) } }
}
