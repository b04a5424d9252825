import Synchronization

/// Keeps what must have a range of bytes to itself from everything else in that range.
///
/// Those that can share a range run side by side. Who comes later never overtakes who waits for an overlapping range, so
/// nobody waits for ever.
final class RangeLocks: Sendable {
  private struct Claim {
    let number: UInt64
    let range: Range<UInt64>
    let isAlone: Bool

    func conflicts(with other: Claim) -> Bool { (isAlone || other.isAlone) && range.overlaps(other.range) }
  }

  private struct State {
    var nextNumber: UInt64 = 0
    var held: [Claim] = []
    /// In the order in which they came.
    var waiting: [(claim: Claim, go: CheckedContinuation<Void, Never>)] = []
  }

  private let state = Mutex(State())

  /// Runs `body` when it may have the range.
  func holding<Result>(_ range: Range<UInt64>, alone: Bool, _ body: () async throws -> Result) async rethrows -> Result
  {
    let number = await claim(range, isAlone: alone)
    defer { release(number) }
    return try await body()
  }

  private func claim(_ range: Range<UInt64>, isAlone: Bool) async -> UInt64 {
    let claim = state.withLock { state in
      defer { state.nextNumber += 1 }
      return Claim(number: state.nextNumber, range: range, isAlone: isAlone)
    }
    await withCheckedContinuation { go in
      let isFree = state.withLock { state in
        guard !state.held.contains(where: claim.conflicts),
          !state.waiting.contains(where: { claim.conflicts(with: $0.claim) })
        else {
          state.waiting.append((claim, go))
          return false
        }
        state.held.append(claim)
        return true
      }
      if isFree { go.resume() }
    }
    return claim.number
  }

  private func release(_ number: UInt64) {
    let freed = state.withLock { state in
      state.held.removeAll { $0.number == number }
      var freed: [CheckedContinuation<Void, Never>] = []
      var stillWaiting: [(claim: Claim, go: CheckedContinuation<Void, Never>)] = []
      for (claim, go) in state.waiting {
        if state.held.contains(where: claim.conflicts)
          || stillWaiting.contains(where: { claim.conflicts(with: $0.claim) })
        {
          stillWaiting.append((claim, go))
        } else {
          state.held.append(claim)
          freed.append(go)
        }
      }
      state.waiting = stillWaiting
      return freed
    }
    for go in freed { go.resume() }
  }
}
